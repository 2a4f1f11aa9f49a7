//! `bootstorm image …`.

use std::path::PathBuf;

use bootstorm_api::native::{Image as Row, ImageQuery, Operation, Page};
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::io::AsyncReadExt as _;

use super::client::{Client, ClientError, segment};
use super::operation;
use super::output::{self, Format, Rows};

/// Bytes read from a file at a time.
const READ_BYTES: usize = 1 << 20;

/// Commands about images.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Import a disk image: raw or qcow2, also compressed with gzip, xz or zstd
    #[command(after_help = "Example:\n  bootstorm image import debian-12.qcow2 --name debian-12")]
    Import {
        /// The file
        file: PathBuf,
        /// Name of the image; the file's name without its endings by default
        #[arg(long)]
        name: Option<String>,
        /// Architecture of the image
        #[arg(long, default_value = "amd64")]
        architecture: String,
    },
    /// List images
    #[command(after_help = "Example:\n  bootstorm image list")]
    List,
    /// Show one image
    #[command(after_help = "Example:\n  bootstorm image show debian-12")]
    Show {
        /// Its name
        name: String,
    },
    /// Delete an image; refused while a machine needs it
    #[command(after_help = "Example:\n  bootstorm image delete debian-12")]
    Delete {
        /// Its name
        name: String,
    },
}

impl Rows for Row {
    const COLUMNS: &'static [&'static str] = &["name", "architecture", "size", "stored", "id"];
    fn cells(&self) -> Vec<String> {
        let (raw, stored) = (output::bytes(self.raw_bytes), output::bytes(self.stored_bytes));
        vec![self.name.clone(), self.architecture.clone(), raw, stored, self.id.clone()]
    }
    fn name(&self) -> String {
        self.name.clone()
    }
}

pub(super) async fn run(client: &Client, format: Format, command: Image) -> Result<(), ClientError> {
    match command {
        Image::Import { file, name, architecture } => {
            let name = name.or_else(|| stem(&file)).ok_or_else(|| {
                ClientError::Input(format!("`{}` gives no name for the image; say --name", file.display()))
            })?;
            let query = ImageQuery { name, architecture: Some(architecture) };
            let (bytes, body) = open(&file).await?;
            let started: Operation = client.upload("/images", &query, bytes, body).await?;
            let ended = operation::wait(client, &started.id).await?;
            operation::outcome(&ended)?;
            let image: Row = client.get(&format!("/images/{}", segment(&query.name)), &()).await?;
            output::one(format, &image);
        }
        Image::List => {
            let page: Page<Row> = client.get("/images", &()).await?;
            output::list(format, &page.items);
        }
        Image::Show { name } => {
            let image: Row = client.get(&format!("/images/{}", segment(&name)), &()).await?;
            output::one(format, &image);
        }
        Image::Delete { name } => client.delete(&format!("/images/{}", segment(&name))).await?,
    }
    Ok(())
}

/// A file as a request body that is read as it is sent, with progress on a terminal.
pub(super) async fn open(path: &std::path::Path) -> Result<(u64, reqwest::Body), ClientError> {
    let failed = |error: std::io::Error| ClientError::File { path: path.to_path_buf(), why: error.to_string() };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    let metadata = file.metadata().await.map_err(failed)?;
    if !metadata.is_file() {
        return Err(ClientError::File { path: path.to_path_buf(), why: "it is not a regular file".into() });
    }
    let bar = ProgressBar::new(metadata.len());
    if let Ok(style) = ProgressStyle::with_template("sending [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        bar.set_style(style);
    }
    if !std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(2);
    tokio::spawn(async move {
        let mut file = file;
        loop {
            let mut piece = Vec::with_capacity(READ_BYTES);
            let read = (&mut file).take(READ_BYTES as u64).read_to_end(&mut piece).await;
            let item = match read {
                Ok(0) => break,
                Ok(count) => {
                    bar.inc(count as u64);
                    Ok(piece)
                }
                Err(error) => Err(error),
            };
            let failed = item.is_err();
            if sender.send(item).await.is_err() || failed {
                break;
            }
        }
        bar.finish_and_clear();
    });
    let stream = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|item| (item, receiver))
    });
    Ok((metadata.len(), reqwest::Body::wrap_stream(stream)))
}

fn stem(path: &std::path::Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let mut stem = name;
    for ending in [".gz", ".xz", ".zst", ".raw", ".img", ".qcow2"] {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    (!stem.is_empty()).then(|| stem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_lose_their_endings() {
        for (file, name) in [("a/debian-12.raw.zst", "debian-12"), ("x.qcow2", "x"), ("plain", "plain")] {
            assert_eq!(stem(Path::new(file)).as_deref(), Some(name));
        }
        assert_eq!(stem(Path::new(".gz")), None);
    }
}
