//! What processes use of the host: processor time and changes of context, of every thread, by the kernel's own account.

use std::{collections::BTreeMap, fs, ops::Sub};

use serde::{Deserialize, Serialize};

/// What was used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Seconds of threads that execute guests' processors.
    pub guest_seconds: f64,
    /// Seconds of all others: QEMU's main loop, the switch's workers, the kernel's vhost.
    pub path_seconds: f64,
    /// Times that a thread gave its processor away or had to.
    pub switches: u64,
    /// Those of them at which it went to sleep, to be woken later.
    pub wakeups: u64,
}

/// Whose account is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Accounts {
    /// Processes, by number.
    pub(super) processes: Vec<i32>,
    /// Threads among theirs that execute virtual processors.
    pub(super) vcpus: Vec<i32>,
}

/// All accounts at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Moment(BTreeMap<i32, Thread>);

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Thread {
    is_vcpu: bool,
    nanoseconds: u64,
    voluntary: u64,
    involuntary: u64,
}

impl Accounts {
    /// Adds a process, and the kernel's threads that work for its vhost devices: threads of its own since Linux 6.4, before that
    /// processes called `vhost-NUMBER`.
    pub(super) fn add(&mut self, process: i32) {
        self.processes.push(process);
        let wanted = format!("vhost-{process}");
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let is_wanted = |id: &i32| {
            fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|name| name.trim() == wanted)
        };
        self.processes
            .extend(all.filter_map(number).filter(is_wanted));
    }

    /// Reads them.
    pub(super) fn now(&self) -> Moment {
        let mut found = BTreeMap::new();
        for process in &self.processes {
            let entries = fs::read_dir(format!("/proc/{process}/task"));
            for entry in entries.into_iter().flatten().flatten() {
                let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
                let id = entry.file_name().to_string_lossy().parse();
                let (Ok(id), Some(times), Some(status)) = (id, read("schedstat"), read("status"))
                else {
                    continue;
                };
                let mut thread = parse(&times, &status);
                thread.is_vcpu = self.vcpus.contains(&id);
                found.insert(id, thread);
            }
        }
        Moment(found)
    }
}

impl Sub<&Moment> for &Moment {
    type Output = Used;

    /// What was used between two moments. A thread that began meanwhile counts from its beginning, one that ended not at all.
    fn sub(self, before: &Moment) -> Used {
        let mut used = Used::default();
        for (id, after) in &self.0 {
            let before = before.0.get(id).copied().unwrap_or_default();
            let ran = after.nanoseconds.saturating_sub(before.nanoseconds);
            let seconds = if after.is_vcpu {
                &mut used.guest_seconds
            } else {
                &mut used.path_seconds
            };
            *seconds += ran as f64 / 1e9;
            let voluntary = after.voluntary.saturating_sub(before.voluntary);
            used.wakeups += voluntary;
            used.switches += voluntary + after.involuntary.saturating_sub(before.involuntary);
        }
        used
    }
}

fn parse(times: &str, status: &str) -> Thread {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse().ok()
    };
    let ran = times.split_whitespace().next();
    Thread {
        is_vcpu: false,
        nanoseconds: ran.and_then(|ran| ran.parse().ok()).unwrap_or(0),
        voluntary: field("voluntary_ctxt_switches:").unwrap_or(0),
        involuntary: field("nonvoluntary_ctxt_switches:").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn the_two_kinds_of_switches_are_told_apart() {
        let status = "Name:\tx\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
        let thread = parse("1500000000 20 3\n", status);
        assert_eq!(
            (thread.nanoseconds, thread.voluntary, thread.involuntary),
            (1_500_000_000, 7, 2)
        );
        let before = Moment(BTreeMap::from([(1, thread)]));
        let later = Thread {
            nanoseconds: 2_500_000_000,
            voluntary: 10,
            involuntary: 3,
            is_vcpu: true,
        };
        let after = Moment(BTreeMap::from([(1, later), (2, thread)]));
        let used = &after - &before;
        assert_eq!((used.guest_seconds, used.path_seconds), (1.0, 1.5));
        assert_eq!((used.wakeups, used.switches), (3 + 7, 4 + 9));
    }

    #[test]
    fn a_thread_that_sleeps_is_seen_to() {
        let mut accounts = Accounts::default();
        accounts.add(i32::try_from(std::process::id()).unwrap());
        let before = accounts.now();
        for _ in 0..20 {
            thread::sleep(Duration::from_micros(100));
        }
        let used = &accounts.now() - &before;
        assert!(
            used.wakeups >= 20 && used.switches >= used.wakeups,
            "{used:?}"
        );
    }
}
