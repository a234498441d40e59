//! This host's network interfaces, from sysfs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

/// Where Linux lists its interfaces (`Documentation/ABI/testing/sysfs-class-net`).
const SYS_CLASS_NET: &str = "/sys/class/net";

/// The index and name of every interface, by index. Empty if sysfs is not mounted.
pub(super) fn interfaces() -> Vec<(u32, Arc<str>)> {
    let mut names: Vec<(u32, Arc<str>)> = fs::read_dir(SYS_CLASS_NET)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let index = fs::read_to_string(entry.path().join("ifindex")).ok()?.trim().parse().ok()?;
            Some((index, name.into()))
        })
        .collect();
    names.sort_unstable();
    names
}

/// The names of all interfaces.
pub(super) fn names() -> Vec<String> {
    interfaces().into_iter().map(|(_, name)| name.to_string()).collect()
}

/// Whether a device is a loopback device (`ARPHRD_LOOPBACK`, linux/if_arp.h).
pub(super) fn is_loopback(device: &str) -> bool {
    let kind = fs::read_to_string(Path::new(SYS_CLASS_NET).join(device).join("type"));
    kind.is_ok_and(|kind| kind.trim() == "772")
}

/// A counter of a device; 0 if it does not exist.
pub(super) fn statistic(device: &str, counter: &str) -> u64 {
    let path = Path::new(SYS_CLASS_NET).join(device).join("statistics").join(counter);
    fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
