//! What a stretch of work cost this process.

use std::fs;
use std::time::Instant;

use stats_alloc::{INSTRUMENTED_SYSTEM, Stats};

/// The start of a stretch.
pub(crate) struct Measurement {
    at: Instant,
    cpu_ns: u64,
    allocations: Stats,
}

impl Measurement {
    /// Starts measuring.
    pub(crate) fn start() -> Self {
        Self { allocations: INSTRUMENTED_SYSTEM.stats(), cpu_ns: cpu_ns(), at: Instant::now() }
    }

    /// The figures of the stretch, as `name=value` words.
    pub(crate) fn stop(&self, messages: u64) -> String {
        let secs = self.at.elapsed().as_secs_f64();
        let cpu_ns = cpu_ns() - self.cpu_ns;
        let now = INSTRUMENTED_SYSTEM.stats();
        let allocations =
            now.allocations + now.reallocations - self.allocations.allocations - self.allocations.reallocations;
        format!(
            "messages={messages} secs={secs:.6} cpu_ns={cpu_ns} allocations={allocations} rss_kib={}",
            resident_kib()
        )
    }
}

/// CPU time of all threads that are alive, nanoseconds. Threads that ended are not in it: none does while one measures.
pub(crate) fn cpu_ns() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of_task = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        stat.split(' ').next()?.parse::<u64>().ok()
    };
    tasks.filter_map(of_task).sum()
}

/// The most memory the process ever had resident.
fn resident_kib() -> u64 {
    status_kib("VmHWM:")
}

/// The memory that the process has resident.
pub(crate) fn resident_now_kib() -> u64 {
    status_kib("VmRSS:")
}

fn status_kib(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0)
}
