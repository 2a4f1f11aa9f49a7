//! `bootstorm origin`: content laid out for racks to fill from.

use std::path::PathBuf;

use clap::Subcommand;

use crate::serve::Encoding;

/// Origins.
#[derive(Debug, Subcommand)]
pub enum Origin {
    /// Cut the files of a directory into chunks and lay them out for a web server, a bucket or a directory
    #[command(
        after_help = "Example:\n  bootstorm origin build tftpboot /srv/www/storm --encoding zstd\n\nThen, on a rack's \
host:\n  bootstorm serve --origin http://mirror/storm --http 10.0.0.2:8080"
    )]
    Build {
        /// The directory
        directory: PathBuf,
        /// Where chunks, manifests and their list are written
        target: PathBuf,
        /// How chunks are stored
        #[arg(long, value_enum, default_value_t = Encoding::Plain)]
        encoding: Encoding,
    },
}

/// Runs one command.
pub fn run(command: Origin) -> Result<(), String> {
    let Origin::Build { directory, target, encoding } = command;
    std::fs::create_dir_all(&target).map_err(|error| format!("cannot make `{}`: {error}", target.display()))?;
    let files = bootstorm_rackd::export(&directory, &target, encoding.into()).map_err(|error| error.to_string())?;
    println!("{files} files are laid out in {}", target.display());
    Ok(())
}
