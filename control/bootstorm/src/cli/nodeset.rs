//! Host list ranges: `n[001-004,7]`, `a1,b[2-3]`. Pure; bounded.

/// Names one expression may stand for.
pub const NAMES_MAX: usize = 65_536;

/// Why an expression is not a host list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodesetError {
    /// A bracket without its partner, an empty part, or a stray character.
    #[error("`{0}` is not a host list; write names as n1,n2 or n[001-064]")]
    Malformed(String),
    /// The expression stands for too many names.
    #[error("`{0}` stands for more than {NAMES_MAX} names")]
    TooMany(String),
}

/// The names an expression stands for, in order. Leading zeros are kept: `n[08-10]` is `n08 n09 n10`.
pub fn expand(expression: &str) -> Result<Vec<String>, NodesetError> {
    let malformed = || NodesetError::Malformed(expression.to_string());
    let mut names = Vec::new();
    for part in split_outside_brackets(expression).ok_or_else(malformed)? {
        let mut expanded = vec![String::new()];
        let mut rest = part;
        while let Some((text, after)) = rest.split_once('[') {
            let (list, tail) = after.split_once(']').ok_or_else(malformed)?;
            let values = ranges(list).ok_or_else(malformed)?;
            if values.len().saturating_mul(expanded.len()) > NAMES_MAX {
                return Err(NodesetError::TooMany(expression.to_string()));
            }
            expanded = expanded
                .iter()
                .flat_map(|prefix| values.iter().map(move |value| format!("{prefix}{text}{value}")))
                .collect();
            rest = tail;
        }
        if rest.contains(']') {
            return Err(malformed());
        }
        names.extend(expanded.into_iter().map(|prefix| format!("{prefix}{rest}")));
        if names.len() > NAMES_MAX {
            return Err(NodesetError::TooMany(expression.to_string()));
        }
    }
    if names.iter().any(String::is_empty) { Err(malformed()) } else { Ok(names) }
}

fn split_outside_brackets(text: &str) -> Option<Vec<&str>> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0u32, 0);
    for (index, character) in text.char_indices() {
        match character {
            '[' => depth += 1,
            ']' => depth = depth.checked_sub(1)?,
            ',' if depth == 0 => {
                parts.push(text.get(start..index)?);
                start = index + 1;
            }
            _ => {}
        }
        if depth > 1 {
            return None;
        }
    }
    parts.push(text.get(start..)?);
    (depth == 0).then_some(parts)
}

fn ranges(list: &str) -> Option<Vec<String>> {
    let digits =
        |text: &str| (!text.is_empty() && text.len() <= 9 && text.bytes().all(|b| b.is_ascii_digit())).then_some(());
    let mut values = Vec::new();
    for item in list.split(',') {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        digits(first)?;
        digits(last)?;
        let (low, high): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        if low > high || usize::try_from(high - low).ok()? >= NAMES_MAX {
            return None;
        }
        let width = first.len();
        values.extend((low..=high).map(|n| format!("{n:0width$}")));
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands_ranges_lists_and_products() {
        let cases: [(&str, &[&str]); 5] = [
            ("n1", &["n1"]),
            ("n[08-10]", &["n08", "n09", "n10"]),
            ("a,b[1,3]", &["a", "b1", "b3"]),
            ("r[1-2]n[1-2]", &["r1n1", "r1n2", "r2n1", "r2n2"]),
            ("n[1-2]-ib", &["n1-ib", "n2-ib"]),
        ];
        for (expression, names) in cases {
            assert_eq!(
                expand(expression).as_deref(),
                Ok(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).as_deref()
            );
        }
    }

    #[test]
    fn refuses_what_is_not_a_host_list() {
        for bad in ["", ",", "n[", "n]", "n[]", "n[2-1]", "n[a-b]", "n[[1]]", "n[1-99999999]", "n[1-9999]x[1-9999]"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
    }
}
