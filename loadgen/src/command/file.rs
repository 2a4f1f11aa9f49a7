//! Scenario files: the command line as TOML. `scenario` names the subcommand; every other key is the option of that name,
//! `true` for one that stands alone, a list for one that may stand several times. So a file can say exactly what flags can,
//! and an unknown key is refused as an unknown flag is.

use std::path::Path;

/// The command line that the file stands for, program name first.
///
/// # Errors
/// What cannot be read, or is no scenario.
pub fn command_line(path: &Path) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("reading `{}`: {error}", path.display()))?;
    words(&text).map_err(|error| format!("`{}`: {error}", path.display()))
}

fn words(text: &str) -> Result<Vec<String>, String> {
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let scenario = table.get("scenario").and_then(toml::Value::as_str).ok_or("`scenario` is missing")?;
    if scenario == "run" || scenario.starts_with('-') {
        return Err(format!("scenario `{scenario}` cannot stand in a file"));
    }
    let mut words = vec!["loadgen".to_owned(), scenario.to_owned()];
    for (key, value) in table.iter().filter(|(key, _)| *key != "scenario") {
        let values = match value {
            toml::Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            words.extend(option(key, value)?);
        }
    }
    Ok(words)
}

/// One option with its value; nothing for `false`.
fn option(key: &str, value: &toml::Value) -> Result<Option<String>, String> {
    let value = match value {
        toml::Value::Boolean(true) => return Ok(Some(format!("--{key}"))),
        toml::Value::Boolean(false) => return Ok(None),
        toml::Value::String(text) => text.clone(),
        toml::Value::Integer(number) => number.to_string(),
        toml::Value::Float(number) => number.to_string(),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            return Err(format!("`{key}` is neither text, number, truth value nor a list of them"));
        }
    };
    Ok(Some(format!("--{key}={value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_options() {
        let text = "scenario = \"storm\"\nnodes = 10\nrate = \"5/s\"\nprint-schedule = true\nimage-whole = false\n";
        let mut words = words(text).unwrap();
        assert_eq!(words[..2], ["loadgen", "storm"]);
        words.sort();
        assert_eq!(words[..3], ["--nodes=10", "--print-schedule", "--rate=5/s"]);
        assert_eq!(words.len(), 5);
    }

    #[test]
    fn what_is_no_scenario_is_refused() {
        for text in
            ["nodes = 1", "scenario = 1", "scenario = \"run\"", "scenario = \"-x\"", "scenario = \"a\"\nb = {}", "x"]
        {
            assert!(words(text).is_err(), "{text}");
        }
    }
}
