//! cloud-init's NoCloud seed. Every file that we write is JSON, which is YAML, so that no value can change its meaning.

use bootstorm_api::agent::Secrets;
use bootstorm_snapshot::Plan;
use bootstorm_snapshot::plan::{Deploy, Network, NetworkInterface};
use serde_json::{Map, Value, json};

/// Directory of the seed in the installed system.
pub const DIRECTORY: &str = "var/lib/cloud/seed/nocloud";
/// User-data where there is none of an operation's own.
const NO_USER_DATA: &[u8] = b"#cloud-config\n{}\n";

/// A file of the seed.
#[derive(PartialEq, Eq)]
pub struct SeedFile {
    /// Path in the installed system.
    pub path: String,
    /// Content.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for SeedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.bytes.len())
    }
}

/// The files of a plan's seed; all are for root's eyes only.
pub fn files(plan: &Plan, deploy: &Deploy, secrets: &Secrets) -> Vec<SeedFile> {
    let file = |name: &str, bytes: Vec<u8>| SeedFile { path: format!("{DIRECTORY}/{name}"), bytes };
    let user_data = secrets.user_data.as_ref().map_or(NO_USER_DATA.to_vec(), |data| data.0.clone());
    let mut files = vec![file("meta-data", json_lines(&meta_data(plan, deploy))), file("user-data", user_data)];
    if let Some(vendor_data) = &secrets.vendor_data {
        files.push(file("vendor-data", vendor_data.0.clone()));
    }
    // Without interfaces in the plan, cloud-init's own fall-back (DHCP on the first one that has a link) is right.
    if !deploy.network.interfaces.is_empty() {
        files.push(file("network-config", json_lines(&network_config(&deploy.network))));
    }
    files
}

fn json_lines(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The instance is the operation: a new deployment is a new first boot, a reboot is not.
fn meta_data(plan: &Plan, deploy: &Deploy) -> Value {
    let instance = plan.operation.map(|operation| operation.to_string()).unwrap_or_default();
    let mut data = json!({ "instance-id": instance });
    if let Some(hostname) = &plan.hostname {
        data["local-hostname"] = json!(hostname);
    }
    if !deploy.ssh_authorized_keys.is_empty() {
        data["public-keys"] = json!(deploy.ssh_authorized_keys);
    }
    data
}

/// Network configuration, version 2, interfaces matched by their addresses.
fn network_config(network: &Network) -> Value {
    let mut ethernets = Map::new();
    for (index, interface) in network.interfaces.iter().enumerate() {
        ethernets.insert(format!("interface{index}"), ethernet(interface, network));
    }
    json!({ "version": 2, "ethernets": ethernets })
}

fn ethernet(interface: &NetworkInterface, network: &Network) -> Value {
    let mut value = json!({ "match": { "macaddress": interface.mac.to_string() } });
    match &interface.address {
        None => value["dhcp4"] = json!(true),
        Some(fixed) => {
            value["addresses"] = json!([format!("{}/{}", fixed.address, fixed.network.prefix_bits())]);
            if let Some(gateway) = fixed.gateway {
                value["routes"] = json!([{ "to": "0.0.0.0/0", "via": gateway.to_string() }]);
            }
            if !network.dns_servers.is_empty() || !network.search.is_empty() {
                value["nameservers"] = json!({ "addresses": network.dns_servers, "search": network.search });
            }
        }
    }
    if let Some(mtu) = interface.mtu {
        value["mtu"] = json!(mtu);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_api::agent::base64_text::Base64;
    use bootstorm_snapshot::plan::{After, DiskSelector, Start, StaticAddress, Task};
    use bootstorm_snapshot::{Encoding, ImageId, Mac, ManifestDigest, OperationId};

    fn deploy() -> Deploy {
        let interface = |last, address| NetworkInterface { mac: Mac([2, 0, 0, 0, 0, last]), address, mtu: None };
        let address = StaticAddress {
            address: [10, 0, 0, 5].into(),
            network: "10.0.0.0/24".parse().expect("network"),
            gateway: Some([10, 0, 0, 1].into()),
        };
        Deploy {
            image_name: "debian".into(),
            image: ImageId([0; 32]),
            manifest: ManifestDigest([0; 32]),
            raw_bytes: 1,
            encoding: Encoding::Zstd,
            disk: DiskSelector::Smallest,
            grow: true,
            start: Start::Auto,
            network: Network {
                interfaces: vec![interface(1, None), interface(2, Some(address))],
                dns_servers: vec!["10.0.0.2".parse().expect("address")],
                search: vec!["lab.example".into()],
            },
            secrets: true,
            ssh_authorized_keys: vec!["ssh-ed25519 AAAA \"odd: 'key".into()],
            ready_seconds_max: 600,
        }
    }

    #[test]
    fn the_seed_of_a_plan() {
        let deploy = deploy();
        let operation = OperationId::new(1, [1; 10]);
        let plan = Plan {
            operation: Some(operation),
            machine: None,
            hostname: Some("n001".into()),
            task: Task::Deploy(Box::new(deploy.clone())),
            after: After::StartSystem,
        };
        let secrets = Secrets { user_data: Some(Base64(b"#!/bin/sh\n".to_vec())), vendor_data: None };
        let files = files(&plan, &deploy, &secrets);
        let content = |name: &str| {
            let file = files.iter().find(|f| f.path.ends_with(name)).expect("there");
            file.bytes.clone()
        };
        let meta: Value = serde_json::from_slice(&content("/meta-data")).expect("json");
        assert_eq!(meta["instance-id"], operation.to_string());
        assert_eq!(meta["local-hostname"], "n001");
        assert_eq!(meta["public-keys"][0], deploy.ssh_authorized_keys[0]);
        assert_eq!(content("/user-data"), b"#!/bin/sh\n");
        let network: Value = serde_json::from_slice(&content("/network-config")).expect("json");
        assert_eq!(network["ethernets"]["interface0"]["dhcp4"], true);
        let fixed = &network["ethernets"]["interface1"];
        assert_eq!(fixed["addresses"][0], "10.0.0.5/24");
        assert_eq!(fixed["routes"][0]["via"], "10.0.0.1");
        assert_eq!(fixed["nameservers"]["addresses"][0], "10.0.0.2");
        assert_eq!(fixed["match"]["macaddress"], "02:00:00:00:00:02");
        assert!(files.iter().all(|f| f.path.starts_with("var/lib/cloud/seed/nocloud/")));
        assert!(!format!("{files:?}").contains("bin/sh"), "secrets are not printed");
    }

    #[test]
    fn without_interfaces_the_network_is_left_to_cloud_init() {
        let mut deploy = deploy();
        deploy.network.interfaces.clear();
        let plan = Plan { operation: None, machine: None, hostname: None, task: Task::Enlist, after: After::Wait };
        let files = files(&plan, &deploy, &Secrets::default());
        assert_eq!(files.len(), 2);
        assert_eq!(files[1].bytes, NO_USER_DATA);
    }
}
