//! Memory that this process may still take.

use std::fs;

/// The least of what the system has left, what the control group leaves, and the limit on the address space (`ulimit
/// -v`); `None` where the system does not say.
pub(super) fn available() -> Option<u64> {
    [system(), control_group(), address_space()].into_iter().flatten().min()
}

fn system() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Of the group of this process and those around it (version 2), or of a container's (version 1).
fn control_group() -> Option<u64> {
    let number = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let left = |folder: &str, limit: &str, used: &str| {
        let limit = number(format!("{folder}/{limit}"))?;
        Some(limit.saturating_sub(number(format!("{folder}/{used}")).unwrap_or(0)))
    };
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").trim_end_matches('/').to_owned();
    let folders = std::iter::successors(Some(own), |path| path.rfind('/').map(|end| path[..end].to_owned()));
    let of_groups = folders.map(|path| left(&format!("/sys/fs/cgroup{path}"), "memory.max", "memory.current"));
    let version_1 = left("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes");
    of_groups.chain([version_1]).flatten().min()
}

fn address_space() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find(|line| line.starts_with("Max address space"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}
