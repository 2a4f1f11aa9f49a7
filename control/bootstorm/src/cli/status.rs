//! `bootstorm status`.

use bootstorm_api::native::Status;

use super::client::{Client, ClientError};
use super::output::{self, Format};

pub(super) async fn run(client: &Client, format: Format) -> Result<(), ClientError> {
    let status: Status = client.get("/status", &()).await?;
    if format != Format::Table {
        output::value(format, &status);
        return Ok(());
    }
    println!("version {}, generation {}", status.version, status.generation);
    let machines: Vec<String> = status.machines.iter().map(|(state, count)| format!("{count} {state}")).collect();
    println!("machines: {}", if machines.is_empty() { "none".into() } else { machines.join(", ") });
    println!("operations in progress: {}; images: {}", status.operations, status.images);
    for rack in &status.racks {
        let link = if rack.connected { "connected" } else { "NOT connected" };
        println!(
            "rack {} ({link}): generation {}, {} files to fetch, {}",
            rack.name,
            rack.generation,
            rack.missing_files,
            if rack.interfaces.is_empty() { "no interfaces".into() } else { rack.interfaces.join(", ") }
        );
    }
    for environment in &status.boot_environments {
        println!(
            "boot environment {} {}: kernel {}, initrd {}",
            environment.architecture,
            environment.version,
            environment.kernel,
            output::bytes(environment.initrd_bytes)
        );
    }
    status.notices.iter().for_each(|notice| println!("note: {notice}"));
    Ok(())
}
