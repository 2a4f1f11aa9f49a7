//! Images and boot environments come in; racks fetch what they are made of.

use std::io::Write as _;

use bootstorm_api::link::ToControl;
use bootstorm_api::local::Wish;
use bootstorm_content::decode_chunk;
use bootstorm_snapshot::{ChunkName, Manifest, ManifestDigest};
use serde_json::{Value, json};

use super::harness::{Rack, Site};

fn noise(bytes: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"an image");
    let mut out = vec![0; bytes];
    hasher.finalize_xof().fill(&mut out);
    // A hole in the middle.
    let middle = bytes / 2;
    out[middle..middle + (600 << 10).min(bytes - middle)].fill(0);
    out
}

async fn over(site: &Site, operation: &Value) -> Value {
    let id = operation["id"].as_str().expect("id").to_string();
    site.until(&format!("/operations/{id}"), |operation| operation["status"] != "running").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_comes_in_and_a_rack_fetches_it_whole() {
    let site = Site::start().await;
    let raw = noise(2 << 20);
    let (status, operation) = site.send_with("POST", "/images?name=disk", Some(raw.clone()), &[]).await;
    assert_eq!(status, 202, "{operation}");
    let operation = over(&site, &operation).await;
    assert_eq!((&operation["status"], &operation["result"]), (&json!("done"), &json!("disk")), "{operation}");
    let image = site.get("/images/disk").await;
    assert_eq!(image["id"], format!("blake3:{}", blake3::hash(&raw)));
    assert_eq!(image["raw_bytes"], 2 << 20);

    let mut rack = Rack::join(&site, "rack-1").await;
    let digest: ManifestDigest = image["manifest"].as_str().expect("digest").parse().expect("digest");
    rack.say(&ToControl::Wish { wish: Wish::Manifest { digest } }).await;
    rack.until("the manifest", |rack| !rack.fetched.is_empty()).await;
    let manifest = Manifest::decode(&rack.fetched.remove(0).1).expect("a manifest");
    assert_eq!(manifest.digest(), digest);
    let mut rebuilt = Vec::new();
    for entry in manifest.entries().to_vec() {
        if entry.is_hole() {
            rebuilt.resize(rebuilt.len() + entry.raw_bytes as usize, 0);
            continue;
        }
        rack.say(&ToControl::Wish { wish: Wish::Chunk { name: entry.name } }).await;
        rack.until("the chunk", |rack| !rack.fetched.is_empty()).await;
        let (_, stored) = rack.fetched.remove(0);
        assert_eq!(ChunkName::of(&stored), entry.name);
        rebuilt.extend(decode_chunk(manifest.header().encoding, &stored, entry.raw_bytes).expect("decoded"));
    }
    assert!(rebuilt == raw, "what a machine would write is the image");
    rack.say(&ToControl::Wish { wish: Wish::Chunk { name: ChunkName::of(b"no such chunk") } }).await;
    rack.until("the refusal", |rack| rack.not_fetched.len() == 1).await;

    let again = site.send_with("POST", "/images?name=disk", Some(raw), &[]).await;
    assert_eq!((again.0, &again.1["code"]), (409, &json!("image-exists")));
    assert_eq!(site.send("DELETE", "/images/disk", None).await.0, 204);
    assert_eq!(site.send("GET", "/images/disk", None).await.0, 404);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t12_bad_images_fail_with_clear_words_and_leave_nothing() {
    let site = Site::start().await;
    // A qcow2 whose header points outside of itself: spooled, parsed by the importer, refused.
    let mut qcow2 = b"QFI\xfb\x00\x00\x00\x03".to_vec();
    qcow2.resize(4096, 0xff);
    let (status, operation) = site.send_with("POST", "/images?name=bad", Some(qcow2), &[]).await;
    assert_eq!(status, 202);
    let operation = over(&site, &operation).await;
    assert_eq!(
        (&operation["status"], &operation["failure"]["code"]),
        (&json!("failed"), &json!("image-invalid")),
        "{operation}"
    );
    let (status, problem) = site.send_with("POST", "/images?name=large", Some(vec![1; (8 << 20) + 1]), &[]).await;
    assert_eq!((status, &problem["code"]), (413, &json!("too-large")));
    for query in ["", "?name=", "?name=../etc", "?name=a%2fb", "?name=a&architecture=vax", "?name=a&colour=red"] {
        let (status, problem) = site.send_with("POST", &format!("/images{query}"), Some(vec![0]), &[]).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid")), "{query}");
    }
    assert_eq!(site.get("/images").await["items"], json!([]));
    let left = std::fs::read_dir(site.directory.path().join("control")).expect("listed");
    let names: Vec<_> = left.map(|entry| entry.expect("entry").file_name().into_string().expect("name")).collect();
    assert!(names.iter().all(|name| name == "content" || name.starts_with("db")), "no spool stays: {names:?}");
    site.stop().await;
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(tar::EntryType::Regular);
        builder.append_data(&mut header, name, *bytes).expect("appended");
    }
    let mut out = builder.into_inner().expect("finished");
    out.flush().expect("flushed");
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_environment_comes_in_and_racks_are_told() {
    let site = Site::start().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let status = site.get("/status").await;
    assert!(status["notices"].to_string().contains("bootenv import"), "{status}");
    let parts: [(&str, &[u8]); 3] =
        [("kernel", b"a kernel"), ("initrd", b"an initrd"), ("loaders/snponly.efi", b"a loader")];
    let files: Vec<Value> = parts
        .iter()
        .map(|(name, bytes)| json!({ "name": name, "bytes": bytes.len(), "blake3": blake3::hash(bytes).to_string() }))
        .collect();
    let metadata = json!({
        "format": 1, "architecture": "amd64", "version": "2026.11", "kernel_release": "6.1.0-28-cloud-amd64",
        "command_line": ["quiet"], "files": files,
    })
    .to_string();
    let mut all = vec![("metadata.json", metadata.as_bytes())];
    all.extend(parts);
    let (status, answer) = site.send_with("POST", "/boot-environments", Some(tar(&all)), &[]).await;
    assert_eq!(status, 201, "{answer}");
    assert_eq!((&answer["version"], &answer["kernel"]), (&json!("2026.11"), &json!("6.1.0-28-cloud-amd64")));
    rack.until("the environment", |rack| !rack.view.environments.is_empty()).await;
    let environment = rack.view.environments.values().next().expect("one").clone();
    assert_eq!(environment.loaders[0].name, "snponly.efi");
    let manifest = site.control.content.manifest(&environment.kernel.manifest).expect("stored");
    assert_eq!(manifest.manifest().header().raw_bytes, 8);

    let (status, problem) = site.send_with("POST", "/boot-environments", Some(b"no tar".to_vec()), &[]).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid")));
    site.stop().await;
}
