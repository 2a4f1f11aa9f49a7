//! Limits of the kernel's neighbour tables: a boot storm fills the default of 1,024 entries in a second.

use std::fs;

/// Entries above which the kernel refuses new neighbours, for ten thousand machines on a few VLANs.
const GC_THRESH3: u64 = 65_536;

/// Raises the limits where this process may, else says which value to set.
pub fn raise() {
    let wanted = [("gc_thresh1", GC_THRESH3 / 4), ("gc_thresh2", GC_THRESH3 / 2), ("gc_thresh3", GC_THRESH3)];
    // The last one first: the kernel keeps no order between them, but a reader may.
    for family in ["ipv4", "ipv6"] {
        for (name, value) in wanted.iter().rev() {
            let path = format!("/proc/sys/net/{family}/neigh/default/{name}");
            let Some(current) = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok()) else {
                continue; // no such family, or a namespace that shares its parent's table
            };
            if current < *value && fs::write(&path, value.to_string()).is_err() {
                tracing::warn!(
                    setting = %format!("net.{family}.neigh.default.{name}"), current, wanted = value,
                    "neighbour table is small for a boot storm and this process may not raise it; set it with sysctl"
                );
            }
        }
    }
}
