//! What the process uses: processor, memory, open files, connections. Looked at every five seconds at most.

use std::sync::{Mutex, PoisonError};

use schemas::ids::Micros;
use serde_json::{Value, json};
use sqlx::PgPool;

/// Between two looks, in microseconds.
const LOOK_EVERY: i64 = 5_000_000;
/// Clock ticks of `/proc/[pid]/stat` in a second: USER_HZ, 100 for programs on every Linux (proc(5), time(7)).
const TICKS_PER_SECOND: f64 = 100.0;

/// What was seen of the process.
#[derive(Default)]
pub(super) struct Resources {
    pool: Option<PgPool>,
    seen: Mutex<Option<Seen>>,
}

struct Seen {
    at: Micros,
    /// Of the process so far.
    ticks: Option<u64>,
    usage: Value,
}

impl Resources {
    /// With the connections of a pool.
    pub(super) fn of(pool: PgPool) -> Self {
        Self { pool: Some(pool), ..Self::default() }
    }

    /// `system_performance_logs.resource_usage`; what this system does not tell is left out. `cpu_percent` is of one core, since the
    /// look before.
    pub(super) fn usage(&self, now: Micros) -> Value {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = seen.as_ref().filter(|seen| (0..LOOK_EVERY).contains(&(now.0 - seen.at.0))) {
            return seen.usage.clone();
        }
        let ticks = processor_ticks();
        let before = seen.as_ref().and_then(|seen| Some((seen.at, seen.ticks?)));
        let usage =
            self.look(ticks.zip(before).and_then(|(ticks, (at, old))| percent(ticks, old, now.0 - at.0)));
        *seen = Some(Seen { at: now, ticks, usage: usage.clone() });
        usage
    }

    fn look(&self, cpu_percent: Option<f64>) -> Value {
        let mut usage = json!({});
        if let Some(percent) = cpu_percent {
            usage["cpu_percent"] = percent.into();
        }
        if let Some(bytes) = resident_bytes() {
            usage["memory_rss_bytes"] = bytes.into();
        }
        if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
            usage["open_fds"] = files.count().into();
        }
        if let Some(pool) = &self.pool {
            let idle = pool.num_idle();
            let in_use = u64::from(pool.size()).saturating_sub(idle as u64);
            let max = pool.options().get_max_connections();
            usage["db_connections"] = json!({ "in_use": in_use, "idle": idle, "max": max });
        }
        usage
    }
}

/// The share of one core that was used in a time, with one decimal.
fn percent(ticks: u64, before: u64, micros: i64) -> Option<f64> {
    #[allow(clippy::cast_precision_loss, reason = "ticks and microseconds of a few seconds")]
    let (ticks, seconds) = (ticks.checked_sub(before)? as f64, micros as f64 / 1e6);
    (seconds > 0.0).then(|| (ticks / TICKS_PER_SECOND / seconds * 1_000.0).round() / 10.0)
}

/// Processor time of the process in ticks, its own and the kernel's for it: fields 14 and 15 of `/proc/self/stat`, counted from the end of
/// the name, which may hold blanks and parentheses and is field 2.
fn processor_ticks() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, kernel): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + kernel)
}

/// `VmRSS` of `/proc/self/status`, which is in KiB.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_second_of_processor_in_five_seconds_is_a_tenth_of_a_core() {
        assert_eq!(percent(150, 100, 5_000_000), Some(10.0));
        assert_eq!(percent(150, 100, 0), None);
        assert_eq!(percent(100, 150, 5_000_000), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_process_uses_is_looked_at_every_five_seconds_and_its_processor_from_the_second_look_on() {
        let resources = Resources::default();
        let first = resources.usage(Micros(0));
        assert!(first["memory_rss_bytes"].as_u64() > Some(100_000), "{first}");
        assert!(first["open_fds"].as_u64() >= Some(3), "{first}");
        assert_eq!(first.get("cpu_percent"), None);
        assert_eq!(resources.usage(Micros(LOOK_EVERY - 1)), first);
        let second = resources.usage(Micros(LOOK_EVERY));
        assert!(second["cpu_percent"].is_number(), "{second}");
    }
}
