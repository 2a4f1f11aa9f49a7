//! How much memory chunks are kept in.

use std::fs;
use std::path::Path;

use bootstorm_driver::Arena;
use bootstorm_driver::limits::ARENA_BYTES_MIN;

use crate::cache::Cache;
use crate::{Error, limits};

/// Makes the cache: of the configured size, else of a share of the memory that is available now. More than half of that is
/// never taken, and memory is touched only as chunks come in.
pub(crate) fn make_cache(configured_bytes: Option<u64>) -> Result<Cache, Error> {
    let available = available_bytes();
    let bytes = choose(configured_bytes, available);
    if let Some(configured) = configured_bytes.filter(|configured| *configured != bytes) {
        tracing::warn!(
            configured,
            bytes,
            available,
            "the cache is not of the configured size: it is kept between 64 MiB and half of the available memory"
        );
    }
    let cache = Cache::new(Arena::new(usize::try_from(bytes).unwrap_or(usize::MAX))?);
    let arena = cache.stats().arena;
    tracing::info!(bytes, pages = arena.pages.name(), "chunks are kept in memory");
    Ok(cache)
}

fn choose(configured: Option<u64>, available: Option<u64>) -> u64 {
    let least = ARENA_BYTES_MIN as u64;
    let Some(available) = available else { return configured.unwrap_or(least).max(least) };
    let wanted = configured.unwrap_or(available / limits::CACHE_SHARE);
    wanted.min(available / limits::CACHE_SHARE_MAX).max(least)
}

/// What the machine, and the control groups that this process is in, have left; `None` if nobody says.
fn available_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(parse_meminfo)?;
    let own = fs::read_to_string("/proc/self/cgroup").ok();
    let group = own.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::/")));
    let root = Path::new("/sys/fs/cgroup");
    let groups = group.map(|group| root.join(group)).into_iter().flat_map(|group| {
        let above: Vec<_> = group.ancestors().take_while(|path| path.starts_with(root)).map(Path::to_owned).collect();
        above
    });
    let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let left = groups.filter_map(|group| {
        let most = number(&group.join("memory.max"))?;
        Some(most.saturating_sub(number(&group.join("memory.current"))?))
    });
    Some(left.fold(machine, u64::min))
}

/// `MemAvailable` of `/proc/meminfo`, which is in units of 1,024 octets.
fn parse_meminfo(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_available_is_the_most() {
        const GIB: u64 = 1 << 30;
        assert_eq!(choose(None, Some(16 * GIB)), 4 * GIB);
        assert_eq!(choose(Some(6 * GIB), Some(16 * GIB)), 6 * GIB);
        assert_eq!(choose(Some(12 * GIB), Some(16 * GIB)), 8 * GIB);
        assert_eq!(choose(Some(1), Some(16 * GIB)), ARENA_BYTES_MIN as u64);
        assert_eq!(choose(None, None), ARENA_BYTES_MIN as u64);
    }

    #[test]
    fn the_kernel_says_what_is_available() {
        assert_eq!(parse_meminfo("MemTotal:  100 kB\nMemAvailable:   42 kB\n"), Some(42 * 1024));
        assert_eq!(parse_meminfo("MemTotal: 100 kB\n"), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }
}
