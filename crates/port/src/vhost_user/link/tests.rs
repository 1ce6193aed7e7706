use ringway_ring::{DriverOptions, DriverRing, RingBase, RingFeatures, Used};

use super::gather::PLAIN;
use super::*;
use crate::Heads;
use crate::burst::{HEAD_FRAME, MAX_FRAME, MIN_FRAME};
use ringway_wire::VnetHeader;

mod checks;

/// Guest addresses: rings below, then what the guest sends, then its buffers.
const TRANSMIT: u64 = 0x4_0000;
const RECEIVE: u64 = 0x8_0000;
const END: usize = 0x10_0000;

/// The driver's side of a guest and the link to it.
struct Guest {
    memory: Arc<GuestMemory>,
    transmit: DriverRing,
    receive: DriverRing,
    link: Link,
}

/// What is negotiated.
#[derive(Clone, Copy)]
struct Kind {
    header_len: usize,
    mergeable: bool,
}

const MODERN: Kind = Kind {
    header_len: 12,
    mergeable: true,
};
const WHOLE: Kind = Kind {
    header_len: 12,
    mergeable: false,
};
const LEGACY: Kind = Kind {
    header_len: 10,
    mergeable: false,
};

fn guest(memory: GuestMemory, kind: Kind) -> Guest {
    guest_with(memory, kind, false)
}

fn guest_with(memory: GuestMemory, kind: Kind, packed: bool) -> Guest {
    let memory = Arc::new(memory);
    let options = DriverOptions {
        size: 256,
        features: RingFeatures {
            packed,
            ..RingFeatures::default()
        },
        base: RingBase::start(packed),
        table: 0,
    };
    let ring = |index: usize| {
        let at = 0x2_0000 * index as u64;
        let driver = DriverRing::new(&memory, at, options).unwrap();
        let device = DeviceRing::new(&memory, &driver.layout(), options.features, options.base);
        let queue = Queue::new(index, device.unwrap(), 0, None, None);
        (driver, Arc::new(queue))
    };
    let ((receive, to_guest), (transmit, from_guest)) = (ring(0), ring(1));
    let link = Link {
        counters: Arc::new(Counters::new(1)),
        memory: memory.clone(),
        from_guest: vec![Some(Source {
            queue: from_guest,
            discard: false,
        })],
        to_guest: vec![to_guest],
        header_len: kind.header_len,
        mergeable: kind.mergeable,
        takes: Offloads::default(),
        asks: Offloads::default(),
        mtu: None,
    };
    Guest {
        memory,
        transmit,
        receive,
        link,
    }
}

fn heap(kind: Kind) -> Guest {
    guest(GuestMemory::heap(&[(0, END)]), kind)
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

impl Guest {
    /// Sends `header` and `frame` in pieces of these lengths and the rest.
    fn send(&mut self, header: &[u8], frame: &[u8], cuts: impl IntoIterator<Item = usize>) {
        let bytes = [header, frame].concat();
        let len = u32::try_from(bytes.len()).unwrap();
        let target = self.memory.write_prefix(TRANSMIT, len).unwrap();
        assert_eq!(target.copy_from(&bytes), bytes.len());
        let mut pieces = Vec::new();
        let (mut at, mut left) = (TRANSMIT, bytes.len());
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let cut = cut.min(left);
            pieces.push((at, narrow(cut)));
            at += cut as u64;
            left -= cut;
        }
        self.transmit.add(&pieces, &[], false).unwrap();
        self.transmit.publish();
    }

    /// Offers a chain of buffers: guest address and length.
    fn offer(&mut self, pieces: &[(u64, u32)]) {
        self.receive.add(&[], pieces, false).unwrap();
        self.receive.publish();
    }

    fn used(&mut self) -> Vec<Used> {
        std::iter::from_fn(|| self.receive.pop_used().unwrap()).collect()
    }

    fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let slice = self.memory.read_prefix(at, narrow(len)).unwrap();
        assert_eq!(slice.copy_to(&mut bytes), len);
        bytes
    }

    fn drops(&self) -> Vec<(DropReason, u64)> {
        self.link.counters.drops().collect()
    }
}

/// A burst of private frames of these lengths.
fn burst<'m>(heads: &'m mut Heads, frames: &'m [Vec<u8>]) -> Burst<'m> {
    let mut burst = Burst::new(heads);
    for frame in frames {
        assert!(burst.push_private(&PLAIN, frame));
    }
    burst
}

#[test]
fn a_frame_is_the_same_however_its_chain_is_cut() {
    for kind in [MODERN, LEGACY] {
        let mut guest = heap(kind);
        let header = vec![0; kind.header_len];
        let mut heads = Heads::new();
        for len in [14, 60, 127, 128, 129, 140, 1500] {
            let frame = pattern(len);
            let total = kind.header_len + len;
            let halves = (0..=total.min(150)).map(|cut| vec![cut]);
            let crumbs = [1, 5, 12, 64].map(|piece| vec![piece; (total / piece).min(100)]);
            let empty = [vec![0, 0, 12, 0, 0], vec![0, 3, 0, 9, 0, 128, 0]];
            for cuts in halves.chain(crumbs).chain(empty) {
                guest.send(&header, &frame, cuts.iter().copied());
                let mut burst = Burst::new(&mut heads);
                assert_eq!(guest.link.receive(0, 32, &mut burst), Ok(1));
                let mut bytes = vec![0; len];
                assert_eq!(burst.copy_frame(0, &mut bytes), len, "{cuts:?}");
                assert!(bytes == frame, "{len} {cuts:?}");
                assert_eq!(burst.head_bytes(0), &frame[..len.min(HEAD_FRAME)]);
                assert_eq!((burst.heads[0].vnet(), burst.offloaded), (&PLAIN, 0));
                guest.link.release(0, &mut burst).unwrap();
                assert!(guest.transmit.pop_used().unwrap().is_some());
            }
        }
        assert_eq!(guest.drops(), []);
    }
}

#[test]
fn what_is_no_frame_is_counted_and_returned() {
    let mut guest = heap(MODERN);
    let mut heads = Heads::new();
    let lengths = [
        (0, 1),
        (0, 11),
        (12, 0),
        (12, 13),
        (12, 14),
        (12, MAX_FRAME),
        (12, MAX_FRAME + 1),
    ];
    for (header, len) in lengths {
        guest.send(&vec![0; header], &pattern(len), []);
    }
    let mut burst = Burst::new(&mut heads);
    assert_eq!(guest.link.receive(0, 32, &mut burst), Ok(7));
    assert_eq!((burst.frames.len(), burst.refused), (2, 5));
    guest.link.release(0, &mut burst).unwrap();
    let back = std::iter::from_fn(|| guest.transmit.pop_used().unwrap());
    assert_eq!(back.count(), 7);
    assert_eq!(
        guest.drops(),
        [(DropReason::TooShort, 4), (DropReason::TooLong, 1)]
    );
    let received = &guest.link.counters.queues[0].received;
    assert_eq!(
        (received.frames(), received.bytes()),
        (2, 14 + MAX_FRAME as u64)
    );
}

#[test]
fn a_disabled_ring_is_emptied_and_a_failed_one_left_alone() {
    let mut guest = heap(MODERN);
    let mut heads = Heads::new();
    let Some(Some(source)) = guest.link.from_guest.get_mut(0) else {
        unreachable!()
    };
    source.discard = true;
    guest.send(&[0; 12], &pattern(60), []);
    let mut emptied = Burst::new(&mut heads);
    assert_eq!(guest.link.receive(0, 32, &mut emptied), Ok(1));
    assert_eq!((emptied.frames.len(), emptied.refused), (0, 1));
    guest.link.release(0, &mut emptied).unwrap();
    assert_eq!(guest.drops(), [(DropReason::RingDisabled, 1)]);

    guest.transmit.add(&[(END as u64, 60)], &[], false).unwrap();
    guest.transmit.publish();
    let mut heads = Heads::new();
    let mut broken = Burst::new(&mut heads);
    let fault = guest.link.receive(0, 32, &mut broken).unwrap_err();
    assert!(matches!(fault, Fault::Ring { ring: 1, .. }), "{fault}");
    assert_eq!(guest.link.receive(0, 32, &mut broken), Ok(0));
    assert!(!guest.link.arm(0), "nothing to wait for");
}

#[test]
fn a_frame_fills_one_buffer_or_several_to_the_brim() {
    let frames: Vec<_> = [14, 60, 128, 129, 500, 1500].map(pattern).into();
    let mut heads = Heads::new();
    // Buffers at every place in a cache line, cut or not, of one length or another.
    for kind in [MODERN, WHOLE, LEGACY] {
        for offset in (0..64).chain([100, 1000]) {
            for pieces in 1..4 {
                let mut guest = heap(kind);
                let sent = burst(&mut heads, &frames);
                let room = if kind.mergeable { 200 } else { 1600 };
                let chain: Vec<_> = (0..pieces)
                    .map(|piece| (piece * 1000 + offset, room / u32::try_from(pieces).unwrap()))
                    .collect();
                let place = |n: u64, &(at, len): &(u64, u32)| (RECEIVE + n * 4096 + at, len);
                let chain = |n: u64| {
                    chain
                        .iter()
                        .map(|piece| place(n, piece))
                        .collect::<Vec<_>>()
                };
                for n in 0..40 {
                    guest.offer(&chain(n));
                }
                let outcome = guest.link.send(0, &sent, sent.all());
                assert_eq!((outcome.delivered, outcome.reason), (sent.all(), None));
                assert_eq!(outcome.copied, sent.bytes);
                let used = guest.used();
                let mut n = 0;
                for frame in &frames {
                    let mut bytes = Vec::new();
                    while bytes.len() < kind.header_len + frame.len() {
                        let mut left = used[n].len as usize;
                        for (at, len) in chain(n as u64) {
                            let len = left.min(len as usize);
                            bytes.extend(guest.read(at, len));
                            left -= len;
                        }
                        n += 1;
                    }
                    let count = bytes
                        .len()
                        .div_ceil(chain(0).iter().map(|p| p.1 as usize).sum());
                    let mut header = PLAIN;
                    header[10] = u8::try_from(count).unwrap();
                    assert_eq!(bytes[..kind.header_len], header[..kind.header_len]);
                    assert!(bytes[kind.header_len..] == *frame);
                }
                assert_eq!(n, used.len());
            }
        }
    }
}

#[test]
fn a_shortage_leaves_the_ring_as_if_the_frame_had_never_come() {
    let mut guest = heap(MODERN);
    let mut heads = Heads::new();
    let frames: Vec<_> = [300, 700, 100].map(pattern).into();
    for n in 0..3 {
        guest.offer(&[(RECEIVE + n * 4096, 256)]);
    }
    let sent = burst(&mut heads, &frames);
    // Two buffers, three that are not there, one.
    let outcome = guest.link.send(0, &sent, sent.all());
    assert_eq!(
        (outcome.delivered, outcome.reason),
        (0b101, Some(DropReason::NoBuffers))
    );
    assert_eq!(outcome.copied, 400);
    let lengths: Vec<_> = guest.used().iter().map(|used| used.len).collect();
    assert_eq!(lengths, [256, 56, 112]);
    // Nothing is left: nothing is published, nothing called.
    let outcome = guest.link.send(0, &sent, 0b100);
    assert_eq!(
        (outcome.delivered, outcome.reason),
        (0, Some(DropReason::NoBuffers))
    );
    assert_eq!(guest.used(), []);
    let counters = &guest.link.counters.queues[0].sent;
    assert_eq!(
        (counters.frames(), counters.bytes(), counters.calls()),
        (2, 400, 1)
    );
}

#[test]
fn only_the_picked_frames_are_sent() {
    let mut guest = heap(MODERN);
    let mut heads = Heads::new();
    let frames: Vec<_> = (0..10).map(|n| pattern(60 + n)).collect();
    for n in 0..10 {
        guest.offer(&[(RECEIVE + n * 4096, 2048)]);
    }
    let sent = burst(&mut heads, &frames);
    let outcome = guest.link.send(0, &sent, 0b10_0100_0010);
    assert_eq!(outcome.delivered, 0b10_0100_0010);
    for (n, (used, frame)) in guest.used().iter().zip([1, 6, 9]).enumerate() {
        assert_eq!(used.len as usize, 12 + frames[frame].len());
        let at = RECEIVE + n as u64 * 4096 + 12;
        assert_eq!(guest.read(at, frames[frame].len()), frames[frame]);
    }
}

#[test]
fn a_hold_is_bounded_but_never_empty() {
    let mut heads = Heads::new();
    let small: Vec<_> = (0..64).map(|_| pattern(100)).collect();
    let sent = burst(&mut heads, &small);
    assert_eq!(portion(&sent, u64::MAX), u64::MAX);
    assert_eq!(portion(&sent, 0b1010), 0b1010);
    let large: Vec<_> = (0..5).map(|_| pattern(30_000)).collect();
    let mut heads = Heads::new();
    let sent = burst(&mut heads, &large);
    let mut rest = 0b11101;
    for hold in [0b101, 0b11000] {
        assert_eq!(portion(&sent, rest), hold);
        rest &= !hold;
    }
    assert_eq!(rest, 0);
    let longest = [pattern(MAX_FRAME), pattern(60), pattern(MAX_FRAME)];
    let mut heads = Heads::new();
    let sent = burst(&mut heads, &longest);
    assert_eq!(portion(&sent, 0b111), 0b001);
    assert_eq!(portion(&sent, 0b110), 0b010);
}

#[test]
fn nothing_of_memory_that_disappeared_is_published() {
    ringway_mem::sigbus::install().unwrap();
    let (memory, regions) = GuestMemory::memfd(&[(0, END)]).unwrap();
    let mut source = guest(memory, MODERN);
    let mut sound = heap(MODERN);
    sound.offer(&[(RECEIVE, 2048)]);
    source.send(&[0; 12], &pattern(1000), []);
    let mut heads = Heads::new();
    let mut burst = Burst::new(&mut heads);
    assert_eq!(source.link.receive(0, 32, &mut burst), Ok(1));
    rustix::fs::ftruncate(&regions[0].file, 0x4_0000).unwrap();
    let outcome = sound.link.send(0, &burst, 1);
    assert_eq!((outcome.delivered, outcome.copied), (0, 0));
    assert_eq!(
        (outcome.reason, outcome.fault),
        (Some(DropReason::Fault), None)
    );
    assert_eq!(sound.used(), [], "the receiver sees nothing");
    let fault = source.link.release(0, &mut burst);
    assert_eq!(fault, Err(Fault::MemoryLost { ring: 1 }));
    assert_eq!(
        source
            .link
            .receive(0, 32, &mut Burst::new(&mut Heads::new())),
        Ok(0)
    );
    // The receiver goes on with the buffer that was not used.
    let frames = [pattern(90)];
    let mut heads = Heads::new();
    let mut next = Burst::new(&mut heads);
    assert!(next.push_private(&PLAIN, &frames[0]));
    assert_eq!(sound.link.send(0, &next, 1).delivered, 1);
    assert_eq!(sound.read(RECEIVE + 12, 90), frames[0]);
}

#[test]
fn a_ring_whose_memory_disappeared_neither_lies_nor_is_empty() {
    ringway_mem::sigbus::install().unwrap();
    for sent in 0..2 {
        let (memory, regions) = GuestMemory::memfd(&[(0, END)]).unwrap();
        let mut source = guest(memory, MODERN);
        for _ in 0..sent {
            source.send(&[0; 12], &pattern(100), []);
            let mut heads = Heads::new();
            let mut burst = Burst::new(&mut heads);
            assert_eq!(source.link.receive(0, 32, &mut burst), Ok(1));
            source.link.release(0, &mut burst).unwrap();
        }
        // The index that is read now is 0: as if the driver had gone back, or had sent nothing.
        rustix::fs::ftruncate(&regions[0].file, 0).unwrap();
        let mut heads = Heads::new();
        let taken = source.link.receive(0, 32, &mut Burst::new(&mut heads));
        assert_eq!(taken, Err(Fault::MemoryLost { ring: 1 }));
        let counted = source.link.counters.faults().into_iter();
        assert_eq!(counted.collect::<Vec<_>>(), [("memory_lost", 1)]);
    }
}

#[test]
fn a_ring_that_was_given_up_is_left_alone_by_who_is_stuck_in_it() {
    for packed in [false, true] {
        let mut guest = guest_with(GuestMemory::heap(&[(0, END)]), MODERN, packed);
        guest.offer(&[(RECEIVE, 2048)]);
        let frames = [pattern(90), pattern(80)];
        for frame in &frames {
            guest.send(&[0; 12], frame, []);
        }
        let mut heads = Heads::new();
        let mut burst = Burst::new(&mut heads);
        assert_eq!(guest.link.receive(0, 32, &mut burst), Ok(2));
        // A worker is stuck here, while the rings are given up and go to other queues.
        let source = guest.link.from_guest[0].as_ref().unwrap().queue.clone();
        assert_eq!(source.retire(), RingBase::start(packed));
        assert_eq!(guest.link.to_guest[0].retire(), RingBase::start(packed));
        let kicks = |link: &Link| (link.arm(0), link.is_waiting(0));
        // Then it goes on.
        assert_eq!(guest.link.release(0, &mut burst), Ok(()));
        guest.link.settle(0);
        assert_eq!(kicks(&guest.link), (false, false));
        let mut more = Heads::new();
        let mut next = Burst::new(&mut more);
        assert_eq!(guest.link.receive(0, 32, &mut next), Ok(0));
        assert!(next.push_private(&PLAIN, &frames[0]));
        let sent = guest.link.send(0, &next, 1);
        assert_eq!((sent.delivered, sent.fault), (0, None));
        assert_eq!(sent.reason, Some(DropReason::NotConnected));
        drop((burst, next));
        assert_eq!(guest.used(), []);
        assert_eq!(guest.transmit.pop_used(), Ok(None));
        // Nothing of it is missing for whoever serves them now.
        let features = RingFeatures {
            packed,
            ..RingFeatures::default()
        };
        let base = RingBase::start(packed);
        let layout = guest.transmit.layout();
        let mut again = DeviceRing::new(&guest.memory, &layout, features, base).unwrap();
        let mut batch = ringway_ring::ReadBatch::new();
        assert_eq!(again.take_readable(&guest.memory, &mut batch, 32), Ok(2));
    }
}
