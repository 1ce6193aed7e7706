//! What runs short: huge pages, files that may be open.

use std::collections::BTreeMap;

use super::{Chapter, Fault, Sign};
use crate::{
    command::{Command, Options},
    facts::{Host, Machine},
};

pub(super) const CHAPTER: Chapter = Chapter {
    title: "Resources",
    faults: &[HUGE_PAGES, DESCRIPTORS],
};

const HUGE_PAGES: Fault = Fault {
    name: "huge-pages-short",
    seen: &[
        "unable to map backing store for guest RAM: Cannot allocate memory",
        "qemu_prealloc_mem: preallocating memory failed: Bad address",
    ],
    cause: "The machine's memory is to come from huge pages, and fewer are free, on the NUMA node it names or on all, than it needs.",
    why: "QEMU does not start, or is killed when the guest touches memory that is not there",
    cure: &[
        "echo COUNT > /sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages",
        "# at every boot: echo vm.nr_hugepages=COUNT > /etc/sysctl.d/50-huge-pages.conf",
    ],
    judge: |facts| {
        let machines = facts.machines.iter().filter(|it| it.pid.is_none());
        machines
            .flat_map(|machine| short_of_pages(&facts.host, machine))
            .collect()
    },
};

const DESCRIPTORS: Fault = Fault {
    name: "files-short",
    seen: &[
        "could not open /dev/net/tun: Too many open files",
        "could not configure /dev/net/tun (TAP): Too many open files",
    ],
    cause: "Each queue pair takes about six open files (the tap's queue, vhost-net, and what they wake each other with), and so do \
        memory, sockets and disks; the limit (`ulimit -n`) is lower.",
    why: "QEMU does not start, or loses a queue when the guest's driver starts",
    cure: &[
        "ulimit -n COUNT",
        "# of a machine that runs: prlimit --pid PID --nofile=COUNT:COUNT",
    ],
    judge: |facts| {
        let signs = facts.machines.iter().filter_map(|machine| {
            let limit = limit(machine)?;
            if machine.command.is_empty() {
                return None;
            }
            let needed = needed(machine);
            let open = machine.descriptors.len() as u64;
            let (what, cure) = match machine.pid {
                None if limit < needed => (
                    format!("{limit} files may be open (ulimit -n), and the machine may need {needed}"),
                    vec![
                        format!("ulimit -n {}", needed.next_power_of_two()),
                        format!("# for all that a user starts: echo '* - nofile {}' > /etc/security/limits.d/50-files.conf", needed.next_power_of_two()),
                    ],
                ),
                Some(pid) if open > 0 && open + SPARE > limit => {
                    let wanted = (open * 2).max(needed).next_power_of_two();
                    (
                        format!("{open} files are open, and {limit} may be"),
                        vec![match machine.descriptor_limit_hard {
                            Some(hard) if wanted <= hard => format!("prlimit --pid {pid} --nofile={wanted}:"),
                            _ => format!("prlimit --pid {pid} --nofile={wanted}:{wanted}"),
                        }],
                    )
                }
                _ => return None,
            };
            Some(Sign {
                machine: Some(machine.name.clone()),
                subject: format!("open files of {}", machine.name),
                what: format!("{}: {what}", machine.name),
                cure,
            })
        });
        signs.collect()
    },
};

/// What a QEMU opens that has no NIC yet, and what may come.
const BASE: u64 = 32;
/// Of one queue pair.
const PER_PAIR: u64 = 6;
/// So few more would be too few.
const SPARE: u64 = 8;

/// How many files it may open. QEMU raises its limit itself, since about version 8; so of a version that is not known the higher
/// one counts.
fn limit(machine: &Machine) -> Option<u64> {
    let major = machine.version.as_ref().and_then(|it| it.split('.').next());
    let raises = major
        .and_then(|it| it.parse().ok())
        .is_none_or(|major: u32| major >= 8);
    match machine.pid.is_none() && raises {
        true => machine.descriptor_limit_hard,
        false => machine.descriptor_limit,
    }
}

fn needed(machine: &Machine) -> u64 {
    let command = Command::parse(&machine.command);
    let pairs: u64 = command
        .nics()
        .iter()
        .map(|nic| u64::from(nic.queues()))
        .sum();
    let others = ["object", "chardev", "drive", "blockdev"];
    let others: usize = others.iter().map(|name| command.all(name).count()).sum();
    BASE + PER_PAIR * pairs + others as u64
}

fn short_of_pages(host: &Host, machine: &Machine) -> Vec<Sign> {
    let command = Command::parse(&machine.command);
    let objects = command.all("object");
    // What those before it take.
    let mut taken: BTreeMap<(u64, Option<u32>), u64> = BTreeMap::new();
    let signs = objects.filter_map(|object| {
        let size = page_size(host, machine, object)?;
        let bytes = bytes(object.get("size")?, 1)?;
        let wanted = bytes.div_ceil(size.checked_mul(1024)?);
        let node = match object.get("policy") {
            Some("bind") => object
                .get("host-nodes")
                .and_then(|it| it.parse::<u32>().ok()),
            _ => None,
        };
        let pages = || {
            let sized = host.huge_pages.iter().filter(|it| it.size == size);
            sized.filter(|it| node.is_none_or(|node| it.node == node))
        };
        let first = pages().next()?;
        let taken = taken.entry((size, node)).or_default();
        let free = pages()
            .fold(0_u64, |sum, it| sum.saturating_add(it.free))
            .saturating_sub(*taken);
        *taken = taken.saturating_add(wanted);
        if free >= wanted {
            return None;
        }
        let id = object.get("id").unwrap_or("memory");
        let place = node.map_or(String::new(), |node| format!(" on NUMA node {node}"));
        let count = first.total.saturating_add(wanted - free);
        let folder = format!(
            "/sys/devices/system/node/node{}/hugepages/hugepages-{size}kB",
            first.node
        );
        let all = host.huge_pages.iter().filter(|it| it.size == size);
        let sum = all.fold(wanted - free, |sum, it| sum.saturating_add(it.total));
        let mut cure = vec![format!("echo {count} > {folder}/nr_hugepages")];
        cure.push(match host.huge_page_size == Some(size) {
            true => format!(
                "# at every boot: echo vm.nr_hugepages={sum} > /etc/sysctl.d/50-huge-pages.conf"
            ),
            false => format!(
                "# at every boot, on the kernel's command line: hugepagesz={size}K hugepages={sum}"
            ),
        });
        Some(Sign {
            machine: Some(machine.name.clone()),
            subject: format!("memory {id}"),
            what: format!(
                "{id} needs {wanted} huge pages of {size} KiB, and {free} are free{place}"
            ),
            cure,
        })
    });
    signs.collect()
}

/// In KiB, if an object's pages are huge.
fn page_size(host: &Host, machine: &Machine, object: &Options) -> Option<u64> {
    match object.kind() {
        "memory-backend-memfd" if object.is_on("hugetlb", false) => match object.get("hugetlbsize")
        {
            Some(size) => Some(bytes(size, 1)? / 1024),
            None => host.huge_page_size,
        },
        "memory-backend-file" => {
            let path = std::path::Path::new(object.get("mem-path")?);
            machine.huge_paths.get(path).copied()
        }
        _ => None,
    }
    .filter(|size| *size > 0)
}

/// A size as QEMU takes it: `512M`; of a bare number the unit is given.
fn bytes(text: &str, unit: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic());
    let unit = match text[digits.len()..]
        .chars()
        .next()
        .map(|it| it.to_ascii_uppercase())
    {
        None => unit,
        Some('B') => 1,
        Some('K') => 1 << 10,
        Some('M') => 1 << 20,
        Some('G') => 1 << 30,
        Some('T') => 1 << 40,
        Some(_) => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}
