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
    memory_mib(pid, "VmRSS:")
}

/// The most resident memory that a process ever had, in MiB; `None` when it is gone.
#[must_use]
pub fn peak_mib(pid: u32) -> Option<f64> {
    memory_mib(pid, "VmHWM:")
}

fn memory_mib(pid: u32, field: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

/// The middle value; of an even number the upper of the two.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The value at a share of a sorted list, nearest rank.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a short list"
)]
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
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
        assert!(peak_mib(std::process::id()) >= resident_mib(std::process::id()));
        assert_eq!((resident_mib(u32::MAX), peak_mib(u32::MAX)), (None, None));
    }

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (5.0, 10.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
