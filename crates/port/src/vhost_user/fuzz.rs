//! Two guests made from arbitrary bytes, each of which sends what the other receives: the entry of the
//! fuzzer and of the tests like it.
//!
//! Their drivers lay chains out as an input says, or write anything into their rings. As long as a
//! receiver's driver was honest, what comes back to it has to be the very frames that were delivered.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use ringway_mem::{DirtyLog, GuestMemory};
use ringway_ring::{DeviceRing, DriverOptions, DriverRing, RingBase, RingFeatures, RingLog};
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::vnet_hdr::{self, VnetHeader};

use super::link::{Link, Source};
use super::queue::Queue;
use crate::burst::{HEAD_FRAME, MAX_FRAME, MIN_FRAME, bits};
use crate::{Burst, Counters, Heads, Offloads, Port};

/// Most steps of one input.
const MAX_STEPS: usize = 256;

/// Rings with their tables, then buffers that may be sent, then buffers to receive into.
const LAYOUT: [(u64, usize); 3] = [(0, 0x8000), (0x8000, 0x3000), (0x1_0000, 0x4000)];
const RING_BYTES: u64 = 0x4000;
const RINGS: u64 = 2 * RING_BYTES;
const SEND: u64 = 0x8000;
const SEND_BYTES: u64 = 0x3000;
const RECEIVE: u64 = 0x1_0000;
const RECEIVE_BYTES: u64 = 0x4000;
/// Descriptors of a table.
const TABLE: u16 = 8;

/// Mapped once; every run writes all of it.
static MEMORIES: LazyLock<[Arc<GuestMemory>; 2]> =
    LazyLock::new(|| [(); 2].map(|()| Arc::new(GuestMemory::heap(&LAYOUT))));

/// For pages of the first half of a guest.
static LOG: LazyLock<Arc<DirtyLog>> = LazyLock::new(|| {
    let (_, mut files) = GuestMemory::memfd(&[(0, 0x1000)]).expect("memory for a log");
    let file = files.remove(0).file;
    Arc::new(DirtyLog::map(file, 1, 0).expect("a log of a byte"))
});

/// Does what `input` says and returns how many frames were delivered.
///
/// # Panics
///
/// When the port does, or breaks a promise.
pub fn exercise(input: &[u8]) -> u64 {
    let mut script = Script(input);
    let mut guests = [0, 1].map(|at| Guest::new(&MEMORIES[at], &mut script));
    let mut heads = Heads::new();
    let mut delivered = 0;
    for _ in 0..MAX_STEPS {
        let Some(step) = script.byte() else { break };
        let (at, other) = if step & 0x80 == 0 { (0, 1) } else { (1, 0) };
        match step % 12 {
            0..=2 => guests[at].send(&mut script),
            3 | 4 => guests[at].offer(&mut script),
            5..=7 => {
                let [limit, picks] = script.bytes();
                delivered += turn(&mut guests, (at, other), (limit, picks), &mut heads);
            }
            8 => guests[at].write(&mut script),
            9 => guests[at].lie(&mut script),
            10 => guests[at].rest(script.bytes::<1>()[0]),
            _ => guests[at].restart(),
        }
    }
    delivered
}

/// One turn of a worker: what one guest has sent goes to the other.
fn turn(
    guests: &mut [Guest; 2],
    (from, to): (usize, usize),
    (limit, picks): (u8, u8),
    heads: &mut Heads,
) -> u64 {
    let sender = &guests[from].link;
    let mut burst = Burst::new(heads);
    let Ok(taken) = sender.receive(0, usize::from(limit % 65), &mut burst) else {
        assert_eq!(sender.receive(0, 64, &mut burst).ok(), Some(0), "it failed");
        return 0;
    };
    assert_eq!(taken, burst.batch.chains.len());
    assert_eq!(taken as u64, burst.frames.len() as u64 + burst.refused);
    let frames: Vec<Vec<u8>> = (0..burst.frames.len())
        .map(|i| look(&burst, i, sender.asks))
        .collect();
    let mut delivered = 0;
    let wanted = burst.all() & u64::from(picks).wrapping_mul(0x0101_0101_0101_0101);
    if wanted != 0 && guests[to].link.send_queues() > 0 {
        let sent = guests[to].link.send(0, &burst, wanted);
        assert_eq!(sent.delivered & !wanted, 0);
        let bytes = bits(sent.delivered).map(|i| u64::from(burst.frames[i].len));
        assert_eq!(sent.copied, bytes.sum::<u64>());
        assert!(sent.reason.is_some() || sent.delivered == wanted);
        delivered = sent.delivered;
    }
    let released = sender.release(0, &mut burst);
    assert!(released.is_ok(), "memory does not disappear here");
    drop(burst);
    for i in bits(delivered) {
        guests[to].expected.push_back(frames[i].clone());
    }
    guests[to].collect();
    delivered.count_ones().into()
}

/// A frame as it goes on: header and bytes.
fn look(burst: &Burst<'_>, i: usize, asks: Offloads) -> Vec<u8> {
    let frame = burst.frames[i];
    let len = frame.len as usize;
    assert!((MIN_FRAME..=MAX_FRAME).contains(&len));
    assert_eq!(usize::from(frame.head_len), len.min(HEAD_FRAME));
    let header = VnetHeader::from_bytes(burst.heads[i].vnet());
    assert_eq!(header.validate(len, asks), Ok(()), "what was negotiated");
    let asking = header.needs_csum() || header.is_gso();
    assert_eq!(asking, burst.offloaded & 1 << i != 0);
    let mut bytes = vec![0; vnet_hdr::LEN + len];
    bytes[..vnet_hdr::LEN].copy_from_slice(burst.heads[i].vnet());
    let copied = burst.copy_frame(i, &mut bytes[vnet_hdr::LEN..]);
    assert_eq!(copied, len, "a whole frame");
    bytes
}

/// A guest: its drivers, and the port on the other side.
struct Guest {
    memory: Arc<GuestMemory>,
    features: RingFeatures,
    transmit: DriverRing,
    receive: DriverRing,
    link: Link,
    /// Receive buffers that are out, oldest first.
    offered: Vec<(u16, Vec<(u64, u32)>)>,
    /// Where the next of them begins.
    next: u64,
    /// Frames that were delivered and not found yet.
    expected: VecDeque<Vec<u8>>,
    /// Nothing but its drivers has written to its rings.
    honest: bool,
}

impl Guest {
    fn new(memory: &Arc<GuestMemory>, script: &mut Script<'_>) -> Self {
        for (address, len) in LAYOUT {
            // Headers that ask for nothing wherever a line begins, so that most frames are sound.
            let byte = |i: usize| if i % 64 < 16 { 0 } else { i.to_le_bytes()[0] };
            let bytes: Vec<u8> = (0..len).map(byte).collect();
            poke(memory, address, &bytes);
        }
        let [kind, offloads, size] = script.bytes();
        let bit = |bit: u8| kind & 1 << bit != 0;
        let packed = bit(0);
        let features = RingFeatures {
            packed,
            indirect: bit(1),
            event_idx: bit(2),
            in_order: bit(3),
        };
        let options = DriverOptions {
            size: if packed {
                u16::from(size % 64) + 1
            } else {
                1 << (size % 7)
            },
            features,
            base: RingBase::start(packed),
            table: if bit(1) { TABLE } else { 0 },
        };
        let driver = |at| DriverRing::new(memory, at, options).expect("there is room for a ring");
        let (receive, transmit) = (driver(0), driver(RING_BYTES));
        let log = (kind & 0xc0 == 0xc0).then(|| RingLog {
            log: LOG.clone(),
            used: Some(0x100),
        });
        let queue = |index: usize, driver: &DriverRing| {
            let device = DeviceRing::new(memory, &driver.layout(), features, options.base);
            let mut device = device.expect("the driver's ring fits the device");
            device.set_log(log.clone());
            Arc::new(Queue::new(index, device, 0, None, None))
        };
        let link = Link {
            counters: Arc::new(Counters::new(1)),
            memory: memory.clone(),
            to_guest: vec![queue(0, &receive)],
            from_guest: vec![Some(Source {
                queue: queue(1, &transmit),
                discard: offloads & 0xe0 == 0xe0,
            })],
            header_len: if bit(4) { 10 } else { 12 },
            mergeable: bit(5) && !bit(4),
            takes: Offloads::default(),
            asks: Offloads {
                csum: offloads & 1 != 0,
                tso4: offloads & 3 == 3,
                tso6: offloads & 5 == 5,
                ecn: offloads & 9 == 9,
                uso: offloads & 17 == 17,
            },
            mtu: None,
        };
        Self {
            memory: memory.clone(),
            features,
            transmit,
            receive,
            link,
            offered: Vec::new(),
            next: RECEIVE,
            expected: VecDeque::new(),
            honest: true,
        }
    }

    /// Makes a chain available whose pieces lie anywhere among what may be sent, or across its end.
    fn send(&mut self, script: &mut Script<'_>) {
        let [shape] = script.bytes();
        let piece = |_| {
            let [kind, at, len] = script.bytes();
            let len = match kind & 3 {
                0 | 1 => u32::from(len),
                2 => u32::from(len) * 16,
                _ => u32::from(len) * 128,
            };
            let offset = u64::from(at) * if kind & 4 == 0 { 64 } else { 48 };
            (SEND + offset % SEND_BYTES, len)
        };
        let pieces: Vec<_> = (0..1 + shape % 12).map(piece).collect();
        let _ = self.transmit.add(&pieces, &[], shape & 0x80 != 0);
        self.transmit.publish();
        while let Ok(Some(_)) = self.transmit.pop_used() {}
    }

    /// Offers buffers that overlap none that are out.
    fn offer(&mut self, script: &mut Script<'_>) {
        let [shape] = script.bytes();
        if self.offered.is_empty() {
            self.next = RECEIVE;
        }
        let mut pieces = Vec::new();
        for _ in 0..1 + shape % 4 {
            let [len] = script.bytes();
            let len = u32::from(len) * if shape & 0x40 == 0 { 1 } else { 16 };
            if self.next + u64::from(len) > RECEIVE + RECEIVE_BYTES {
                break;
            }
            pieces.push((self.next, len));
            self.next += u64::from(len);
        }
        if let Ok(id) = self.receive.add(&[], &pieces, shape & 0x80 != 0) {
            self.offered.push((id, pieces));
        }
        self.receive.publish();
    }

    /// Writes a frame with its header where it may be sent from.
    fn write(&mut self, script: &mut Script<'_>) {
        let [kind, at, len, size] = script.bytes();
        let frame = if kind & 1 == 0 {
            FrameBuilder::ipv4(Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST)
        } else {
            FrameBuilder::ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED)
        };
        let frame = if kind & 2 == 0 {
            frame.udp(1, 2)
        } else {
            frame.tcp(TcpFields::default(), &[])
        };
        let payload = vec![0x5a; usize::from(len) * 8];
        let (bytes, header) = if kind & 4 == 0 {
            frame.build_partial(&payload)
        } else {
            frame.build_gso(&payload, size.into())
        };
        let mut all = [&header.to_bytes()[..self.link.header_len], &bytes].concat();
        for _ in 0..kind >> 4 {
            let [at, value] = script.bytes();
            if let Some(byte) = all.get_mut(usize::from(at % 64)) {
                *byte = value;
            }
        }
        let offset = u64::from(at) * 64 % SEND_BYTES;
        all.truncate(usize::try_from(SEND_BYTES - offset).unwrap_or(0));
        poke(&self.memory, SEND + offset, &all);
    }

    /// Any bytes anywhere in the rings and their tables.
    fn lie(&mut self, script: &mut Script<'_>) {
        let [kind, high, low] = script.bytes();
        let bytes = script.bytes::<8>();
        let at = u64::from(high) << 8 | u64::from(low);
        // Most often where descriptors and indices of small rings are.
        let at = match kind & 3 {
            0 => at % RINGS,
            1 => at % 0x200,
            _ => RING_BYTES + at % 0x200,
        };
        let len = (1 + usize::from(kind >> 5)).min(usize::try_from(RINGS - at).unwrap_or(0));
        self.honest = false;
        poke(&self.memory, at, &bytes[..len]);
    }

    /// What a worker does with a queue that has nothing.
    fn rest(&mut self, how: u8) {
        match how % 4 {
            0 => self.link.settle(0),
            1 => {
                self.link.arm(0);
            }
            2 => self.link.disarm(0),
            _ => {
                self.link.is_waiting(0);
            }
        }
        if how & 0x80 == 0 {
            self.transmit.disable_calls();
        } else {
            self.transmit.enable_calls();
        }
    }

    /// The front-end stops the transmit ring and starts it where it stood, which also ends a fault.
    fn restart(&mut self) {
        let Some(Some(Source { queue, discard })) = self.link.from_guest.pop() else {
            return;
        };
        let base = RingBase::from_vhost(queue.retire().to_vhost(), self.features.packed);
        let layout = self.transmit.layout();
        let device = DeviceRing::new(&self.memory, &layout, self.features, base);
        let device = device.expect("it stood there before");
        let queue = Arc::new(Queue::new(1, device, base.to_vhost(), None, None));
        self.link.from_guest = vec![Some(Source { queue, discard })];
    }

    /// Compares what came back with what was delivered.
    fn collect(&mut self) {
        let header_len = self.link.header_len;
        while self.honest
            && let Some(frame) = self.expected.pop_front()
        {
            let mut found = Vec::new();
            let mut chains = 0;
            while found.len() < header_len + frame.len() - vnet_hdr::LEN {
                let used = self.receive.pop_used().expect("an honest device");
                let used = used.expect("as many buffers as the frame takes");
                let at = self.offered.iter().position(|(id, _)| *id == used.id);
                let (_, pieces) = self.offered.remove(at.expect("what was offered"));
                let mut left = used.len as usize;
                for (address, len) in pieces {
                    let len = left.min(len as usize);
                    found.extend(peek(&self.memory, address, len));
                    left -= len;
                }
                assert_eq!(left, 0, "no more than there is room for");
                chains += 1;
            }
            let mut header = frame[..vnet_hdr::LEN].to_vec();
            header[vnet_hdr::LEGACY_LEN..].copy_from_slice(&u16::to_le_bytes(chains));
            assert!(chains == 1 || self.link.mergeable);
            let wanted = [&header[..header_len], &frame[vnet_hdr::LEN..]].concat();
            assert!(found == wanted, "the frame that was delivered");
        }
        if !self.honest {
            self.expected.clear();
            while let Ok(Some(used)) = self.receive.pop_used() {
                self.offered.retain(|(id, _)| *id != used.id);
            }
        }
    }
}

fn poke(memory: &GuestMemory, mut address: u64, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let len = u32::try_from(bytes.len()).expect("few bytes");
        let slice = memory.write_prefix(address, len).expect("in the guest");
        let done = slice.copy_from(bytes);
        bytes = &bytes[done..];
        address += done as u64;
    }
}

fn peek(memory: &GuestMemory, address: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let slice = memory.read_prefix(address, u32::try_from(len).expect("few bytes"));
    assert_eq!(slice.expect("in the guest").copy_to(&mut bytes), len);
    bytes
}

/// An input, read from its front; zeroes after its end.
struct Script<'i>(&'i [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        [(); N].map(|()| self.byte().unwrap_or(0))
    }
}
