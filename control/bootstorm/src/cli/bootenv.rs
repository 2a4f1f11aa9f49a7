//! `bootstorm bootenv …`.

use std::path::PathBuf;

use bootstorm_api::native::{BootEnvironment as Row, Page};
use bootstorm_controld::bootenv::{self, Input, ModuleSet};
use clap::{Args, Subcommand, ValueEnum};

use super::client::{Client, ClientError};
use super::image;
use super::output::{self, Format, Rows};

/// Commands about boot environments.
#[derive(Debug, Subcommand)]
pub enum Bootenv {
    /// Build a boot environment from a kernel package and the agent
    Build(Build),
    /// Give the server a boot environment
    #[command(after_help = "Example:\n  bootstorm bootenv import amd64.tar")]
    Import {
        /// The file that `build` has made
        file: PathBuf,
    },
    /// List boot environments
    #[command(after_help = "Example:\n  bootstorm bootenv list")]
    List,
}

/// Builds a boot environment.
#[derive(Debug, Args)]
#[command(after_help = "The kernel directory holds `vmlinuz`, `modules/lib/modules/VERSION/…` and \
`loaders/{undionly.kpxe,snponly.efi,ipxe.efi}`.\n\nExample:\n  bootstorm bootenv build --kernel-dir kernel --agent bootstorm-agent --file amd64.tar")]
pub struct Build {
    /// Directory with kernel, modules and boot loaders
    #[arg(long)]
    pub kernel_dir: PathBuf,
    /// The agent: a static binary
    #[arg(long)]
    pub agent: PathBuf,
    /// Architecture
    #[arg(long, default_value = "amd64")]
    pub architecture: String,
    /// Version shown to people; the kernel's release by default
    #[arg(long)]
    pub version: Option<String>,
    /// Which drivers are taken
    #[arg(long, value_enum, default_value_t = Modules::Server)]
    pub modules: Modules,
    /// The file to make
    #[arg(short = 'f', long = "file", alias = "out")]
    pub file: PathBuf,
}

/// Which drivers a boot environment takes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Modules {
    /// Network, disk and file system drivers of real servers
    Server,
    /// virtio and little else, for guests
    Guest,
}

impl Rows for Row {
    const COLUMNS: &'static [&'static str] = &["architecture", "version", "kernel", "initrd", "loaders"];
    fn cells(&self) -> Vec<String> {
        let initrd = output::bytes(self.initrd_bytes);
        vec![self.architecture.clone(), self.version.clone(), self.kernel.clone(), initrd, self.loaders.join(" ")]
    }
    fn name(&self) -> String {
        self.architecture.clone()
    }
}

pub(super) async fn run(client: &Client, format: Format, command: Bootenv) -> Result<(), ClientError> {
    match command {
        Bootenv::Build(build) => self::build(build),
        Bootenv::Import { file } => {
            let (bytes, body) = image::open(&file).await?;
            let row: Row = client.upload("/boot-environments", &(), bytes, body).await?;
            output::one(format, &row);
            Ok(())
        }
        Bootenv::List => {
            let page: Page<Row> = client.get("/boot-environments", &()).await?;
            output::list(format, &page.items);
            Ok(())
        }
    }
}

/// Builds; needs no server.
pub(super) fn build(build: Build) -> Result<(), ClientError> {
    let input = Input {
        kernel_dir: build.kernel_dir,
        agent: build.agent,
        architecture: build.architecture.parse().map_err(|e| ClientError::Input(format!("--architecture: {e}")))?,
        version: build.version,
        modules: match build.modules {
            Modules::Server => ModuleSet::Server,
            Modules::Guest => ModuleSet::Guest,
        },
        command_line: bootenv::COMMAND_LINE.iter().map(ToString::to_string).collect(),
    };
    let metadata = bootenv::build(&input, &build.file).map_err(|e| ClientError::Input(e.to_string()))?;
    let (file, kernel) = (build.file.display(), &metadata.kernel_release);
    println!("{file}: boot environment {} {}, kernel {kernel}", metadata.architecture, metadata.version);
    for info in &metadata.files {
        println!("  {:<28} {}", info.name, output::bytes(info.bytes));
    }
    Ok(())
}
