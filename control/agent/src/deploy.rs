//! Writing an image: choose, fetch, verify, write, grow, seed, boot entry, *written*; and only then the new system.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bootstorm_api::agent::{Report, Secrets};
use bootstorm_snapshot::inventory::{Disk, Firmware, Inventory};
use bootstorm_snapshot::observation::Progress;
use bootstorm_snapshot::plan::{Deploy, Start};
use bootstorm_snapshot::{CredentialHash, Manifest, Plan, Stage};

use crate::disk::block::Device;
use crate::disk::fetch::{ImageError, fetch_image};
use crate::disk::layout::{Layout, lay_out};
use crate::disk::select::{SelectError, select};
use crate::disk::write::{Outcome, Target, WriteError};
use crate::disk::{erase, fetch::FetchError};
use crate::init::Ending;
use crate::session::Session;
use crate::system::{efi, kernel, ready_unit, seed, storage};
use crate::work::{Context, Stopped, blocking, failed};
use crate::{inventory, limits};

/// A system that is on the disk and set up.
struct Installed {
    credential: CredentialHash,
    ending: Ending,
    detail: String,
}

/// Deploys, and says how the machine goes on. Returns after *written* is acknowledged.
pub async fn deploy(context: &Context, session: &Session, plan: &Plan, deploy: &Deploy) -> Result<Ending, Stopped> {
    let (disk, inventory) = choose(context, session, deploy).await?;
    let manifest = manifest(context, deploy).await?;
    session.report(stage(Stage::Write, format!("{} to {}", deploy.image_name, disk.name))).await?;
    let started = std::time::Instant::now();
    let (device, bytes) = write(context, session, deploy, &disk, manifest).await?;
    let wrote = format!(
        "{bytes} bytes written of {}, every chunk verified, in {:.1} s",
        deploy.raw_bytes,
        started.elapsed().as_secs_f64()
    );
    crate::log!("{wrote}");
    session.report(stage(Stage::Configure, wrote)).await?;
    let secrets = async {
        match deploy.secrets {
            true => session.secrets().await,
            false => Ok(Secrets::default()),
        }
    };
    let secrets = secrets.await?;
    let (files, ca_pem) = (seed::files(plan, deploy, &secrets), context.ca_pem.clone());
    let (rack, deploy, uefi) = (context.command_line.rack, deploy.clone(), inventory.firmware != Firmware::Bios);
    let installed = blocking(move || set_up(&device, &disk, &deploy, &files, rack, &ca_pem, uefi)).await?;
    session.report(Report::Written { credential: installed.credential }).await?;
    crate::log!("written; {}", installed.detail);
    // For the boot trace only: the new system is started whether the rack takes it or not.
    let _ = session.report_once(stage(Stage::FirstBoot, installed.detail)).await;
    Ok(installed.ending)
}

fn stage(stage: Stage, detail: String) -> Report {
    Report::Stage { stage, progress: None, detail }
}

/// Reports the inventory and picks the disk, waiting a while for one that has not appeared yet.
async fn choose(context: &Context, session: &Session, deploy: &Deploy) -> Result<(Disk, Inventory), Stopped> {
    let deadline = tokio::time::Instant::now() + limits::DISK_TIMEOUT;
    loop {
        let (mac, loader) = (context.command_line.mac, Arc::clone(&context.loader));
        let inventory = blocking(move || {
            loader.lock().unwrap_or_else(PoisonError::into_inner).coldplug();
            inventory::read(mac)
        })
        .await;
        match select(&inventory.disks, &deploy.disk, deploy.raw_bytes) {
            Err(SelectError::NotFound { .. }) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            chosen => {
                let chosen = chosen.cloned();
                session.report(Report::Inventory { inventory: Box::new(inventory.clone()) }).await?;
                let disk = chosen.map_err(|e| failed(Stage::Write, e.code(), e))?;
                return Ok((disk, inventory));
            }
        }
    }
}

/// Fetches the manifest and holds it against the plan: the same image, or nothing is written.
async fn manifest(context: &Context, deploy: &Deploy) -> Result<Manifest, Stopped> {
    let manifest = context.source.manifest(deploy.manifest).await.map_err(fetch_failure)?;
    let header = manifest.header();
    if header.raw != deploy.image || header.raw_bytes != deploy.raw_bytes || header.encoding != deploy.encoding {
        return Err(failed(Stage::Write, "manifest-mismatch", "the manifest is of another image than the plan's"));
    }
    Ok(manifest)
}

fn fetch_failure(error: FetchError) -> Stopped {
    let code = match &error {
        FetchError::Unavailable { .. } => "image-unavailable",
        FetchError::Damaged(_) => "image-damaged",
        FetchError::WritersStopped => "disk-failed",
    };
    failed(Stage::Write, code, error)
}

fn image_failure(error: ImageError) -> Stopped {
    match error {
        ImageError::Fetch(error) => fetch_failure(error),
        ImageError::Write(error @ WriteError::Content(_)) => failed(Stage::Write, "image-damaged", error),
        ImageError::Write(error @ WriteError::Disk(..)) => failed(Stage::Write, "disk-failed", error),
    }
}

/// Writes the image and waits until it is on the medium. Progress goes out at most once a second. Returns the disk and
/// the octets written, which are fewer than the image has where it has holes.
async fn write(
    context: &Context,
    session: &Session,
    deploy: &Deploy,
    disk: &Disk,
    manifest: Manifest,
) -> Result<(Arc<Device>, u64), Stopped> {
    let disk = disk.clone();
    let encoding = manifest.header().encoding;
    let prepared = blocking(move || prepare(&disk, &manifest)).await;
    let (device, layout) = prepared.map_err(|e| failed(Stage::Write, "disk-failed", e))?;
    let outcome = Arc::new(Outcome::default());
    let target = Target { device: Arc::clone(&device), access: layout.access, encoding };
    let mut fetching = Box::pin(fetch_image(&context.source, deploy.manifest, &layout, &target, &outcome));
    let mut ticks = tokio::time::interval(limits::PROGRESS_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            done = &mut fetching => {
                done.map_err(image_failure)?;
                break;
            }
            _ = ticks.tick() => {
                let progress = Progress { bytes: outcome.written.load(Ordering::Relaxed), bytes_total: layout.data_bytes };
                let report = Report::Stage { stage: Stage::Write, progress: Some(progress), detail: String::new() };
                tokio::select! {
                    // Progress may be lost; it must never hold up the writing.
                    _ = session.report_unnumbered(report) => {}
                    done = &mut fetching => {
                        done.map_err(image_failure)?;
                        break;
                    }
                }
            }
        }
    }
    drop(fetching);
    let synced = Arc::clone(&device);
    blocking(move || synced.sync()).await.map_err(|e| failed(Stage::Write, "disk-failed", e))?;
    Ok((device, outcome.written.load(Ordering::Relaxed)))
}

/// Opens the disk, clears its ends, and makes the image's holes read as zeros.
fn prepare(
    disk: &Disk,
    manifest: &Manifest,
) -> Result<(Arc<Device>, Layout), Box<dyn std::error::Error + Send + Sync>> {
    let layout = lay_out(manifest, disk.block_bytes);
    let device = Device::open(&Path::new("/dev").join(&disk.name), disk.block_bytes, layout.access)?;
    erase::clear_edges(&device, &disk.name)?;
    for hole in &layout.holes {
        device.zero(hole.start, hole.end - hole.start)?;
    }
    Ok((Arc::new(device), layout))
}

/// Grows, seeds, loads the new kernel, sets the boot entry: in this order, so that the entry comes last.
fn set_up(
    device: &Device,
    disk: &Disk,
    deploy: &Deploy,
    files: &[seed::SeedFile],
    rack: std::net::SocketAddr,
    ca_pem: &[u8],
    uefi: bool,
) -> Result<Installed, Stopped> {
    let storage_failure = |e: storage::StorageError| {
        let code = match &e {
            storage::StorageError::NoRoot(_) => "root-not-found",
            storage::StorageError::Io(..) => "disk-failed",
        };
        failed(Stage::Configure, code, e)
    };
    let seed_failure = |e: std::io::Error| failed(Stage::Configure, "seed-failed", e);
    let mut grown = None;
    if deploy.grow {
        match storage::grow_table(device).map_err(storage_failure)? {
            Ok((number, _)) => grown = Some(number),
            Err(why) => crate::log!("not grown: {why}"),
        }
    }
    device.reread_partitions().map_err(|e| failed(Stage::Configure, "disk-failed", e))?;
    let found = storage::find_root(&disk.name).map_err(storage_failure)?;
    if grown == Some(found.partition.number) && found.kind == "ext4" {
        let bytes = storage::grow_ext4(&found).map_err(storage_failure)?;
        crate::log!("root file system grown to {bytes} bytes");
    }
    for file in files {
        found.root.write(&file.path, &file.bytes, 0o600).map_err(seed_failure)?;
    }
    let (credential, hash) = ready_unit::credential().map_err(seed_failure)?;
    let agent = std::fs::read("/proc/self/exe").map_err(seed_failure)?;
    let settings = ready_unit::Settings { rack, credential };
    ready_unit::install(&found.root, &settings, ca_pem, &agent).map_err(seed_failure)?;
    crate::log!("seed written");
    let kexec = match deploy.start {
        Start::Reboot => Err("the plan asks for a reboot".to_string()),
        Start::Auto | Start::Kexec => kernel::load(&found.root).map_err(|e| e.to_string()),
    };
    found.root.unmount().map_err(|e| failed(Stage::Configure, "disk-failed", e))?;
    device.sync().map_err(|e| failed(Stage::Configure, "disk-failed", e))?;
    let entry = if uefi { boot_entry(device, &disk.name) } else { None };
    let (ending, detail) = match kexec {
        Ok(()) => (Ending::Kexec { entry }, "by kexec".to_string()),
        Err(why) => (Ending::Restart { entry }, format!("by reboot: {why}")),
    };
    Ok(Installed { credential: hash, ending, detail })
}

/// Sets the firmware's boot entry. Without one the firmware still finds the removable-media path or the network, so this
/// is no failure of the deployment.
fn boot_entry(device: &Device, disk: &str) -> Option<u16> {
    let installed = || {
        let table = storage::read_table(device).map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        let (partition, path) = storage::find_loader(disk, &table)?;
        efi::install(Path::new(efi::DIRECTORY), &partition, &path).map_err(|e| e.to_string())
    };
    installed().map_err(|why: String| crate::log!("no boot entry: {why}")).ok()
}
