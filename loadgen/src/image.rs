//! A disk image that is served as one file: where it is, how it is stored, and what its raw bytes are.

use std::str::FromStr;

use crate::script::Url;

/// How the file holds the raw bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    #[default]
    Raw,
    /// One zstd frame or several.
    Zstd,
    /// One gzip member or several.
    Gzip,
}

/// The image that every node fetches after its kernel: `URL[,encoding=raw|zstd|gzip][,blake3=HEX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub url: Url,
    /// How it is stored.
    pub encoding: Encoding,
    /// BLAKE3 of its raw bytes; without it, a node that verifies only decodes.
    pub digest: Option<[u8; 32]>,
}

impl FromStr for Source {
    type Err = String;
    fn from_str(text: &str) -> Result<Source, String> {
        let mut words = text.split(',');
        let url = Url::parse(words.next().unwrap_or_default()).ok_or("expected `http://ADDRESS[:PORT]/PATH`")?;
        let mut source = Source { url, encoding: Encoding::Raw, digest: None };
        for word in words {
            match word.split_once('=') {
                Some(("encoding", "raw")) => source.encoding = Encoding::Raw,
                Some(("encoding", "zstd")) => source.encoding = Encoding::Zstd,
                Some(("encoding", "gzip")) => source.encoding = Encoding::Gzip,
                Some(("blake3", digest)) => {
                    source.digest = Some(hex(digest).ok_or("expected 64 hexadecimal digits after `blake3=`")?);
                }
                _ => return Err(format!("`{word}` is neither `encoding=raw|zstd|gzip` nor `blake3=HEX`")),
            }
        }
        Ok(source)
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let bytes: Vec<u8> = digits?.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    bytes.try_into().ok().filter(|_| text.len() == 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_url_and_what_is_known_of_it() {
        let plain: Source = "http://10.0.0.1/a.raw".parse().unwrap();
        assert_eq!((plain.encoding, plain.digest, plain.url.target.as_str()), (Encoding::Raw, None, "/a.raw"));
        let digest = "0a".repeat(32);
        let source: Source = format!("http://10.0.0.1:81/a,encoding=zstd,blake3={digest}").parse().unwrap();
        assert_eq!((source.encoding, source.digest, source.url.server.port()), (Encoding::Zstd, Some([10; 32]), 81));
        for odd in ["x", "http://10.0.0.1/a,b", "http://10.0.0.1/a,encoding=xz", "http://10.0.0.1/a,blake3=00"] {
            assert!(odd.parse::<Source>().is_err(), "{odd}");
        }
    }
}
