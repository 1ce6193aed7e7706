//! Frames made from arbitrary bytes, from a sender's burst to its receivers: the entry of the fuzzer
//! and of the tests like it.
//!
//! Ports of every kind of policy send to each other what an input says. The receivers hold the
//! switch to its promises: whole frames, nothing they did not ask for, nothing they may not see.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use ringway_api::port_spec::VlanSet;
use ringway_port::burst::{MAX_FRAME, MIN_FRAME, bits};
use ringway_port::{
    Burst, Counters, DropReason, Fault, Heads, MAX_BURST, Offloads, Port, Sent, Wakeup,
};
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::vlan::{Tag, VlanId};
use ringway_wire::vnet_hdr::{F_NEEDS_CSUM, VnetHeader};
use ringway_wire::{MacAddress, vlan};

use crate::classify::classify;
use crate::clock::Clock;
use crate::deliver::Delivery;
use crate::policy::{Policy, Vlan};
use crate::snapshot::{Entry, Snapshot};
use crate::table::Table;

/// Ports that send and receive.
const PORTS: u16 = 4;

/// Bursts of one input.
const MAX_BURSTS: usize = 64;

/// A guest may ask for all of this.
const EVERYTHING: Offloads = Offloads {
    csum: true,
    tso4: true,
    tso6: true,
    ecn: true,
    uso: true,
};

/// Exercises until the learning table is emptied, which takes longer than one of them. Each has
/// addresses of its own meanwhile.
const RUNS: u16 = 64;

/// What exercises share: buffers and the learning table.
pub struct Switch {
    table: Table,
    run: u16,
    delivery: Delivery,
    heads: Heads,
}

impl Default for Switch {
    fn default() -> Self {
        Self::new()
    }
}

impl Switch {
    /// One that has learned nothing.
    pub fn new() -> Self {
        Self {
            table: Table::new(8192),
            run: 0,
            delivery: Delivery::new(),
            heads: Heads::new(),
        }
    }

    /// Sends what `input` says and returns how many deliveries there were.
    ///
    /// # Panics
    ///
    /// When the switch does, or breaks a promise.
    pub fn exercise(&mut self, input: &[u8]) -> u64 {
        let run = self.run.to_be_bytes();
        let mut script = Script { rest: input, run };
        let receivers: Vec<Arc<Receiver>> = (0..PORTS).map(|_| script.receiver()).collect();
        let entries = (1..).zip(&receivers).map(|(number, receiver)| {
            Some(Entry {
                port: receiver.clone(),
                number,
                policy: receiver.policy.clone(),
                watchers: None,
            })
        });
        let snapshot = Snapshot::new(entries.collect(), &[], Vec::new());
        let mut clock = Clock::new(Instant::now());
        let before = self.delivery.sums;
        for _ in 0..MAX_BURSTS {
            let Some(first) = script.byte() else { break };
            let slot = u16::from(first) % PORTS;
            let frames: Vec<_> = (0..1 + first / 64).map(|_| script.frame()).collect();
            for (other, receiver) in (0..).zip(&receivers) {
                let isolated = receiver.policy.isolated;
                let hidden = isolated && receivers[usize::from(slot)].policy.isolated;
                receiver
                    .barred
                    .store(hidden || other == slot, Ordering::Relaxed);
            }
            let mut burst = Burst::new(&mut self.heads);
            for (header, bytes) in &frames {
                // As a port of a guest judges what it takes.
                let head = &bytes[..bytes.len().min(ringway_port::burst::HEAD_FRAME)];
                let clean = header
                    .normalized(bytes.len(), F_NEEDS_CSUM)
                    .with_measured_hdr_len(head, bytes.len());
                if header.validate(bytes.len(), EVERYTHING).is_ok() {
                    burst.push_private(&clean.to_bytes(), bytes);
                }
            }
            let Some(entry) = snapshot.entry(slot) else {
                break;
            };
            let judged = classify(&burst, slot, entry, &self.table, clock.seconds());
            self.delivery
                .deliver(&snapshot, slot, entry, &mut burst, &judged, &mut clock);
            let sums = &self.delivery.sums;
            assert_eq!(sums.attempted, sums.delivered + sums.dropped);
        }
        assert!(self.delivery.faults.is_empty());
        let after = self.delivery.sums;
        let drops = receivers.iter().flat_map(|port| port.counters.drops());
        let drops: u64 = drops.map(|(_, count)| count).sum();
        assert_eq!(drops, after.dropped - before.dropped);
        self.run = (self.run + 1) % RUNS;
        if self.run == 0 {
            (0..PORTS).for_each(|slot| self.table.forget_port(slot));
        }
        after.delivered - before.delivered
    }
}

/// A port that looks at what it gets.
struct Receiver {
    counters: Counters,
    policy: Arc<Policy>,
    takes: Offloads,
    mtu: Option<u16>,
    /// Frames that find room: one bit each, over and over.
    room: u64,
    /// Nothing that is sent now may come here.
    barred: AtomicBool,
    turns: AtomicU64,
}

impl Receiver {
    fn look(&self, burst: &Burst<'_>, i: usize) {
        let frame = &burst.frames[i];
        let len = frame.len as usize;
        let header = VnetHeader::from_bytes(burst.heads[i].vnet());
        let body: usize = burst.body(i).iter().map(|piece| piece.len()).sum();
        assert_eq!(usize::from(frame.head_len) + body, len, "a whole frame");
        // A trunk's tag may come on top of the longest.
        assert!((MIN_FRAME..=MAX_FRAME + vlan::TAG_LEN).contains(&len));
        assert_eq!(header.validate(len, self.takes), Ok(()), "what was asked");
        let head = burst.head_bytes(i);
        let tag = vlan::read(head);
        if let Vlan::Trunk(vlans) = &self.policy.vlan {
            let vlan = tag.expect("a trunk gets tags").vid();
            assert!(vlans.contains(vlan));
        }
        if let Some(mtu) = self.mtu {
            let most = if header.is_gso() {
                len.min(usize::from(header.hdr_len) + usize::from(header.gso_size))
            } else {
                len
            };
            // However many tags there are, each has four bytes.
            let tags = head[12..].chunks_exact(vlan::TAG_LEN);
            let tags = tags.take_while(|tag| matches!(tag[..2], [0x81, 0] | [0x88, 0xa8]));
            let least = MIN_FRAME + usize::from(mtu) + vlan::TAG_LEN * tags.count();
            assert!(most <= least, "{most} bytes over an MTU of {mtu}");
        }
    }
}

impl Port for Receiver {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        1
    }

    fn send_queues(&self) -> usize {
        // Some have more queues than others.
        if self.takes.csum { 2 } else { 1 }
    }

    fn offloads(&self) -> Offloads {
        self.takes
    }

    fn mtu(&self) -> Option<u16> {
        self.mtu
    }

    fn receive<'m>(&'m self, _: usize, _: usize, _: &mut Burst<'m>) -> Result<usize, Fault> {
        Ok(0)
    }

    fn release(&self, _: usize, _: &mut Burst<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn send(&self, queue: usize, burst: &Burst<'_>, picks: u64) -> Sent {
        assert!(queue < self.send_queues());
        assert!(!self.barred.load(Ordering::Relaxed));
        assert!(picks != 0 && picks & !burst.all() == 0);
        bits(picks).for_each(|i| self.look(burst, i));
        let turn = self.turns.fetch_add(1, Ordering::Relaxed) % MAX_BURST as u64;
        let room = self.room.rotate_left(u32::try_from(turn).unwrap_or(0));
        let delivered = picks & room;
        Sent {
            delivered,
            reason: (delivered != picks).then_some(DropReason::NoBuffers),
            ..Sent::default()
        }
    }

    fn wakeup(&self, _: usize) -> Wakeup<'_> {
        Wakeup::Never
    }

    fn arm(&self, _: usize) -> bool {
        false
    }

    fn disarm(&self, _: usize) {}

    fn woken(&self, _: usize) {}
}

/// An input as ports and frames.
struct Script<'i> {
    rest: &'i [u8],
    /// Part of every address.
    run: [u8; 2],
}

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// The next bytes; 0 after the end.
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        [(); N].map(|()| self.byte().unwrap_or(0))
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn receiver(&mut self) -> Arc<Receiver> {
        let [offloads, policy, room] = self.bytes();
        let bit = |bit: u8| offloads & 1 << bit != 0;
        let vlan = match policy & 7 {
            0..=2 => Vlan::Plain,
            3 | 4 => Vlan::Access(u16::from(policy & 7) - 2),
            _ => VlanSet::new(vec![1..=3]).map_or(Vlan::Plain, Vlan::Trunk),
        };
        let [high, low] = self.run;
        let own = u64::from_le_bytes([2, 0, 0, high, low, 1, 0, 0]);
        let policy = Policy {
            vlan,
            isolated: policy & 8 != 0,
            mac: (policy & 0x30 == 0x30).then_some(own),
            ..Policy::default()
        };
        Arc::new(Receiver {
            counters: Counters::new(2),
            policy: Arc::new(policy),
            // Segmentation needs checksums, as negotiation has it.
            takes: Offloads {
                csum: bit(0),
                tso4: bit(0) && bit(1),
                tso6: bit(0) && bit(2),
                ecn: bit(0) && bit(3),
                uso: bit(0) && bit(4),
            },
            mtu: bit(5).then_some(if bit(6) { 1500 } else { 600 }),
            room: if room & 1 == 0 {
                u64::MAX
            } else {
                u64::from(room) * 0x0101_0101_0101_0101
            },
            barred: AtomicBool::new(false),
            turns: AtomicU64::new(0),
        })
    }

    /// A frame and what its sender asks for: bytes as they come, or a datagram or segment of TCP with
    /// some bytes changed.
    fn frame(&mut self) -> (VnetHeader, Vec<u8>) {
        let [kind, to, from, changes] = self.bytes();
        let (header, mut bytes) = if kind & 1 == 0 {
            let len = usize::from(self.word()) % 300;
            let header = VnetHeader::from_bytes(&self.bytes());
            (header, (0..len).map(|_| self.bytes::<1>()[0]).collect())
        } else {
            self.dressed(kind, to, from)
        };
        for _ in 0..changes % 8 {
            let [at, value] = self.bytes();
            if let Some(byte) = bytes.get_mut(usize::from(at)) {
                *byte = value;
            }
        }
        let mut header = header;
        if changes & 0x80 != 0 {
            let mut raw = header.to_bytes();
            let [at, value] = self.bytes();
            raw[usize::from(at) % raw.len()] = value;
            header = VnetHeader::from_bytes(&raw);
        }
        bytes.resize(bytes.len().clamp(MIN_FRAME, MAX_FRAME), 0);
        (header, bytes)
    }

    fn dressed(&mut self, kind: u8, to: u8, from: u8) -> (VnetHeader, Vec<u8>) {
        let [high, low] = self.run;
        let mac = |id: u8| MacAddress([2, 0, 0, high, low, id % 8]);
        let destination = if to > 0xf0 {
            MacAddress([0xff; 6])
        } else {
            mac(to)
        };
        let mut frame = if kind & 2 == 0 {
            FrameBuilder::ipv4(Ipv4Addr::new(10, 0, 0, from), Ipv4Addr::new(10, 0, 0, to))
        } else {
            FrameBuilder::ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED)
        }
        .macs(mac(from), destination);
        if kind & 4 != 0
            && let Some(vlan) = VlanId::new(1 + u16::from(from) % 4)
        {
            frame = frame.tag(Tag::new(vlan));
        }
        let [flags, extra] = self.bytes();
        frame = if kind & 8 == 0 {
            // Now and then DHCP, which is completed whatever the receiver takes.
            frame.udp(if extra < 16 { 68 } else { 9 }, 9)
        } else {
            let fields = TcpFields {
                flags,
                ..TcpFields::default()
            };
            frame.tcp(fields, &[1; 40][..usize::from(extra % 11) * 4])
        };
        if kind & 16 != 0 {
            let options = usize::from(extra % 5) * 4;
            frame = frame.options(&[1; 16][..options]);
        }
        let [scale, size] = [self.word(), self.word()];
        let payload = if kind & 32 == 0 {
            usize::from(scale) % 200
        } else {
            usize::from(scale) % 20_000
        };
        let payload: Vec<u8> = (0..payload).map(|i| i.to_le_bytes()[0]).collect();
        match kind >> 6 {
            0 => (VnetHeader::default(), frame.build(&payload)),
            1 => swap(frame.build_partial(&payload)),
            _ => swap(frame.build_gso(&payload, size)),
        }
    }
}

fn swap((bytes, header): (Vec<u8>, VnetHeader)) -> (VnetHeader, Vec<u8>) {
    (header, bytes)
}
