//! Frames of any kind from and to guests of any kind arrive as they were sent, and are counted.

mod mock;

use std::collections::{BTreeMap, HashMap};

use mock::frames::{BROADCAST, frame, mac, tagged};
use mock::{Guest, Lab, Options, Shape, features};
use proptest::collection::vec;
use proptest::prelude::*;
use ringway_api::stats::Statistics;
use ringway_switch::Poll;
use ringway_wire::{MacAddress, VnetHeader};

/// A whole test: a switch, guests, and what they send in turn.
#[derive(Clone, Debug)]
struct Script {
    workers: usize,
    poll: Poll,
    guests: Vec<Options>,
    turns: Vec<(usize, Vec<Sending>)>,
}

/// A frame to be sent.
#[derive(Clone, Debug)]
struct Sending {
    from: Address,
    to: Address,
    len: usize,
    tags: Vec<u16>,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Address {
    /// Of the guest with this number, counted around.
    Guest(usize),
    Unknown,
    Broadcast,
    Multicast,
}

impl Address {
    fn mac(self, guests: usize) -> MacAddress {
        match self {
            Self::Guest(n) => mac(u8::try_from(n % guests).unwrap()),
            Self::Unknown => mac(200),
            Self::Broadcast => BROADCAST,
            Self::Multicast => MacAddress([0x01, 0, 0x5e, 0, 0, 1]),
        }
    }
}

fn script() -> impl Strategy<Value = Script> {
    const POLLS: [Poll; 4] = [Poll::Adaptive, Poll::Adaptive, Poll::Always, Poll::Never];
    let turns = vec((0..4usize, vec(sending(), 1..24)), 1..8);
    (
        1..3usize,
        prop::sample::select(&POLLS[..]),
        vec(guest(), 2..5),
        turns,
    )
        .prop_map(|(workers, poll, guests, turns)| Script {
            workers,
            poll,
            guests,
            turns,
        })
}

fn guest() -> impl Strategy<Value = Options> {
    const OPTIONAL: [u64; 4] = [
        features::EVENT,
        features::INDIRECT,
        features::IN_ORDER,
        features::PACKED,
    ];
    let optional = prop::sample::subsequence(&OPTIONAL[..], 0..=4);
    let sizes = prop::sample::select(&[8u16, 16, 64, 256, 1024][..]);
    let pieces = prop_oneof![
        2 => Just(Vec::new()),
        1 => Just(vec![12]),
        1 => vec(0..3000u32, 1..4),
    ];
    (optional, sizes, pieces, 0..3, 1100..5000u32).prop_map(
        |(optional, size, pieces, kind, small)| {
            let optional = optional.iter().sum::<u64>();
            // Packed rings have any number of descriptors.
            let size = if optional & features::PACKED == 0 {
                size
            } else {
                size - size / 5
            };
            // Merged buffers of any size, whole ones, or those of a legacy driver.
            let (kind, buffer) = match kind {
                0 => (features::BASE | features::MERGE, small),
                1 => (features::BASE, 65_600),
                _ => (features::LEGACY, 65_600),
            };
            let indirect = optional & features::INDIRECT != 0 && size < 512;
            Options {
                features: kind | optional,
                size,
                buffer,
                shape: Shape {
                    pieces,
                    indirect,
                    backwards: false,
                },
                buffers: 64,
                ..Options::default()
            }
        },
    )
}

fn sending() -> impl Strategy<Value = Sending> {
    let source = prop_oneof![
        30 => Just(None),
        2 => (0..4usize).prop_map(|n| Some(Address::Guest(n))),
        1 => Just(Some(Address::Multicast)),
    ];
    let to = prop_oneof![
        12 => (0..4usize).prop_map(Address::Guest),
        1 => Just(Address::Unknown),
        1 => Just(Address::Broadcast),
        1 => Just(Address::Multicast),
    ];
    let len = prop_oneof![
        1 => 0..14usize,
        12 => 14..200usize,
        8 => 200..1600usize,
        2 => 1600..10_000usize,
        1 => 10_000..65_536usize,
    ];
    let shape = (
        prop_oneof![
            Just(Vec::new()),
            Just(vec![12]),
            vec(0..90u32, 1..40),
            vec(0..4000u32, 1..5)
        ],
        any::<bool>(),
        any::<bool>(),
    );
    let tags = prop_oneof![4 => Just(Vec::new()), 1 => vec(1..4095u16, 1..3)];
    (source, to, len, tags, shape).prop_map(|(from, to, len, tags, shape)| {
        let (pieces, indirect, backwards) = shape;
        Sending {
            from: from.unwrap_or(Address::Guest(usize::MAX)),
            to,
            len,
            tags,
            shape: Shape {
                pieces,
                indirect,
                backwards,
            },
        }
    })
}

/// What a learning switch without policies does.
#[derive(Default)]
struct Model {
    learned: HashMap<MacAddress, usize>,
    attempted: u64,
    delivered: u64,
    copied: u64,
    /// Frames from each guest, and to each.
    from: Vec<u64>,
    to: Vec<u64>,
    drops: Vec<BTreeMap<String, u64>>,
}

impl Model {
    fn new(guests: usize) -> Self {
        Self {
            from: vec![0; guests],
            to: vec![0; guests],
            drops: vec![BTreeMap::new(); guests],
            ..Self::default()
        }
    }

    fn drop(&mut self, guest: usize, reason: &str) {
        *self.drops[guest].entry(reason.into()).or_default() += 1;
    }

    /// Guests a frame reaches, provided that they have room.
    fn judge(&mut self, source: usize, frame: &[u8]) -> Vec<usize> {
        self.attempted += 1;
        if frame.len() < 14 {
            self.drop(source, "too_short");
            return Vec::new();
        }
        self.from[source] += 1;
        let [to, from] = [0, 6].map(|at| MacAddress::from_first(&frame[at..]).unwrap());
        if from.is_multicast() {
            self.drop(source, "bad_source");
            return Vec::new();
        }
        self.learned.insert(from, source);
        let known = (!to.is_multicast()).then(|| self.learned.get(&to));
        match known.flatten() {
            Some(&guest) if guest == source => {
                self.drop(source, "same_port");
                Vec::new()
            }
            Some(&guest) => vec![guest],
            None => {
                self.attempted += self.from.len() as u64 - 2;
                (0..self.from.len()).filter(|&n| n != source).collect()
            }
        }
    }

    fn compare(&self, guests: &[Guest], statistics: &Statistics) {
        assert_eq!(statistics.attempted, self.attempted);
        assert_eq!(statistics.delivered, self.delivered);
        assert_eq!(statistics.copied_bytes, self.copied);
        let drops = self.drops.iter().flat_map(BTreeMap::values).sum::<u64>();
        assert_eq!(statistics.dropped, drops);
        for (n, (guest, port)) in guests.iter().zip(&statistics.ports).enumerate() {
            let queue = port.queues[0];
            assert_eq!(port.drops, self.drops[n], "guest {n}");
            assert_eq!(queue.rx_frames, self.from[n], "from guest {n}");
            assert_eq!(queue.tx_frames, self.to[n], "to guest {n}");
            assert_eq!(queue.tx_frames, guest.received);
            assert_eq!(queue.tx_bytes, guest.received_bytes);
        }
        let bytes: u64 = guests.iter().map(|guest| guest.received_bytes).sum();
        assert_eq!(statistics.copied_bytes, bytes);
    }
}

/// Buffers that a frame takes of a guest with these options.
fn buffers(options: &Options, frame: &[u8]) -> usize {
    if options.features & features::MERGE == 0 {
        1
    } else {
        (12 + frame.len()).div_ceil(options.buffer as usize)
    }
}

fn run(script: &Script) {
    let Script {
        workers,
        poll,
        guests,
        turns,
    } = script;
    let names: Vec<_> = (0..guests.len()).map(|n| format!("g{n}")).collect();
    let ports: Vec<_> = names.iter().map(String::as_str).collect();
    let lab = Lab::with(*workers, *poll, &ports);
    let mut guests: Vec<_> = names
        .iter()
        .zip(guests)
        .map(|(name, options)| lab.guest(name, options.clone()))
        .collect();
    let room: Vec<_> = guests.iter().map(|guest| guest.buffers()).collect();
    let mut model = Model::new(guests.len());
    let mut seed = 0;
    for (source, sendings) in turns {
        let source = source % guests.len();
        let mut expected = vec![Vec::new(); guests.len()];
        let mut taken = vec![0; guests.len()];
        for sending in sendings {
            seed += 1;
            let bytes = sending.frame(source, guests.len(), seed);
            let needed: Vec<_> = guests
                .iter()
                .map(|guest| buffers(&guest.options, &bytes))
                .collect();
            let fits =
                (0..guests.len()).all(|n| taken[n] + needed[n] <= room[n] || needed[n] > room[n]);
            if !fits {
                collect(&mut guests, &mut expected, source);
                taken.fill(0);
            }
            for to in model.judge(source, &bytes) {
                if needed[to] > room[to] {
                    model.drop(to, "no_buffers");
                    continue;
                }
                taken[to] += needed[to];
                model.delivered += 1;
                model.copied += bytes.len() as u64;
                model.to[to] += 1;
                expected[to].push((bytes.clone(), needed[to]));
            }
            let shape = sending.shape(&guests[source].options);
            guests[source].stage(0, VnetHeader::default(), &bytes, &shape);
        }
        collect(&mut guests, &mut expected, source);
        model.compare(&guests, &lab.settled(model.attempted));
    }
}

/// Has everything that was staged sent, and takes what arrives. Between two addresses frames stay
/// in order (IEEE 802.1Q, 6.5.3); group frames may be overtaken by others.
fn collect(guests: &mut [Guest], expected: &mut [Vec<(Vec<u8>, usize)>], source: usize) {
    guests[source].queues[1].publish();
    guests[source].drain();
    for (guest, expected) in guests.iter_mut().zip(expected) {
        while !expected.is_empty() {
            let received = guest.receive();
            let next = expected
                .iter()
                .position(|(frame, _)| frame[..12] == received.frame[..12]);
            let (frame, buffers) = expected.remove(next.expect("a frame that was not sent"));
            assert!(received.frame == frame, "{} bytes", frame.len());
            assert_eq!(received.buffers, buffers);
            let plain = VnetHeader {
                num_buffers: received.header.num_buffers,
                ..VnetHeader::default()
            };
            assert_eq!(received.header, plain);
        }
        assert_eq!(guest.try_receive(), None);
    }
}

impl Sending {
    fn frame(&self, source: usize, guests: usize, seed: u64) -> Vec<u8> {
        let from = match self.from {
            Address::Guest(usize::MAX) => Address::Guest(source),
            other => other,
        };
        let whole = frame(
            from.mac(guests),
            self.to.mac(guests),
            self.len.max(14),
            seed,
        );
        if self.len < 14 {
            return whole[..self.len].to_vec();
        }
        self.tags
            .iter()
            .fold(whole, |frame, &vlan| tagged(&frame, vlan))
    }

    /// The shape, as far as the sender's ring allows it.
    fn shape(&self, options: &Options) -> Shape {
        let mut shape = self.shape.clone();
        shape.indirect &= options.features & features::INDIRECT != 0;
        let most = if shape.indirect { 64 } else { options.size };
        shape.pieces.truncate(usize::from(most) - 1);
        shape
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_arrive_as_they_were_sent_and_every_counter_agrees(script in script()) {
        run(&script);
    }
}

/// Guests 1 and 2 know each other's port.
fn introduce(a: &mut Guest, b: &mut Guest) {
    b.send(&frame(mac(2), BROADCAST, 60, 0));
    a.receive();
    a.send(&frame(mac(1), BROADCAST, 60, 0));
    b.receive();
}

/// Sends frames of these lengths at once from a guest to one with these options; all arrive.
fn burst_arrives(options: Options, lengths: &[usize]) {
    let lab = Lab::start(&["a", "b"]);
    let mut a = lab.guest("a", Options::default());
    let mut b = lab.guest("b", options);
    introduce(&mut a, &mut b);
    let frames: Vec<_> = (0..)
        .zip(lengths)
        .map(|(n, &len)| frame(mac(1), mac(2), len, n))
        .collect();
    for frame in &frames {
        a.stage(0, VnetHeader::default(), frame, &Shape::default());
    }
    a.queues[1].publish();
    for frame in &frames {
        assert!(b.receive().frame == *frame);
    }
    assert_eq!(lab.settled(frames.len() as u64 + 2).dropped, 0);
}

#[test]
fn a_large_frame_behind_many_small_ones_finds_the_buffers_there_are() {
    let mut lengths = vec![60; 30];
    lengths.push(60_000);
    let options = Options {
        buffer: 1526,
        ..Options::default()
    };
    burst_arrives(options, &lengths);
}

#[test]
fn a_burst_finds_the_buffers_there_are_however_finely_they_are_cut() {
    let options = Options {
        features: features::BASE | features::INDIRECT,
        buffer: 2048,
        shape: Shape {
            pieces: vec![40; 50],
            indirect: true,
            backwards: true,
        },
        ..Options::default()
    };
    burst_arrives(options, &[1500; 32]);
}
