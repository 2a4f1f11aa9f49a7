//! Configuration: the file's shape, and one pure conversion to a checked shape. Unknown keys are refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bootstorm_api::origin::Origin;
use bootstorm_api::role::{Driver, EnlistThen, RackDns};
use serde::Deserialize;

use crate::supervisor::sockets::Ports;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration `{path}`: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not what it must be: an unknown key, a wrong type.
    #[error("configuration `{path}`, line {line}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, on one line.
        message: String,
    },
    /// A value that cannot be used.
    #[error("configuration: `{key}` is `{value}`: {rule}")]
    Value {
        /// Its key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it must be.
        rule: &'static str,
    },
}

/// A checked configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address of the API.
    pub api_listen: SocketAddr,
    /// Names of the interfaces served.
    pub interfaces: Vec<String>,
    /// Ports of the rack.
    pub ports: Ports,
    /// Shards; 0 means one for each processor.
    pub shards: u16,
    /// Octets of memory in which the rack keeps what it serves; `None` for a share of what is available.
    pub cache_bytes: Option<u64>,
    /// What does the rack's input and output.
    pub driver: Driver,
    /// Where the rack's content is fetched before control is asked.
    pub origins: Vec<Origin>,
    /// How much DNS tells whom.
    pub dns: RackDns,
    /// What happens to a machine after it has enlisted.
    pub enlist_then: EnlistThen,
    /// Origins that webhooks may reach besides public addresses.
    pub fetch_allow: Vec<String>,
    /// Bytes an uploaded image may have.
    pub upload_bytes_max: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    api: Api,
    rack: Rack,
    dns: Dns,
    enlist: Enlist,
    fetch: Fetch,
    image: Image,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Api {
    listen: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rack {
    interfaces: Vec<String>,
    http: u16,
    agent: u16,
    tftp: u16,
    dns: u16,
    dhcp: u16,
    shards: u16,
    cache: String,
    driver: Driver,
    origins: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Dns {
    client_answers: u32,
    stranger_answers: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Enlist {
    then: EnlistThen,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Fetch {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Image {
    upload_gib_max: u64,
}

impl Default for Api {
    fn default() -> Api {
        Api { listen: "127.0.0.1:5240".into() }
    }
}

impl Default for Rack {
    fn default() -> Rack {
        Rack {
            interfaces: vec![],
            http: 5248,
            agent: 5249,
            tftp: 69,
            dns: 53,
            dhcp: 67,
            shards: 0,
            cache: String::new(),
            driver: Driver::Auto,
            origins: vec![],
        }
    }
}

impl Default for Dns {
    fn default() -> Dns {
        let RackDns { client_answers, stranger_answers } = RackDns::default();
        Dns { client_answers, stranger_answers }
    }
}

impl Default for Image {
    fn default() -> Image {
        Image { upload_gib_max: 64 }
    }
}

/// Reads a configuration file; without one the defaults are used.
pub fn read(path: Option<&Path>) -> Result<Config, ConfigError> {
    let Some(path) = path else { return check(File::default()) };
    let text =
        std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_path_buf(), source })?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Config, ConfigError> {
    let file = toml::from_str(text).map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        ConfigError::Syntax { path: path.to_path_buf(), line, message: error.message().replace('\n', " ") }
    })?;
    check(file)
}

fn check(file: File) -> Result<Config, ConfigError> {
    let listen = file.api.listen;
    let api_listen = listen.parse().map_err(|_| ConfigError::Value {
        key: "api.listen",
        value: listen,
        rule: "it must be ADDRESS:PORT, e.g. 127.0.0.1:5240",
    })?;
    for (key, port) in [("rack.http", file.rack.http), ("rack.agent", file.rack.agent), ("rack.tftp", file.rack.tftp)] {
        if port == 0 {
            return Err(ConfigError::Value { key, value: "0".into(), rule: "it must be a port from 1 to 65535" });
        }
    }
    if file.rack.shards > 256 {
        let value = file.rack.shards.to_string();
        return Err(ConfigError::Value {
            key: "rack.shards",
            value,
            rule: "it must be at most 256 (0: one a processor)",
        });
    }
    let cache_bytes = match file.rack.cache.as_str() {
        "" => None,
        text => Some(parse_size(text).ok_or_else(|| ConfigError::Value {
            key: "rack.cache",
            value: text.into(),
            rule: SIZE_RULE,
        })?),
    };
    let origins = file.rack.origins.iter().map(|text| {
        text.parse::<Origin>().map_err(|_| ConfigError::Value {
            key: "rack.origins",
            value: text.clone(),
            rule: "each must be dir:PATH, http://HOST[:PORT][/PREFIX] or s3://BUCKET[/PREFIX]",
        })
    });
    let origins = origins.collect::<Result<_, _>>()?;
    if let Some(origin) = file.fetch.allow.iter().find(|o| !o.starts_with("http://") && !o.starts_with("https://")) {
        let rule = "each must be SCHEME://HOST:PORT with http or https";
        return Err(ConfigError::Value { key: "fetch.allow", value: origin.clone(), rule });
    }
    let upload_bytes_max = file.image.upload_gib_max.checked_mul(1 << 30).ok_or(ConfigError::Value {
        key: "image.upload_gib_max",
        value: file.image.upload_gib_max.to_string(),
        rule: "it must be a number of GiB",
    })?;
    Ok(Config {
        api_listen,
        interfaces: file.rack.interfaces,
        ports: Ports {
            dhcp: file.rack.dhcp,
            tftp: file.rack.tftp,
            dns: file.rack.dns,
            http: file.rack.http,
            agent: file.rack.agent,
        },
        shards: file.rack.shards,
        cache_bytes,
        driver: file.rack.driver,
        origins,
        dns: RackDns { client_answers: file.dns.client_answers, stranger_answers: file.dns.stranger_answers },
        enlist_then: file.enlist.then,
        fetch_allow: file.fetch.allow,
        upload_bytes_max,
    })
}

/// What a size must be.
pub const SIZE_RULE: &str = "it must be a number of MiB or GiB of 64 MiB or more, e.g. 512M or 8G";

/// Octets of a size such as `512M` or `8G`.
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let shift = match unit {
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_number)?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes >= 64 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_text(text: &str) -> Result<Config, ConfigError> {
        parse(Path::new("bootstorm.toml"), text)
    }

    #[test]
    fn the_example_holds_every_key_with_its_default() {
        let example = include_str!("../bootstorm.example.toml");
        assert_eq!(parse_text(example).expect("the example is valid"), read(None).expect("defaults are valid"));
    }

    #[test]
    fn an_unknown_key_is_refused_in_one_line_that_names_it() {
        let error = parse_text("[rack]\nhttp = 80\nhtpp = 81\n").expect_err("unknown key").to_string();
        assert!(error.contains("line 3") && error.contains("htpp") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn values_are_checked_before_anything_starts() {
        for bad in [
            "[api]\nlisten = \"localhost\"",
            "[rack]\nhttp = 0",
            "[rack]\nshards = 1000",
            "[rack]\ndriver = \"poll\"",
            "[rack]\ncache = \"8\"",
            "[rack]\norigins = [\"mirror\"]",
            "[rack]\ncache = \"63M\"",
            "[rack]\ncache = \"+8G\"",
            "[fetch]\nallow = [\"ftp://x\"]",
            "[enlist]\nthen = \"deploy\"",
            "[image]\nupload_gib_max = 99999999999999",
        ] {
            assert!(parse_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        assert_eq!((parse_size("64M"), parse_size("8G")), (Some(64 << 20), Some(8 << 30)));
        for bad in ["", "G", "8", "8K", "-8G", "63M", "99999999999G", "8\u{e9}"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
        assert_eq!(parse_text("[rack]\ncache = \"2G\"").expect("valid").cache_bytes, Some(2 << 30));
    }
}
