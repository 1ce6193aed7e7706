//! What the guests counted against what the switch counted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{Endpoint, Guest, Switch, switch::Statistics};

const LIMIT: Duration = Duration::from_secs(20);

/// What a guest's kernel counted at an interface; packets and bytes without the virtio-net header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct GuestCounters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
}

impl Guest {
    /// The counters of an interface.
    pub fn counters(&self, interface: &str) -> Result<GuestCounters> {
        let text = self.sh(&format!(
            "cd /sys/class/net/{interface}/statistics && cat rx_packets rx_bytes tx_packets tx_bytes"
        ))?;
        let numbers: Vec<u64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let &[rx_packets, rx_bytes, tx_packets, tx_bytes] = numbers.as_slice() else {
            bail!("no counters: {text}");
        };
        Ok(GuestCounters {
            rx_packets,
            rx_bytes,
            tx_packets,
            tx_bytes,
        })
    }

    /// Interrupts of `eth0` so far by queue pair: of its receive ring and of its transmit ring.
    pub fn interrupts(&self, pairs: u16) -> Result<Vec<[u64; 2]>> {
        self.interrupts_of("eth0", pairs)
    }

    /// The same for another NIC.
    pub fn interrupts_of(&self, nic: &str, pairs: u16) -> Result<Vec<[u64; 2]>> {
        let device = self.sh(&format!("basename $(readlink /sys/class/net/{nic}/device)"))?;
        let table = self.sh("cat /proc/interrupts")?;
        let count = |ring: &str, pair: u16| -> Result<u64> {
            let name = format!("{}-{ring}.{pair}", device.trim());
            let line = table
                .lines()
                .find(|line| line.split_whitespace().last() == Some(&name))
                .with_context(|| format!("no interrupt {name} in\n{table}"))?;
            let columns = line
                .split_whitespace()
                .skip(1)
                .map_while(|word| word.parse::<u64>().ok());
            Ok(columns.sum())
        };
        (0..pairs)
            .map(|pair| Ok([count("input", pair)?, count("output", pair)?]))
            .collect()
    }
}

/// What arrived at an end with a wrong IP, TCP or UDP checksum. TCP would send it again, and nobody would notice.
pub fn checksum_errors(end: &dyn Endpoint) -> Result<u64> {
    let text = end.start("cat /proc/net/snmp")?.success(LIMIT)?;
    let lines: Vec<&str> = text.lines().collect();
    // A line of names, a line of numbers, for each protocol.
    let mut errors = 0;
    let mut columns = 0;
    for pair in lines.chunks_exact(2) {
        let [names, numbers] = [pair[0], pair[1]].map(str::split_whitespace);
        for (name, number) in names.zip(numbers) {
            if matches!(name, "InCsumErrors" | "InHdrErrors") {
                errors += number.parse::<u64>()?;
                columns += 1;
            }
        }
    }
    // Ip, Icmp, Tcp, Udp and UdpLite have one each.
    if columns != 5 {
        bail!("no counters of checksum errors: {text}");
    }
    Ok(errors)
}

/// Waits until guests and switch agree on every frame and byte, and the switch with itself; its statistics.
///
/// `guests` stand at the vhost-user ports of their names with their `eth0`, since the switch started. Frames may still be under
/// way, and a guest counts a frame as sent when it gets the buffer back, so that the last ones come late.
pub fn audit(switch: &mut Switch, guests: &[&Guest]) -> Result<Statistics> {
    let end = Instant::now() + LIMIT;
    loop {
        let result = compare(switch, guests);
        if result.is_ok() || Instant::now() > end {
            return result;
        }
    }
}

fn compare(switch: &mut Switch, guests: &[&Guest]) -> Result<Statistics> {
    let counted = guests.iter().map(|guest| guest.counters("eth0"));
    let counted = counted.collect::<Result<Vec<_>>>()?;
    let statistics = switch.statistics()?;
    statistics.check()?;
    for (guest, counted) in guests.iter().zip(counted) {
        let errors = checksum_errors(*guest)?;
        if errors != 0 {
            bail!("guest {} got {errors} wrong checksums", guest.name());
        }
        let port = statistics.port(guest.name())?.sum();
        let ours = GuestCounters {
            rx_packets: port.tx_frames,
            rx_bytes: port.tx_bytes,
            tx_packets: port.rx_frames,
            tx_bytes: port.rx_bytes,
        };
        if ours != counted {
            bail!(
                "guest {} counted {counted:?}, the switch {ours:?}",
                guest.name()
            );
        }
    }
    // One copy: what was copied is what arrived, byte for byte.
    let into_guests = statistics
        .ports
        .iter()
        .filter(|port| port.kind == "vhost-user");
    let arrived: u64 = into_guests.map(|port| port.sum().tx_bytes).sum();
    if statistics.copied_bytes != arrived {
        bail!(
            "copied {} bytes for {arrived} delivered",
            statistics.copied_bytes
        );
    }
    Ok(statistics)
}
