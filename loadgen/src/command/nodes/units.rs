//! Values of the command line, with their units.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::script::Url;
use crate::verify::SinkChoice;

/// Starts a second.
#[derive(Clone, Copy, Debug)]
pub struct Rate(pub f64);

impl FromStr for Rate {
    type Err = String;
    fn from_str(text: &str) -> Result<Rate, String> {
        let rate = text.strip_suffix("/s").unwrap_or(text).parse().ok();
        rate.filter(|rate: &f64| rate.is_finite() && *rate > 0.0).map(Rate).ok_or("expected such as `50/s`".to_owned())
    }
}

/// A time in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Seconds(pub Duration);

impl FromStr for Seconds {
    type Err = String;
    fn from_str(text: &str) -> Result<Seconds, String> {
        let seconds = text.strip_suffix('s').unwrap_or(text).parse::<u32>().ok().filter(|seconds| *seconds > 0);
        seconds.map(|seconds| Seconds(Duration::from_secs(seconds.into()))).ok_or("expected such as `60s`".to_owned())
    }
}

/// Where the rack's HTTP is.
#[derive(Clone, Copy, Debug)]
pub struct ServerHttp(pub Option<SocketAddr>);

impl FromStr for ServerHttp {
    type Err = String;
    fn from_str(text: &str) -> Result<ServerHttp, String> {
        if text == "auto" {
            return Ok(ServerHttp(None));
        }
        text.parse().map(|server| ServerHttp(Some(server))).map_err(|_| "expected `auto` or ADDRESS:PORT".to_owned())
    }
}

/// A part of all, as `0.05` or `5%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Part(pub f64);

impl FromStr for Part {
    type Err = String;
    fn from_str(text: &str) -> Result<Part, String> {
        let part = match text.strip_suffix('%') {
            Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
            None => text.parse(),
        };
        let part = part.ok().filter(|part| (0.0..=1.0).contains(part));
        part.map(Part).ok_or("expected such as `0.05` or `5%`".to_owned())
    }
}

/// A time in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Milliseconds(pub Duration);

impl FromStr for Milliseconds {
    type Err = String;
    fn from_str(text: &str) -> Result<Milliseconds, String> {
        let milliseconds = text.strip_suffix("ms").unwrap_or(text).parse::<u32>().ok();
        let time = milliseconds.map(|milliseconds| Duration::from_millis(milliseconds.into()));
        time.map(Milliseconds).ok_or("expected such as `20ms`".to_owned())
    }
}

/// Bytes a second, as `1Gbit`, `100Mbit`, `5MB`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteRate(pub f64);

impl FromStr for ByteRate {
    type Err = String;
    fn from_str(text: &str) -> Result<ByteRate, String> {
        const UNITS: [(&str, f64); 6] =
            [("kbit", 125.0), ("Mbit", 125e3), ("Gbit", 125e6), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)];
        let text = text.strip_suffix("/s").unwrap_or(text);
        let scaled = |(unit, scale): (&str, f64)| {
            let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
            Some(number * scale).filter(|rate| rate.is_finite() && *rate >= 1.0)
        };
        UNITS.into_iter().find_map(scaled).map(ByteRate).ok_or("expected such as `1Gbit` or `5MB`".to_owned())
    }
}

/// A part of the machines and their rate, as `5%:2MB`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slow(pub f64, pub f64);

impl FromStr for Slow {
    type Err = String;
    fn from_str(text: &str) -> Result<Slow, String> {
        let (part, rate) = text.split_once(':').ok_or("expected such as `5%:2MB`")?;
        Ok(Slow(part.parse::<Part>()?.0, rate.parse::<ByteRate>()?.0))
    }
}

/// So many machines share such a link, as `48:10Gbit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Leaf(pub u32, pub f64);

impl FromStr for Leaf {
    type Err = String;
    fn from_str(text: &str) -> Result<Leaf, String> {
        let told = || "expected such as `48:10Gbit`".to_owned();
        let (nodes, rate) = text.split_once(':').ok_or_else(told)?;
        let nodes = nodes.parse().ok().filter(|nodes| *nodes > 0).ok_or_else(told)?;
        Ok(Leaf(nodes, rate.parse::<ByteRate>()?.0))
    }
}

/// A URL that machines use.
#[derive(Clone, Debug)]
pub struct UrlArgument(pub Url);

impl FromStr for UrlArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<UrlArgument, String> {
        Url::parse(text).map(UrlArgument).ok_or("expected `http://ADDRESS[:PORT]/PATH`".to_owned())
    }
}

/// Where verified bytes go.
#[derive(Clone, Debug)]
pub struct SinkArgument(pub SinkChoice);

impl FromStr for SinkArgument {
    type Err = String;
    fn from_str(text: &str) -> Result<SinkArgument, String> {
        match (text, text.strip_prefix("files:")) {
            ("null", _) => Ok(SinkArgument(SinkChoice::Null)),
            ("memory", _) => Ok(SinkArgument(SinkChoice::Memory)),
            (_, Some(directory)) if !directory.is_empty() => {
                Ok(SinkArgument(SinkChoice::Files(PathBuf::from(directory))))
            }
            _ => Err("expected `null`, `memory` or `files:DIR`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_units() {
        assert!("0/s".parse::<Rate>().is_err() && "50/s".parse::<Rate>().is_ok());
        assert!("10x".parse::<Seconds>().is_err() && "10s".parse::<Seconds>().is_ok());
    }

    #[test]
    fn faults_have_their_units() {
        assert_eq!(("5%".parse(), "0.25".parse()), (Ok(Part(0.05)), Ok(Part(0.25))));
        assert!("1.5".parse::<Part>().is_err() && "x%".parse::<Part>().is_err());
        assert_eq!(("1Gbit".parse(), "5MB/s".parse()), (Ok(ByteRate(125e6)), Ok(ByteRate(5e6))));
        assert!("5".parse::<ByteRate>().is_err() && "0MB".parse::<ByteRate>().is_err());
        assert_eq!(("5%:2MB".parse(), "48:10Gbit".parse()), (Ok(Slow(0.05, 2e6)), Ok(Leaf(48, 1.25e9))));
        assert!("0:1Gbit".parse::<Leaf>().is_err() && "20ms".parse::<Milliseconds>().is_ok());
    }

    #[test]
    fn places_are_addresses_or_directories() {
        assert!("x".parse::<ServerHttp>().is_err() && "10.0.0.1:80".parse::<ServerHttp>().is_ok());
        assert!("http://name/".parse::<UrlArgument>().is_err());
        assert_eq!("files:/x".parse::<SinkArgument>().unwrap().0, SinkChoice::Files(PathBuf::from("/x")));
        assert!("files:".parse::<SinkArgument>().is_err() && "disk".parse::<SinkArgument>().is_err());
    }
}
