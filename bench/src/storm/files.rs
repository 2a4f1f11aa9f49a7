//! What the nodes of a storm fetch, the same bytes for every stack: loader, kernel, initrd, and an image as raw, as stored
//! by Bootstorm (zstd) and as gzip.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bootstorm_tests::lab::{Error, process, wait};
use serde_json::{Value, json};

use crate::limits;
use crate::pairs::Options;
use crate::up::{HTTP_PORT, Up};
use crate::veth::{INTERFACE, Link, Pin, SERVER, Side};

/// Octets of what one node fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// By TFTP.
    pub loader: u64,
    /// By HTTP.
    pub kernel: u64,
    /// By HTTP.
    pub initrd: u64,
    /// The disk image, raw.
    pub image: u64,
}

impl Sizes {
    /// A part of it, for a look.
    pub fn divided(self, by: u64) -> Self {
        let Self { loader, kernel, initrd, image } = self;
        Self { loader: loader / by, kernel: kernel / by, initrd: initrd / by, image: image / by }
    }
}

/// Name of image and machine at our server.
const NAME: &str = "bench";

/// All files of one storm.
#[derive(Debug)]
pub struct Files {
    /// What the peers serve by HTTP: `kernel`, `initrd`, `boot.ipxe`, `image.zst`, `image.gz`.
    pub http: PathBuf,
    /// What the peers serve by TFTP: `loader`.
    pub tftp: PathBuf,
    /// Data directory of our server with the same imported, to be copied for each start.
    data: PathBuf,
    /// BLAKE3 of the raw image, 64 digits.
    pub image: String,
    /// Path of the stored stream at our rack.
    stream: String,
    /// Octets of the stored stream.
    stored_bytes: u64,
    /// Sizes, for the record.
    pub note: Value,
}

impl Files {
    /// Makes all of it below `place`.
    ///
    /// # Errors
    /// When a program is missing or our server refuses what it is given.
    pub fn make(link: &Link, options: &Options, sizes: Sizes, place: &Path) -> Result<Self, Error> {
        let (http, tftp) = (place.join("http"), place.join("tftp"));
        for directory in [&http, &tftp] {
            fs::create_dir_all(directory).map_err(|source| Error::File { path: directory.clone(), source })?;
        }
        let raw = image(sizes.image)?;
        random(&http.join("kernel"), sizes.kernel)?;
        random(&http.join("initrd"), sizes.initrd)?;
        random(&tftp.join("loader"), sizes.loader)?;
        let script =
            format!("#!ipxe\nkernel http://{SERVER}/kernel initrd=initrd\ninitrd http://{SERVER}/initrd\nboot\n");
        let path = http.join("boot.ipxe");
        fs::write(&path, script).map_err(|source| Error::File { path, source })?;
        let packed = http.join("image.gz");
        let mut gzip = process::command("sh");
        process::run(gzip.args(["-c", "gzip -nc \"$0\" >\"$1\""]).arg(&raw).arg(&packed))?;

        let environment = environment(&http, &tftp, place)?;
        let data = place.join("data");
        let mut up = Up::start(link, &options.bootstorm, &data, Pin::Free)?;
        up.describe_network()?;
        up.run(&["bootenv", "import", &environment.display().to_string()])?;
        up.run(&["image", "import", &raw.display().to_string(), "--name", NAME])?;
        up.wait_until_whole()?;
        let image = up.json(&["image", "show", NAME])?;
        make_ready(link, options, &up)?;
        drop(up);
        let text = |key: &str| image[key].as_str().unwrap_or_default().trim_start_matches("blake3:").to_owned();
        let stored_bytes = image["stored_bytes"].as_u64().unwrap_or(0);
        let gzip_bytes = fs::metadata(&packed).map_err(|source| Error::File { path: packed, source })?.len();
        let note = json!({
            "loader_bytes": sizes.loader, "kernel_bytes": sizes.kernel, "initrd_bytes": sizes.initrd,
            "image_bytes": sizes.image, "image_zstd_bytes": stored_bytes, "image_gzip_bytes": gzip_bytes,
            "image_blake3": text("id"),
        });
        let stream = format!("stream/{}", text("manifest"));
        let files = Self { http, tftp, data, image: text("id"), stream, stored_bytes, note };

        let up = files.serve(link, options, &place.join("first"))?;
        let stored = files.http.join("image.zst");
        let mut curl = link.command(Side::Client, Path::new("curl"));
        process::run(curl.args(["-fsS", "-o"]).arg(&stored).arg(files.stream_url()))?;
        drop(up);
        let bytes = fs::metadata(&stored).map_err(|source| Error::File { path: stored, source })?.len();
        if bytes != files.stored_bytes {
            let why = format!("the stored stream has {bytes} octets, {} were told", files.stored_bytes);
            return Err(Error::Environment(why));
        }
        Ok(files)
    }

    /// Where our rack has the stored stream.
    pub fn stream_url(&self) -> String {
        format!("http://{SERVER}:{HTTP_PORT}/{}", self.stream)
    }

    /// Starts our server on a copy of the data, in `place`, and waits until its rack serves the image.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn serve<'a>(&self, link: &'a Link, options: &Options, place: &Path) -> Result<Up<'a>, Error> {
        process::run(process::command("cp").args(["-a", "--reflink=auto"]).arg(&self.data).arg(place))?;
        let up = Up::start(link, &options.bootstorm, place, Pin::Free)?;
        // A rack serves an image from the moment that a plan needs it: one machine that is never switched on has one.
        up.run(&["machine", "deploy", NAME, "--image", NAME])?;
        let url = self.stream_url();
        wait::until("the image at the rack", limits::SERVER_START, || {
            let mut curl = link.command(Side::Client, Path::new("curl"));
            // Its first octets are asked for, as a head alone would not show that they are there.
            let answer = process::run(curl.args(["-fsS", "-o", "/dev/null", "-r", "0-4095", &url]));
            Ok(answer.ok().map(drop))
        })?;
        Ok(up)
    }
}

/// Takes one machine from unknown to ready, so that it can have a plan.
fn make_ready(link: &Link, options: &Options, up: &Up<'_>) -> Result<(), Error> {
    let boot = || {
        let mut loadgen = link.command(Side::Client, &options.loadgen());
        loadgen.args(["storm", "--interface", INTERFACE, "--nodes", "1", "--seed", "4242", "--firmware", "uefi"]);
        process::run(&mut loadgen)
    };
    boot()?;
    let machine = wait::until("a machine that enlisted itself", limits::SERVER_START, || {
        let machines = up.json(&["machine", "list"])?;
        Ok(machines.as_array().and_then(|all| all.first()).filter(|one| !one["architecture"].is_null()).cloned())
    })?;
    let mac = machine["interfaces"][0]["mac"].as_str().unwrap_or_default();
    up.apply(&format!(
        "kind: machine\nname: {NAME}\nmacs: [\"{mac}\"]\narchitecture: amd64\npower: {{driver: manual}}\n"
    ))?;
    up.run(&["machine", "commission", NAME])?;
    wait::until("the machine to be commissioned", limits::SERVER_START, || {
        // It asks for its plan until it has one.
        if up.json(&["machine", "show", NAME])?["state"] == "Ready" {
            return Ok(Some(()));
        }
        boot().map(|_| None)
    })?;
    up.run(&["machine", "allocate", NAME]).map(drop)
}

/// The beginning of an archive of `/usr/lib`: made once, and compressible as an installed system is. A block of zeros is in
/// front, as archives are refused as images.
fn image(bytes: u64) -> Result<PathBuf, Error> {
    let directory = Path::new(".lab/bench");
    let path = directory.join(format!("usr-lib-{bytes}.raw"));
    let length = fs::metadata(&path).map(|data| data.len()).unwrap_or(0);
    if length == bytes {
        return Ok(path);
    }
    fs::create_dir_all(directory).map_err(|source| Error::File { path: directory.to_owned(), source })?;
    let script = "{ head -c 4096 /dev/zero; tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - /usr/lib 2>/dev/null; } | \
                  head -c \"$0\" >\"$1.new\"; mv \"$1.new\" \"$1\"";
    process::run(process::command("sh").args(["-c", script, &bytes.to_string()]).arg(&path))?;
    let length = fs::metadata(&path).map_err(|source| Error::File { path: path.clone(), source })?.len();
    if length != bytes {
        return Err(Error::Environment(format!("/usr/lib is too small for an image of {bytes} octets")));
    }
    Ok(path)
}

/// Bytes that nothing can shorten.
fn random(path: &Path, bytes: u64) -> Result<(), Error> {
    let write =
        || -> io::Result<u64> { io::copy(&mut File::open("/dev/urandom")?.take(bytes), &mut File::create(path)?) };
    write().map(drop).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// A boot environment of the same kernel, initrd and loader; the loader under every name that firmware asks for.
fn environment(http: &Path, tftp: &Path, place: &Path) -> Result<PathBuf, Error> {
    let directory = place.join("environment");
    let loaders = directory.join("loaders");
    fs::create_dir_all(&loaders).map_err(|source| Error::File { path: loaders, source })?;
    let sources = [
        (http.join("kernel"), "kernel"),
        (http.join("initrd"), "initrd"),
        (tftp.join("loader"), "loaders/ipxe.efi"),
        (tftp.join("loader"), "loaders/snponly.efi"),
        (tftp.join("loader"), "loaders/undionly.kpxe"),
    ];
    let mut told = Vec::new();
    for (source, name) in &sources {
        let failed = |error| Error::File { path: source.clone(), source: error };
        let bytes = fs::read(source).map_err(failed)?;
        fs::write(directory.join(name), &bytes).map_err(failed)?;
        told.push(json!({ "name": name, "bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str() }));
    }
    let metadata = json!({
        "format": 1, "architecture": "amd64", "version": "bench", "kernel_release": "bench", "command_line": [], "files": told,
    });
    let path = directory.join("metadata.json");
    fs::write(&path, metadata.to_string()).map_err(|source| Error::File { path, source })?;
    let archive = place.join("environment.tar");
    let mut tar = process::command("tar");
    tar.args(["--format=ustar", "--owner=0", "--group=0", "-C"]).arg(&directory).arg("-cf").arg(&archive);
    tar.arg("metadata.json").args(sources.map(|(_, name)| name));
    process::run(&mut tar)?;
    Ok(archive)
}
