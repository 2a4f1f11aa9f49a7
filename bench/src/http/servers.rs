//! Ours and the HTTP peers, each with one worker on the servers' processor, and the files they serve.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bootstorm_tests::lab::{Error, process};

use crate::image::{self, Image};
use crate::limits;
use crate::pairs::Options;
use crate::server::{Server, accepts, free_address};

/// All servers share it.
pub const PROCESSOR: usize = 0;

/// Ours, as the records name it.
const OURS: &str = "bootstorm";

/// Where files, configurations and logs of a run are.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// A directory that peers which give up their privileges may look into.
    ///
    /// # Errors
    /// When its mode cannot be set.
    pub fn new(directory: &Path) -> Result<Self, Error> {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
            .map_err(|source| Error::File { path: directory.to_owned(), source })?;
        Ok(Self(directory.to_owned()))
    }
}

/// Servers of one kind of content and one configuration of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fleet {
    /// Small files and a large one of bytes that nothing can shorten.
    Files,
    /// The same, ours on its epoll backend.
    Epoll,
    /// The small files only, so that ours starts at once.
    Small,
    /// A large file that nobody has read yet.
    Stream,
    /// A disk image: ours serves its stored stream, the peers serve it raw.
    Image,
}

/// What a fleet serves.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    /// The image, where there is one.
    pub image: Option<Image>,
}

impl Fleet {
    /// Name of its directories.
    fn word(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Epoll => "epoll",
            Self::Small => "small",
            Self::Stream => "stream",
            Self::Image => "image",
        }
    }

    /// Fleets of the same files share them.
    fn files(self, place: &Place) -> PathBuf {
        match self {
            Self::Files | Self::Epoll => place.0.join("files"),
            Self::Small => place.0.join("small"),
            Self::Stream => place.0.join("stream"),
            Self::Image => place.0.join("images"),
        }
    }

    /// Path of the large file on a server.
    pub fn large(self, server: &Server) -> &'static str {
        match self {
            Self::Files | Self::Epoll | Self::Small | Self::Stream => "/bulk",
            Self::Image if server.name == OURS => "/image.zst",
            Self::Image => "/image",
        }
    }

    /// Writes the files that are not there yet.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_files(self, place: &Place, options: &Options) -> Result<Content, Error> {
        let directory = self.files(place);
        let failed = |source| Error::File { path: directory.clone(), source };
        fs::create_dir_all(&directory).map_err(failed)?;
        match self {
            Self::Files | Self::Epoll => {
                let bulk_bytes = if options.quick { limits::BULK_BYTES_QUICK } else { limits::BULK_BYTES };
                write_random(&directory, &[("1k", 1 << 10), ("64k", 64 << 10), ("bulk", bulk_bytes)])
                    .map_err(failed)?;
                Ok(Content { image: None })
            }
            Self::Small => {
                write_random(&directory, &[("1k", 1 << 10)]).map_err(failed)?;
                Ok(Content { image: None })
            }
            Self::Stream => {
                write_random(&directory, &[("bulk", limits::STREAM_BYTES)]).map_err(failed)?;
                Ok(Content { image: None })
            }
            Self::Image => {
                let bytes = if options.quick { limits::IMAGE_BYTES_QUICK } else { limits::IMAGE_BYTES };
                Ok(Content { image: Some(image::write(&directory.join("image"), bytes)?) })
            }
        }
    }

    /// Where a server reads what it serves: ours from its store.
    pub fn content(self, place: &Place, side: Option<Peer>) -> PathBuf {
        match side {
            None => self.store(place),
            Some(_) => self.files(place),
        }
    }

    fn store(self, place: &Place) -> PathBuf {
        place.0.join(format!("store-{}", self.word()))
    }

    /// Starts ours.
    ///
    /// # Errors
    /// When it does not start or does not answer in time.
    pub fn start_ours(self, place: &Place, options: &Options) -> Result<Server, Error> {
        let address = free_address()?;
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let files = self.files(place).display().to_string();
        let store = self.store(place).display().to_string();
        let mut arguments =
            text(&["serve", &files, "--http", &address.to_string(), "--workers", "1", "--data", &store]);
        arguments.extend(match self {
            Self::Files | Self::Small | Self::Stream => text(&[]),
            Self::Epoll => text(&["--driver", "epoll"]),
            Self::Image => text(&["--encoding", "zstd"]),
        });
        let log = place.0.join(format!("bootstorm-{}.log", self.word()));
        Server::start(OURS, (&options.bootstorm, &arguments), PROCESSOR, address, &log, accepts)
    }
}

/// Whether `serve` can be told its backend.
///
/// # Errors
/// When it does not print its help.
pub fn can_choose_backend(options: &Options) -> Result<bool, Error> {
    let help = process::run(process::command(&options.bootstorm).args(["serve", "--help"]))?;
    Ok(help.contains("--driver") && help.contains("epoll"))
}

fn write_random(directory: &Path, files: &[(&str, u64)]) -> io::Result<()> {
    let mut random = File::open("/dev/urandom")?;
    for (name, bytes) in files {
        let path = directory.join(name);
        if path.exists() {
            continue;
        }
        let mut file = File::create(path)?;
        io::copy(&mut Read::by_ref(&mut random).take(*bytes), &mut file)?;
        file.flush()?;
    }
    Ok(())
}

/// Somebody else's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Where every case has its goal.
    Nginx,
    /// From the distribution.
    Lighttpd,
    /// From crates.io: hyper on tokio.
    StaticWebServer,
}

impl Peer {
    /// As in the lines.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Lighttpd => "lighttpd",
            Self::StaticWebServer => "static-web-server",
        }
    }

    /// What is run.
    pub fn program(self) -> PathBuf {
        match self {
            Self::Nginx | Self::Lighttpd => PathBuf::from(self.word()),
            Self::StaticWebServer => Path::new(".lab/peers/bin").join(self.word()),
        }
    }

    /// What makes it print its version.
    pub fn version_argument(self) -> &'static [&'static str] {
        match self {
            Self::Nginx | Self::Lighttpd => &["-v"],
            Self::StaticWebServer => &["--version"],
        }
    }

    /// Whether it can be run here. Without nginx there is nothing to compare: its absence is an error at its start.
    pub fn is_installed(self) -> bool {
        match self {
            Self::Nginx => true,
            Self::Lighttpd | Self::StaticWebServer => {
                process::run(process::command(self.program()).args(self.version_argument())).is_ok()
            }
        }
    }

    /// Why a case has no ratio beside it.
    pub fn missing(self) -> &'static str {
        match self {
            Self::Nginx => "nginx-is-not-installed",
            Self::Lighttpd => "lighttpd-is-not-installed",
            Self::StaticWebServer => "static-web-server-is-not-installed",
        }
    }

    /// Why a case has no ratio beside it although it is here.
    pub fn broken(self) -> &'static str {
        match self {
            Self::Nginx => "nginx-does-not-start",
            Self::Lighttpd => "lighttpd-does-not-start",
            Self::StaticWebServer => "static-web-server-does-not-start",
        }
    }

    /// Starts it as `bench/peers/` configures it.
    ///
    /// # Errors
    /// When it does not start or does not answer in time.
    pub fn start(self, place: &Place, fleet: Fleet) -> Result<Server, Error> {
        let address = free_address()?;
        let own = place.0.join(format!("{}-{}", self.word(), fleet.word()));
        let template = match self {
            Self::Nginx => include_str!("../../peers/nginx.conf"),
            Self::Lighttpd => include_str!("../../peers/lighttpd.conf"),
            Self::StaticWebServer => include_str!("../../peers/static-web-server.toml"),
        };
        let text = template
            .replace("PLACE", &own.display().to_string())
            .replace("ADDRESS", &address.to_string())
            .replace("HOST", &address.ip().to_string())
            .replace("PORT", &address.port().to_string())
            .replace("FILES", &fleet.files(place).display().to_string());
        // static-web-server reads only files that end so; the others do not mind.
        let configuration = own.join("configuration.toml");
        fs::create_dir_all(&own)
            .and_then(|()| fs::write(&configuration, text))
            .map_err(|source| Error::File { path: configuration.clone(), source })?;
        let (own, file) = (own.display().to_string(), configuration.display().to_string());
        let words: Vec<&str> = match self {
            Self::Nginx => vec!["-c", &file, "-p", &own],
            Self::Lighttpd => vec!["-D", "-f", &file],
            Self::StaticWebServer => vec!["--config-file", &file],
        };
        let arguments: Vec<String> = words.into_iter().map(str::to_owned).collect();
        let log = place.0.join(format!("{}-{}.log", self.word(), fleet.word()));
        Server::start(self.word(), (&self.program(), &arguments), PROCESSOR, address, &log, accepts)
    }
}
