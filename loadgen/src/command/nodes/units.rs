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
    fn places_are_addresses_or_directories() {
        assert!("x".parse::<ServerHttp>().is_err() && "10.0.0.1:80".parse::<ServerHttp>().is_ok());
        assert!("http://name/".parse::<UrlArgument>().is_err());
        assert_eq!("files:/x".parse::<SinkArgument>().unwrap().0, SinkChoice::Files(PathBuf::from("/x")));
        assert!("files:".parse::<SinkArgument>().is_err() && "disk".parse::<SinkArgument>().is_err());
    }
}
