//! A device that is killed, at every store of a publication, and the one that takes the ring up by the journal.

#![allow(clippy::cast_possible_truncation)]

use std::sync::Arc;

use ringway_mem::{GuestMemory, WordFile, Words};
use ringway_ring::{
    DeviceRing, DriverOptions, DriverRing, JOURNAL_WORDS, MAX_BATCH, ReadBatch, RingBase,
    RingFeatures, Stale, WriteBatch,
};

/// Where the ring lies, and buffers.
const RING: u64 = 0x1000;
const BUFFERS: u64 = 0x10_0000;
const END: usize = 0x20_0000;

struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % limit
    }

    fn size(&mut self, limit: u16) -> usize {
        usize::try_from(self.below(limit.into())).unwrap()
    }
}

/// What a kill leaves behind.
#[derive(Clone)]
struct Remains {
    ring: Vec<u8>,
    words: Vec<u64>,
}

struct Scene {
    memory: Arc<GuestMemory>,
    options: DriverOptions,
    driver: DriverRing,
    words: Words,
    device: DeviceRing,
    /// By chain: what the device last said it wrote to it.
    written: Vec<Option<u32>>,
    sent: usize,
    returned: usize,
}

fn words() -> Words {
    let (_, mut files) = GuestMemory::memfd(&[(0, 4096)]).unwrap();
    let file = files.pop().unwrap().file;
    Arc::new(WordFile::map(file, JOURNAL_WORDS).unwrap()).words(0, JOURNAL_WORDS)
}

fn features(in_order: bool, event_idx: bool) -> RingFeatures {
    RingFeatures {
        packed: true,
        event_idx,
        indirect: false,
        in_order,
    }
}

impl Scene {
    fn new(size: u16, features: RingFeatures) -> Self {
        let memory = Arc::new(GuestMemory::heap(&[(0, END)]));
        let options = DriverOptions {
            size,
            features,
            base: RingBase::start(true),
            table: 0,
        };
        let driver = DriverRing::new(&memory, RING, options).unwrap();
        let words = words();
        let mut device =
            DeviceRing::new(&memory, &driver.layout(), features, driver.base()).unwrap();
        device.keep_journal(words.clone());
        Self {
            memory,
            options,
            driver,
            words,
            device,
            written: vec![None; usize::from(size)],
            sent: 0,
            returned: 0,
        }
    }

    /// A chain of `count` buffers.
    fn add(&mut self, count: usize, writable: bool) -> bool {
        let buffers: Vec<_> = (0..count as u64).map(|i| (BUFFERS + i * 64, 64)).collect();
        let (readable, written): (&[_], &[_]) = if writable {
            (&[], &buffers)
        } else {
            (&buffers, &[])
        };
        let added = self.driver.add(readable, written, false);
        if let Ok(id) = added {
            assert_eq!(self.written[usize::from(id)], None, "chain {id} is out");
            self.sent += 1;
        }
        added.is_ok()
    }

    /// The device returns up to `count` chains and is killed, or not.
    fn serve(&mut self, count: usize, writable: bool, numbers: &mut Numbers) -> usize {
        let memory = self.memory.clone();
        let (mut readable, mut buffers) = (ReadBatch::new(), WriteBatch::new());
        let chains = if writable {
            self.device
                .take_writable(&memory, &mut buffers, count)
                .unwrap();
            &mut buffers.chains
        } else {
            self.device
                .take_readable(&memory, &mut readable, count)
                .unwrap();
            &mut readable.chains
        };
        let mut said = Vec::new();
        for chain in chains.iter_mut() {
            if writable {
                chain.written = u32::try_from(1 + numbers.below(60)).unwrap();
            }
            said.push((chain.id, chain.written));
        }
        let chains = chains.clone();
        let before = self.remains();
        // As a port does: at most a batch, in one or two goes.
        let (first, second) = chains.split_at(numbers.below(chains.len() as u64 + 1) as usize);
        self.device.complete(first);
        self.device.complete(second);
        self.device.publish();
        if numbers.below(2) == 0 {
            for (id, written) in said {
                self.written[usize::from(id)] = Some(written);
            }
            return 0;
        }
        let steps = self.steps(&before);
        let step = numbers.below(steps.len() as u64) as usize;
        let (announced, remains) = &steps[step];
        if *announced {
            for (id, written) in said {
                self.written[usize::from(id)] = Some(written);
            }
        }
        self.leave(remains);
        // Meanwhile the driver goes on.
        if numbers.below(2) == 0 {
            self.add(1, writable);
            self.driver.publish();
            self.reap();
        }
        self.recover().unwrap();
        1
    }

    /// The device returns `count` chains at once.
    fn publish(&mut self, count: usize) {
        let mut batch = ReadBatch::new();
        let taken = self
            .device
            .take_readable(&self.memory, &mut batch, count)
            .unwrap();
        assert_eq!(taken, count);
        self.device.complete(&batch.chains);
        self.device.publish();
    }

    /// Every state on the way from `before` to now, and whether the publication is in the journal as a whole.
    fn steps(&self, before: &Remains) -> Vec<(bool, Remains)> {
        let after = self.remains();
        let mut now = before.clone();
        let mut steps = vec![(false, now.clone())];
        for index in (1..JOURNAL_WORDS).chain([0]) {
            if now.words[index] != after.words[index] {
                now.words[index] = after.words[index];
                steps.push((index == 0, now.clone()));
            }
        }
        // Second words of descriptors. That of the first is written last.
        let first = usize::from(after.words[0].to_le_bytes()[2])
            | usize::from(after.words[0].to_le_bytes()[3] & 0x7f) << 8;
        let descriptors = usize::from(self.options.size);
        for index in (1..=descriptors).map(|i| (first + i) % descriptors) {
            let word = 16 * index + 8..16 * index + 16;
            if now.ring[word.clone()] != after.ring[word.clone()] {
                now.ring[word.clone()].copy_from_slice(&after.ring[word]);
                steps.push((true, now.clone()));
            }
        }
        assert_eq!(now.ring[..16 * descriptors], after.ring[..16 * descriptors]);
        steps
    }

    fn ring_bytes(&self) -> u32 {
        u32::try_from(DriverRing::bytes(&self.options)).unwrap()
    }

    fn remains(&self) -> Remains {
        let mut ring = vec![0; self.ring_bytes() as usize];
        let slice = self.memory.read_prefix(RING, self.ring_bytes()).unwrap();
        slice.copy_to(&mut ring);
        let words = (0..JOURNAL_WORDS).map(|i| self.words.load(i)).collect();
        Remains { ring, words }
    }

    fn leave(&self, remains: &Remains) {
        let slice = self.memory.write_prefix(RING, self.ring_bytes()).unwrap();
        slice.copy_from(&remains.ring);
        for (index, &word) in remains.words.iter().enumerate() {
            self.words.store(index, word);
        }
    }

    fn recover(&mut self) -> Result<(), Stale> {
        let (layout, features) = (self.driver.layout(), self.options.features);
        self.device =
            DeviceRing::recover(&self.memory, &layout, features, self.words.clone()).unwrap()?;
        self.device.publish();
        Ok(())
    }

    /// The driver takes back what was returned: every chain once, with what was said.
    fn reap(&mut self) {
        while let Some(used) = self.driver.pop_used().unwrap() {
            let said = self.written[usize::from(used.id)].take();
            assert_eq!(said, Some(used.len), "chain {}", used.id);
            self.returned += 1;
        }
    }
}

#[test]
fn killed_at_any_store_the_ring_goes_on_where_it_was() {
    let mut kills = 0;
    for seed in 0..400 {
        let mut numbers = Numbers(seed);
        let size = [1, 2, 3, 5, 8, 64, 256][numbers.size(7)];
        let writable = numbers.below(2) == 0;
        let features = features(numbers.below(2) == 0, numbers.below(2) == 0);
        let longest = if numbers.below(2) == 0 {
            1
        } else {
            4.min(size)
        };
        let mut scene = Scene::new(size, features);
        for _ in 0..60 {
            for _ in 0..numbers.below(80) {
                scene.add(1 + numbers.size(longest), writable);
            }
            scene.driver.publish();
            let count = 1 + numbers.size(MAX_BATCH as u16);
            kills += scene.serve(count, writable, &mut numbers);
            if numbers.below(3) > 0 {
                scene.reap();
            }
        }
        // All that is out comes back.
        while scene.returned < scene.sent {
            let before = scene.returned;
            scene.serve(MAX_BATCH, writable, &mut numbers);
            scene.serve(MAX_BATCH, writable, &mut numbers);
            scene.reap();
            assert!(scene.returned > before || kills > 0);
        }
    }
    println!("{kills} kills");
    assert!(kills > 5_000);
}

/// A ring that returned `turns` times a chain of each of these lengths.
fn used(size: u16, in_order: bool, lengths: &[usize], turns: usize) -> Scene {
    let mut scene = Scene::new(size, features(in_order, false));
    let mut numbers = Numbers(0);
    for _ in 0..turns {
        for &length in lengths {
            scene.add(length, false);
        }
        scene.driver.publish();
        while scene.serve(MAX_BATCH, false, &mut numbers) > 0 {}
        scene.reap();
    }
    scene
}

#[test]
fn a_driver_that_was_reset_is_not_taken_for_the_one_before() {
    for size in 1..=6 {
        for in_order in [false, true] {
            for lengths in [&[1][..], &[2], &[1, 2], &[3, 1]] {
                if lengths.iter().sum::<usize>() > usize::from(size) {
                    continue;
                }
                for turns in 1..=2 * usize::from(size) {
                    for filled in 0..=size {
                        let mut scene = used(size, in_order, lengths, turns);
                        // In the same place: all is cleared, and some buffers are available.
                        scene.driver = DriverRing::new(&scene.memory, RING, scene.options).unwrap();
                        scene.written.fill(None);
                        for _ in 0..filled {
                            assert!(scene.add(1, false));
                        }
                        scene.driver.publish();
                        assert_eq!(scene.recover(), Err(Stale::Cleared));
                    }
                }
            }
        }
    }
}

/// As after a snapshot of the guest was loaded: trace and all are there, and from another time.
#[test]
fn a_ring_of_another_time_contradicts() {
    for size in [2, 4, 7, 64] {
        let lap = usize::from(size);
        for (then, now) in [
            (1, 2),
            (0, lap - 1),
            (lap, lap + 1),
            (1, lap),
            (lap - 1, 2 * lap - 1),
        ] {
            let older = used(size, false, &[1], then).remains();
            let mut scene = used(size, false, &[1], now);
            let words = scene.remains().words;
            scene.leave(&Remains {
                words,
                ring: older.ring,
            });
            let recovered = scene.recover();
            assert!(
                matches!(recovered, Err(Stale::Contradicted { .. } | Stale::Cleared)),
                "{size} descriptors, {now} and then {then}: {recovered:?}"
            );
        }
    }
}

#[test]
fn words_that_are_no_record_are_refused() {
    let mut scene = used(8, false, &[1], 3);
    for word in [0, u64::MAX, 1 << 48 | 9, 0xffff << 48, 1 << 48 | 8 << 32] {
        scene.words.store(0, word);
        let recovered = scene.recover();
        assert!(
            matches!(recovered, Err(Stale::Nothing | Stale::Record)),
            "{word:#x}: {recovered:?}"
        );
    }
}

/// A ring of three chains, two of which were returned one by one, and what it was before.
fn one_by_one(size: u16) -> (Scene, Remains) {
    let mut scene = Scene::new(size, features(false, false));
    for _ in 0..3 {
        assert!(scene.add(1, false));
    }
    scene.driver.publish();
    let before = scene.remains();
    for _ in 0..2 {
        scene.publish(1);
    }
    (scene, before)
}

/// What is published last could be what is only about to be; what was published before it could not.
#[test]
fn a_ring_from_before_the_last_but_one_publication_contradicts() {
    for size in [3, 4, 7, 64] {
        let (mut scene, Remains { ring, .. }) = one_by_one(size);
        let words = scene.remains().words;
        scene.leave(&Remains { ring, words });
        let recovered = scene.recover();
        assert!(
            matches!(recovered, Err(Stale::Contradicted { index: 0, .. })),
            "{size} descriptors: {recovered:?}"
        );
    }
}

#[test]
fn elements_that_do_not_add_up_are_refused() {
    let slots = |slots: u64| slots << 16;
    for (elements, right) in [
        ([1, 1], true),
        ([2, 0], false),
        ([0, 2], false),
        ([1, 2], false),
        ([2, 1], false),
    ] {
        let mut scene = Scene::new(8, features(false, false));
        for _ in 0..3 {
            assert!(scene.add(1, false));
        }
        scene.driver.publish();
        let Remains { ring, .. } = scene.remains();
        scene.publish(2);
        let mut words = scene.remains().words;
        for (word, element) in words[1..].iter_mut().zip(elements) {
            *word = *word & !slots(0xffff) | slots(element);
        }
        scene.leave(&Remains { ring, words });
        let expected = if right { Ok(()) } else { Err(Stale::Record) };
        assert_eq!(scene.recover(), expected, "{elements:?}");
    }
}

/// The chain that is about to be returned reaches around the ring, over what was returned before it.
#[test]
fn what_a_long_chain_covers_has_to_have_been_returned_too() {
    let mut older = Scene::new(3, features(false, false));
    assert!(older.add(1, false) && older.add(1, false));
    older.driver.publish();
    let Remains { ring, .. } = older.remains();
    let mut scene = Scene::new(3, features(false, false));
    for length in [1, 3] {
        assert!(scene.add(length, false));
        scene.driver.publish();
        scene.publish(1);
        while scene.driver.pop_used().unwrap().is_some() {}
        scene.written.fill(None);
    }
    let words = scene.remains().words;
    scene.leave(&Remains { ring, words });
    let recovered = scene.recover();
    assert!(
        matches!(recovered, Err(Stale::Contradicted { index: 0, .. })),
        "{recovered:?}"
    );
}

/// A region that the other side can write holds anything; what comes of it harms that side's ring at most.
#[test]
fn any_record_is_borne() {
    let mut numbers = Numbers(1);
    let mut taken_up = 0;
    for round in 0..20_000 {
        let size = [1, 2, 3, 5, 8, 64][numbers.size(6)];
        let mut scene = if round % 50 == 0 {
            used(size, false, &[1], numbers.size(2 * size))
        } else {
            Scene::new(size, features(false, numbers.below(2) == 0))
        };
        for _ in 0..numbers.below(u64::from(size) + 1) {
            scene.add(1, true);
        }
        scene.driver.publish();
        let mut place = || numbers.below(u64::from(size) + 1) | numbers.below(2) << 15;
        let record = place() | place() << 16 | place() << 32;
        let elements = 1 + numbers.below(4);
        scene.words.store(0, record | elements << 48);
        for index in 1..4 {
            let slots = numbers.below(u64::from(size) + 2);
            let wild = numbers.below(1 << 31) << 32 | numbers.below(1 << 16);
            scene.words.store(index, wild | slots << 16);
        }
        if scene.recover().is_ok() {
            taken_up += 1;
            let memory = scene.memory.clone();
            let mut batch = WriteBatch::new();
            if scene.device.take_writable(&memory, &mut batch, 8).is_ok() {
                scene.device.complete(&batch.chains);
                scene.device.publish();
            }
            assert!(scene.device.base().used < size);
        }
    }
    assert!(taken_up > 100, "{taken_up}");
}

/// The place in the word that others can read too.
fn position(word: &Words) -> (RingBase, RingBase) {
    let bytes = word.load(0).to_le_bytes();
    let index = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    (
        RingBase::packed(index(0), bytes[4] != 0),
        RingBase::packed(index(2), bytes[5] != 0),
    )
}

#[test]
fn the_position_of_a_packed_ring_is_that_of_its_last_publication() {
    // With a journal, and with nothing else.
    for journal in [true, false] {
        let mut scene = Scene::new(5, features(false, false));
        if !journal {
            let (layout, features) = (scene.driver.layout(), scene.options.features);
            let base = scene.driver.base();
            scene.device = DeviceRing::new(&scene.memory, &layout, features, base).unwrap();
        }
        let word = words().part(3, 1);
        scene.device.show_position(word.clone());
        let start = RingBase::start(true);
        assert_eq!(position(&word), (start, start));
        for turn in 0..20 {
            let before = scene.device.base();
            for _ in 0..1 + turn % 3 {
                scene.add(1, true);
            }
            scene.driver.publish();
            let memory = scene.memory.clone();
            let mut batch = WriteBatch::new();
            scene.device.take_writable(&memory, &mut batch, 8).unwrap();
            scene.device.complete(&batch.chains);
            for chain in &batch.chains {
                scene.written[usize::from(chain.id)] = Some(0);
            }
            assert_eq!(position(&word).0, before);
            scene.device.publish();
            assert_eq!(position(&word), (scene.device.base(), before));
            scene.reap();
        }
        scene.device.conclude();
        assert_eq!(position(&word), (scene.device.base(), scene.device.base()));
    }
}

#[test]
fn the_position_of_a_split_ring_is_its_used_index() {
    let memory = Arc::new(GuestMemory::heap(&[(0, END)]));
    let options = DriverOptions {
        size: 8,
        ..DriverOptions::default()
    };
    let mut driver = DriverRing::new(&memory, RING, options).unwrap();
    let mut device =
        DeviceRing::new(&memory, &driver.layout(), options.features, driver.base()).unwrap();
    let word = words().part(0, 1);
    word.store(0, 0x7777_0003_0002_0001);
    device.show_position(word.clone());
    assert_eq!(word.load(0), 0x0000_0003_0002_0001);
    for index in 1..=20 {
        driver.add(&[], &[(BUFFERS, 64)], false).unwrap();
        driver.publish();
        let mut batch = WriteBatch::new();
        device.take_writable(&memory, &mut batch, 8).unwrap();
        device.complete(&batch.chains);
        device.publish();
        assert!(driver.pop_used().unwrap().is_some());
        assert_eq!(word.load(0), index << 48 | 0x0003_0002_0001);
    }
}
