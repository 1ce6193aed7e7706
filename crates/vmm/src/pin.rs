//! Which CPUs of the host the threads of a QEMU may run on: read, changed while it runs, and put back.
//!
//! Whose thread is what is asked of QEMU's monitor, or read off the threads' names, which QEMU gives them with
//! `-name NAME,debug-threads=on`: `CPU n/KVM` or `CPU n/TCG`, `IO id`. A QEMU that translates all CPUs in one thread calls it
//! `ALL CPUs/TCG`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};
use serde::{Deserialize, Serialize};

use crate::{
    CpuList,
    qmp::{Qmp, QmpError},
};

/// The threads of a QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threads {
    /// QEMU's process.
    pub process: i32,
    /// All of them, by id.
    pub threads: Vec<Thread>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Thread {
    /// Its id.
    pub id: i32,
    /// What it does.
    pub role: Role,
    /// Where it may run.
    pub cpus: CpuList,
}

/// What a thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Executes the virtual CPU of this number.
    Vcpu(u32),
    /// Serves disks.
    Io,
    /// The main loop, and whatever else there is.
    Emulator,
}

/// Where threads shall run; those of a role that is not named stay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pinning {
    /// Virtual CPUs: one each, in order, from the beginning again when there are fewer.
    pub vcpus: Option<CpuList>,
    /// The main loop and its helpers: any of these.
    pub emulator: Option<CpuList>,
    /// Threads of disks: any of these.
    pub io: Option<CpuList>,
}

/// Why threads are not pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no such process.
    #[error("there is no process {0}")]
    NoProcess(i32),
    /// Its threads have no names that tell them apart.
    #[error(
        "which threads of process {0} are virtual CPUs cannot be seen: start QEMU with -name NAME,debug-threads=on"
    )]
    NoNames(i32),
    /// It has none of the kind that was named.
    #[error("process {process} has no threads of {role}; leave {option} away")]
    NoThreads {
        /// The process.
        process: i32,
        /// What was looked for.
        role: &'static str,
        /// The option that named it.
        option: &'static str,
    },
    /// The kernel does not let us.
    #[error("thread {thread} of process {process} cannot be pinned to CPUs {cpus}: {why}")]
    Refused {
        /// The thread.
        thread: i32,
        /// Its process.
        process: i32,
        /// Where it should run.
        cpus: CpuList,
        /// The reason, with the way out.
        why: String,
    },
    /// Nothing was changed, or not by us.
    #[error("nothing of process {0} was pinned here, so there is nothing to put back")]
    NothingSaved(i32),
    /// What was before cannot be written down.
    #[error("{}: {error}", .path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The monitor does not answer.
    #[error(transparent)]
    Monitor(#[from] QmpError),
}

impl Threads {
    /// By what the process's threads are called.
    pub fn by_name(process: i32) -> Result<Self, PinError> {
        let found = Self::read(process, |id| {
            let path = format!("/proc/{process}/task/{id}/comm");
            role_of(fs::read_to_string(path).unwrap_or_default().trim_end())
        })?;
        let named = |thread: &Thread| matches!(thread.role, Role::Vcpu(_));
        if found.threads.iter().any(named) {
            Ok(found)
        } else {
            Err(PinError::NoNames(process))
        }
    }

    /// By what QEMU says at its monitor.
    pub fn by_monitor(process: i32, monitor: &mut Qmp) -> Result<Self, PinError> {
        let (vcpus, io) = (monitor.vcpus()?, monitor.io_threads()?);
        Self::read(process, |id| {
            match vcpus.iter().find(|vcpu| vcpu.thread == id) {
                Some(vcpu) => Role::Vcpu(vcpu.index),
                None if io.contains(&id) => Role::Io,
                None => Role::Emulator,
            }
        })
    }

    fn read(process: i32, role: impl Fn(i32) -> Role) -> Result<Self, PinError> {
        let entries = fs::read_dir(format!("/proc/{process}/task"))
            .map_err(|_| PinError::NoProcess(process))?;
        let id = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
        let mut ids: Vec<i32> = entries.flatten().filter_map(id).collect();
        ids.sort_unstable();
        // One that ends meanwhile is none.
        let thread = |id: i32| {
            let cpus = affinity(id)?;
            let role = role(id);
            Some(Thread { id, role, cpus })
        };
        Ok(Self {
            process,
            threads: ids.into_iter().filter_map(thread).collect(),
        })
    }

    /// Pins; what was before is kept in the file `saved`, once for each thread.
    pub fn pin(&self, pinning: &Pinning, saved: &Path) -> Result<(), PinError> {
        let mut wanted: Vec<(i32, CpuList)> = Vec::new();
        for (cpus, is_meant, role, option) in [
            (
                &pinning.vcpus,
                (|role| matches!(role, Role::Vcpu(_))) as fn(Role) -> bool,
                "virtual CPUs",
                "--vcpus",
            ),
            (&pinning.io, |role| role == Role::Io, "disks", "--io"),
            (
                &pinning.emulator,
                |role| role == Role::Emulator,
                "the emulator",
                "--emulator",
            ),
        ] {
            let Some(cpus) = cpus else { continue };
            let mut meant = self.threads.iter().filter(|t| is_meant(t.role)).peekable();
            if meant.peek().is_none() {
                return Err(PinError::NoThreads {
                    process: self.process,
                    role,
                    option,
                });
            }
            wanted.extend(meant.filter_map(|thread| match thread.role {
                Role::Vcpu(index) => {
                    let cpu = cpus.nth_wrapping(index.try_into().unwrap_or_default());
                    Some((thread.id, CpuList::new([cpu])?))
                }
                _ => Some((thread.id, cpus.clone())),
            }));
        }
        self.save(&wanted, saved)?;
        for (thread, cpus) in wanted {
            self.set(thread, &cpus)?;
        }
        Ok(())
    }

    /// Puts back what the file `saved` says, and removes it.
    pub fn reset(&self, saved: &Path) -> Result<(), PinError> {
        let before = self
            .saved(saved)
            .ok_or(PinError::NothingSaved(self.process))?;
        for (thread, cpus) in before.threads {
            // One that has ended since needs nothing.
            if self.threads.iter().any(|now| now.id == thread) {
                self.set(thread, &cpus)?;
            }
        }
        let _ = fs::remove_file(saved);
        Ok(())
    }

    fn save(&self, wanted: &[(i32, CpuList)], path: &Path) -> Result<(), PinError> {
        let mut before = self.saved(path).unwrap_or(Saved {
            process: self.process,
            started: started(self.process),
            threads: Vec::new(),
        });
        for (id, _) in wanted {
            let known = before.threads.iter().any(|(known, _)| known == id);
            if let Some(thread) = self
                .threads
                .iter()
                .find(|thread| thread.id == *id && !known)
            {
                before.threads.push((*id, thread.cpus.clone()));
            }
        }
        let failed = |error| PinError::Save {
            path: path.to_owned(),
            error,
        };
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let text = serde_json::to_vec(&before).map_err(io::Error::from);
        text.and_then(|text| fs::write(path, text)).map_err(failed)
    }

    /// What was saved of this process, and not of one that had its number before.
    fn saved(&self, path: &Path) -> Option<Saved> {
        let saved: Saved = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let same = saved.process == self.process && saved.started == started(self.process);
        same.then_some(saved)
    }

    fn set(&self, thread: i32, cpus: &CpuList) -> Result<(), PinError> {
        let mut set = CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(cpu.into()));
        let done = match sched_setaffinity(Pid::from_raw(thread), &set) {
            // QEMU's helpers come and go; one that has ended meanwhile needs nothing.
            Err(Errno::SRCH) if started(self.process).is_some() => Ok(()),
            done => done,
        };
        done.map_err(|error| PinError::Refused {
            thread,
            process: self.process,
            cpus: cpus.clone(),
            why: match error {
                Errno::PERM => "it is another user's; run as root".into(),
                Errno::INVAL => {
                    "this host has none of them, or the process may not use them (`lscpu -e`, its cpuset)".into()
                }
                error => io::Error::from(error).to_string(),
            },
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    process: i32,
    /// Clock ticks after the host's boot, by which a process differs from another that had its number.
    started: Option<u64>,
    threads: Vec<(i32, CpuList)>,
}

/// When a process was started, in clock ticks since boot; `None` if there is none.
pub fn started(process: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may have anything in it; the start time is field 22 (proc(5)).
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn affinity(thread: i32) -> Option<CpuList> {
    let set = sched_getaffinity(Pid::from_raw(thread)).ok()?;
    let all = 0..=crate::cpus::MAX_CPU;
    CpuList::new(all.filter(|&cpu| set.is_set(cpu.into())))
}

fn role_of(name: &str) -> Role {
    let number = |name: &str| {
        let (number, kind) = name.strip_prefix("CPU ")?.split_once('/')?;
        matches!(kind, "KVM" | "TCG").then(|| number.parse().ok())?
    };
    match number(name) {
        Some(number) => Role::Vcpu(number),
        None if name == "ALL CPUs/TCG" => Role::Vcpu(0),
        None if name.starts_with("IO ") => Role::Io,
        None => Role::Emulator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_apart_by_their_names() {
        for (name, role) in [
            ("CPU 0/KVM", Role::Vcpu(0)),
            ("CPU 12/TCG", Role::Vcpu(12)),
            ("ALL CPUs/TCG", Role::Vcpu(0)),
            ("IO io0", Role::Io),
            ("qemu-system-x86", Role::Emulator),
            ("CPU x/KVM", Role::Emulator),
            ("CPU 1/HVF", Role::Emulator),
        ] {
            assert_eq!(role_of(name), role, "{name}");
        }
    }

    /// A process with a thread of its own for each of these names.
    struct Sleeper {
        done: std::sync::mpsc::Sender<()>,
        ids: Vec<i32>,
    }

    fn threads(sleeper: &Sleeper) -> Threads {
        let roles = [Role::Vcpu(0), Role::Vcpu(1)];
        let threads = sleeper.ids.iter().zip(roles).map(|(&id, role)| Thread {
            id,
            role,
            cpus: affinity(id).unwrap(),
        });
        Threads {
            process: i32::try_from(std::process::id()).unwrap(),
            threads: threads.collect(),
        }
    }

    fn sleeper() -> Sleeper {
        let (done, end) = std::sync::mpsc::channel::<()>();
        let end = std::sync::Arc::new(std::sync::Mutex::new(end));
        let (tell, told) = std::sync::mpsc::channel();
        for _ in 0..2 {
            let (end, tell) = (end.clone(), tell.clone());
            std::thread::spawn(move || {
                tell.send(rustix::thread::gettid().as_raw_nonzero().get())
                    .unwrap();
                let _ = end.lock().unwrap().recv();
            });
        }
        let ids = told.iter().take(2).collect();
        Sleeper { done, ids }
    }

    #[test]
    fn affinities_are_set_and_put_back_as_they_were() {
        let path = std::env::temp_dir().join(format!("ringway-pin-{}", std::process::id()));
        let sleeper = sleeper();
        let before = threads(&sleeper);
        let first = before.threads[0].cpus.iter().next().unwrap();
        let one = CpuList::new([first]).unwrap();
        let pinning = Pinning {
            vcpus: Some(one.clone()),
            ..Pinning::default()
        };
        before.pin(&pinning, &path).unwrap();
        // A second time: what was before the first is what counts.
        threads(&sleeper).pin(&pinning, &path).unwrap();
        assert!(threads(&sleeper).threads.iter().all(|t| t.cpus == one));
        threads(&sleeper).reset(&path).unwrap();
        assert_eq!(threads(&sleeper), before);
        let error = before.reset(&path).unwrap_err();
        assert!(matches!(error, PinError::NothingSaved(_)), "{error}");
        drop(sleeper.done);
    }

    #[test]
    fn a_thread_that_has_ended_is_no_reason_to_stop() {
        let path = std::env::temp_dir().join(format!("ringway-ended-{}", std::process::id()));
        let sleeper = sleeper();
        let mut threads = threads(&sleeper);
        let cpus = threads.threads[0].cpus.clone();
        let first = CpuList::new([cpus.iter().next().unwrap()]).unwrap();
        // Numbers of threads end below 2^22.
        threads.threads.insert(
            0,
            Thread {
                id: 1 << 22,
                role: Role::Vcpu(2),
                cpus,
            },
        );
        let pinning = Pinning {
            vcpus: Some(first.clone()),
            ..Pinning::default()
        };
        threads.pin(&pinning, &path).unwrap();
        assert_eq!(affinity(sleeper.ids[1]).unwrap(), first);
        // A process that is gone as a whole is one.
        threads.process = 1 << 22;
        let error = threads.pin(&pinning, &path).unwrap_err();
        assert!(matches!(error, PinError::Refused { .. }), "{error}");
        fs::remove_file(&path).unwrap();
        drop(sleeper.done);
    }

    #[test]
    fn what_cannot_be_pinned_is_named() {
        let path = std::env::temp_dir().join(format!("ringway-unpinned-{}", std::process::id()));
        let sleeper = sleeper();
        let list = |text: &str| Some(text.parse::<CpuList>().unwrap());
        let refused = |pinning: Pinning| threads(&sleeper).pin(&pinning, &path).unwrap_err();
        let error = refused(Pinning {
            io: list("0"),
            ..Pinning::default()
        });
        assert!(error.to_string().contains("leave --io away"), "{error}");
        let error = refused(Pinning {
            vcpus: list("1023"),
            ..Pinning::default()
        });
        assert!(error.to_string().contains("lscpu"), "{error}");
        let _ = fs::remove_file(&path);
        assert!(matches!(
            Threads::by_name(i32::MAX),
            Err(PinError::NoProcess(_))
        ));
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(Threads::by_name(own), Err(PinError::NoNames(_))));
    }
}
