use ringway_mem::GuestMemory;
use ringway_ring::{DeviceRing, ReadBatch, RingBase, RingFeatures, WriteBatch};

use super::*;

const BASE: u64 = 0x10000;
const SIZE: u16 = 8;

fn shapes(writable: bool) -> impl Iterator<Item = Shape> {
    let orders = [false, true].into_iter();
    let both = orders.flat_map(|in_order| [(in_order, false), (in_order, true)]);
    both.map(move |(in_order, packed)| Shape {
        size: SIZE,
        packed,
        in_order,
        writable,
    })
}

fn sides(shape: Shape) -> (Arc<GuestMemory>, Ring, DeviceRing) {
    let memory = Arc::new(GuestMemory::heap(&[(BASE, 1 << 20)]));
    let ring = Ring::new(&memory, BASE, shape).unwrap();
    let features = RingFeatures {
        packed: shape.packed,
        in_order: shape.in_order,
        ..RingFeatures::default()
    };
    let start = RingBase::start(shape.packed);
    let device = DeviceRing::new(&memory, &ring.layout(BASE), features, start).unwrap();
    (memory, ring, device)
}

/// Address and length of the buffer with this number.
fn buffer(number: u32) -> (u64, u32) {
    (BASE + 0x8_0000 + u64::from(number) * 64, 20 + number % 7)
}

#[test]
fn what_is_sent_comes_to_the_device_and_back_over_many_laps() {
    for shape in shapes(false) {
        let (memory, mut ring, mut device) = sides(shape);
        let (mut sent, mut seen) = (0u32, 0u32);
        for burst in (1..=5).cycle().take(40) {
            if ring.free() < burst {
                ring.take(usize::MAX, |_, _| ()).unwrap();
            }
            assert!(ring.free() >= burst, "{shape:?}");
            for _ in 0..burst {
                let (address, len) = buffer(sent);
                ring.stage(address, len);
                sent += 1;
            }
            assert!(!device.has_available(), "{shape:?}: seen too early");
            assert!(ring.publish(), "{shape:?}: a new device wants kicks");
            let mut batch = ReadBatch::new();
            device.take_readable(&memory, &mut batch, 64).unwrap();
            for chain in &batch.chains {
                assert_eq!(chain.len, buffer(seen).1, "{shape:?}");
                seen += 1;
            }
            assert_eq!(seen, sent, "{shape:?}");
            device.complete(&batch.chains);
            device.publish();
        }
        ring.take(usize::MAX, |_, _| ()).unwrap();
        assert_eq!(ring.free(), usize::from(SIZE), "{shape:?}");
    }
}

#[test]
fn lengths_come_with_the_buffers_they_belong_to() {
    for shape in shapes(true) {
        let (memory, mut ring, mut device) = sides(shape);
        let mut turn = 0u32;
        for _ in 0..10 {
            while ring.free() > 0 {
                ring.stage(buffer(ring.next_id().into()).0, 64);
            }
            ring.publish();
            let mut batch = WriteBatch::new();
            device.take_writable(&memory, &mut batch, 3).unwrap();
            let mut expected = Vec::new();
            for chain in &mut batch.chains {
                turn += 1;
                chain.written = turn;
                expected.push(turn);
            }
            device.complete(&batch.chains);
            assert!(!ring.has(1), "{shape:?}: not published yet");
            device.publish();
            assert!(ring.has(3) && !ring.has(4), "{shape:?}");
            let mut lens = Vec::new();
            let mut take = |max| ring.take(max, |_, used| lens.push(used.len)).unwrap();
            assert_eq!((take(2), take(9)), (2, 1), "{shape:?}");
            assert_eq!(lens, expected, "{shape:?}");
        }
    }
}

#[test]
fn a_device_that_returns_what_it_does_not_have_is_found_out() {
    let shape = shapes(true).next().unwrap();
    let (memory, mut ring, _) = sides(shape);
    ring.stage(buffer(0).0, 64);
    ring.publish();
    let used = memory.area(ring.layout(BASE).used, 8, 8).unwrap();
    used.store_u16(2, 2);
    assert!(ring.take(9, |_, _| ()).is_err());
}
