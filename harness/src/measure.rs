//! What a process costs, read from `/proc` (proc(5)).

use std::collections::HashMap;

use anyhow::{Context as _, Result};

/// Clock ticks in a second: `USER_HZ`, 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of this process so far, user and system, all threads.
///
/// # Errors
/// Where there is no `/proc`.
pub fn cpu_seconds() -> Result<f64> {
    let own = Status::of("self").context("read /proc/self/stat")?;
    Ok(own.ticks / TICKS_PER_SECOND)
}

/// CPU seconds of a process and of everything that it started, directly or not, ended or not.
///
/// # Errors
/// When there is no such process.
pub fn family_cpu_seconds(pid: u32) -> Result<f64> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok())
            && let Some(status) = Status::of(&pid.to_string())
        {
            all.insert(pid, status);
        }
    }
    all.get(&pid).with_context(|| format!("there is no process {pid}"))?;
    let is_of_family = |mut member: u32| {
        while member != pid {
            match all.get(&member) {
                Some(status) => member = status.parent,
                None => return false,
            }
        }
        true
    };
    // What has ended is counted by its parent, once it was waited for.
    let ticks =
        all.iter().filter(|(member, _)| is_of_family(**member)).map(|(_, of)| of.ticks + of.ended_ticks);
    Ok(ticks.sum::<f64>() / TICKS_PER_SECOND)
}

/// The process that started another; `None` when that is gone.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    Status::of(&pid.to_string()).map(|status| status.parent)
}

/// What `/proc/PID/stat` says.
struct Status {
    /// Field 4.
    parent: u32,
    /// Fields 14 and 15: user and system, all threads.
    ticks: f64,
    /// Fields 16 and 17: the same of children that have ended.
    ended_ticks: f64,
}

impl Status {
    fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The command in parentheses may hold spaces; the state, field 3, follows it.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<f64> =
            rest.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
        let parent = rest.split_whitespace().nth(1)?.parse().ok()?;
        let sum = |from: usize| Some(fields.get(from)? + fields.get(from + 1)?);
        Some(Self { parent, ticks: sum(10)?, ended_ticks: sum(12)? })
    }
}

/// Resident memory of a process in MiB; `None` when it is gone.
#[must_use]
pub fn resident_mib(pid: u32) -> Option<f64> {
    memory_mib(pid, "VmRSS:")
}

/// Resident memory of a process that belongs to no file, in MiB: heap and stacks; `None` when it is gone.
#[must_use]
pub fn anonymous_mib(pid: u32) -> Option<f64> {
    memory_mib(pid, "RssAnon:")
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
        assert!(anonymous_mib(std::process::id()) < resident_mib(std::process::id()));
        assert_eq!((resident_mib(u32::MAX), peak_mib(u32::MAX)), (None, None));
    }

    #[test]
    fn a_family_costs_what_its_members_cost_and_what_those_did_that_have_ended() {
        let before = family_cpu_seconds(std::process::id()).unwrap();
        let work = "n=0; while [ $n -lt 200000 ]; do n=$((n + 1)); done";
        assert!(std::process::Command::new("sh").args(["-c", work]).status().unwrap().success());
        let took = family_cpu_seconds(std::process::id()).unwrap() - before;
        assert!(took > 0.05, "{took}");
        assert!(parent(std::process::id()).is_some());
        assert!(family_cpu_seconds(u32::MAX).is_err());
    }

    #[test]
    fn a_quantile_is_the_nearest_rank() {
        let values: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99)), (5.0, 10.0));
        assert!(quantile(&[], 0.5).is_nan());
    }
}
