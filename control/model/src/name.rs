//! Names that cannot be wrong: parsed once, at the boundary.

use crate::limits;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;
use std::str::FromStr;

/// Why a text is not a name of the wanted kind. `Display` is a sentence for whoever wrote it, without the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters (or one of its labels has none).
    #[error("a name may not be empty, nor have an empty part")]
    Empty,
    /// It is too long.
    #[error("a name of this kind may have at most {max} characters")]
    TooLong {
        /// How many it may have.
        max: usize,
    },
    /// It has a character that this kind may not have.
    #[error("a name of this kind is made of {allowed}")]
    Character {
        /// What it may be made of.
        allowed: &'static str,
    },
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                $check(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    };
}

name_type! {
    /// A machine's host name: one label of letters, digits and hyphens, 1 to 63 characters, no hyphen at an end; read in any
    /// case, kept in lower case (RFC 1123 §2.1, RFC 4343).
    Hostname, check_label
}

name_type! {
    /// A domain name of such labels, 1 to 253 characters, without a trailing dot, kept in lower case.
    Domain, check_domain
}

name_type! {
    /// The name of an image, pool, fabric, VLAN, subnet or rack: letters, digits and `-`, `_`, `.`, `+`, `:`, 1 to 128
    /// characters, starting with a letter or digit; kept as it is. No slash, so that it never looks like a path.
    Name, check_name
}

fn check_label(text: &str) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > limits::LABEL_CHARACTERS_MAX {
        return Err(NameError::TooLong { max: limits::LABEL_CHARACTERS_MAX });
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !plain || text.starts_with('-') || text.ends_with('-') {
        return Err(NameError::Character { allowed: "letters, digits and hyphens, with no hyphen at an end" });
    }
    Ok(text.to_ascii_lowercase())
}

fn check_domain(text: &str) -> Result<String, NameError> {
    if text.len() > limits::DOMAIN_CHARACTERS_MAX {
        return Err(NameError::TooLong { max: limits::DOMAIN_CHARACTERS_MAX });
    }
    text.split('.').try_for_each(|label| check_label(label).map(drop))?;
    Ok(text.to_ascii_lowercase())
}

fn check_name(text: &str) -> Result<String, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > limits::NAME_CHARACTERS_MAX {
        return Err(NameError::TooLong { max: limits::NAME_CHARACTERS_MAX });
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+:".contains(&byte));
    if !plain || !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        return Err(NameError::Character { allowed: "letters, digits and `-_.+:`, and starts with a letter or digit" });
    }
    Ok(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_labels_in_lower_case() {
        assert_eq!("N001".parse::<Hostname>().map(|name| name.to_string()), Ok("n001".to_string()));
        assert!("a".repeat(63).parse::<Hostname>().is_ok());
        assert_eq!("a".repeat(64).parse::<Hostname>(), Err(NameError::TooLong { max: 63 }));
        assert_eq!("".parse::<Hostname>(), Err(NameError::Empty));
        for bad in ["-a", "a-", "a.b", "a_b", "a b", "a\n", "$(x)", "ä", "a/b", "a\0"] {
            assert!(matches!(bad.parse::<Hostname>(), Err(NameError::Character { .. })), "{bad}");
        }
    }

    #[test]
    fn domains_are_labels_joined_by_dots() {
        assert!("Rack-1.example".parse::<Domain>().is_ok_and(|name| name.as_str() == "rack-1.example"));
        for bad in ["", ".", "a.", ".a", "a..b", "a.-b"] {
            assert!(bad.parse::<Domain>().is_err(), "{bad}");
        }
        let long = [["a"; 63].concat().as_str(); 4].join(".");
        assert_eq!(long.parse::<Domain>(), Err(NameError::TooLong { max: 253 }));
    }

    #[test]
    fn names_never_look_like_paths_or_options() {
        for good in ["debian-12", "Ubuntu_24.04", "a", "9:x+y"] {
            assert!(good.parse::<Name>().is_ok_and(|name| name.as_str() == good), "{good}");
        }
        for bad in ["", ".", "..", "-x", "a/b", "a b", "a'b", "a;b", "\u{202e}a"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
