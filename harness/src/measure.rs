//! What a process costs, read from `/proc` (proc(5)).

use anyhow::{Context as _, Result};

/// Clock ticks in a second: `USER_HZ`, 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of this process so far, user and system, all threads (fields 14 and 15 of `/proc/self/stat`).
///
/// # Errors
/// Where there is no `/proc`.
pub fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("read /proc/self/stat")?;
    // The command in parentheses may hold spaces; the state, field 3, follows it.
    let (_, rest) = stat.rsplit_once(')').context("a process status")?;
    let ticks = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().context("a tick count"))
        .sum::<Result<f64>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}

/// Resident memory of a process in MiB; `None` when it is gone.
#[must_use]
pub fn resident_mib(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_costs_cpu_and_holds_memory() {
        let before = cpu_seconds().unwrap();
        let mut value = 1u64;
        while cpu_seconds().unwrap() < before + 0.02 {
            value = value.wrapping_mul(31).wrapping_add(7);
        }
        assert!(resident_mib(std::process::id()).unwrap() > 1.0, "{value}");
        assert_eq!(resident_mib(u32::MAX), None);
    }
}
