//! Measures what a frame's body costs on its way: translation of both addresses and one copy from guest to guest.
//!
//! `cargo run --release -p ringway-mem --example copy_speed` prints nanoseconds per copy, the best of several runs. `cached` uses one
//! buffer on each side, `256 KiB` and `128 MiB` go round in so much memory.

use std::hint::black_box;
use std::time::Instant;

use ringway_mem::{GuestMemory, LastHit};

const LENGTHS: [u32; 12] = [
    14, 64, 128, 140, 256, 512, 1400, 1514, 4096, 9000, 16_384, 65_000,
];
/// Where a frame begins in its buffer: behind the virtio-net header here, behind a driver's headroom there.
const SOURCE_OFFSET: u64 = 12;
const DESTINATION_OFFSET: u64 = 140;
const SPAN: u64 = 128 << 20;
const RUNS: u32 = 7;

fn main() {
    let memory = || {
        let memory = GuestMemory::heap(&[(0, 1 << 20), (1 << 32, 128 << 20)]);
        let len = 1 << 20;
        for offset in (0..SPAN).step_by(1 << 20) {
            let slice = memory.write_prefix((1 << 32) + offset, len);
            slice.unwrap().copy_from(&vec![1; 1 << 20]);
        }
        memory
    };
    let (source, destination) = (memory(), memory());
    println!(
        "{:>8}{:>12}{:>12}{:>12}",
        "bytes", "cached", "256 KiB", "128 MiB"
    );
    for len in LENGTHS {
        print!("{len:>8}");
        for span in [0, 256 << 10, SPAN] {
            print!("{:>12.1}", nanoseconds(&source, &destination, len, span));
        }
        println!();
    }
}

fn nanoseconds(source: &GuestMemory, destination: &GuestMemory, len: u32, span: u64) -> f64 {
    let stride = (u64::from(len) + 512).next_multiple_of(64);
    let buffers = (span / stride).max(1);
    let copies = (20_000_000 / (len + 500)).max(u32::try_from(buffers.min(200_000)).unwrap());
    let (mut from, mut to) = (LastHit::default(), LastHit::default());
    let mut best = f64::MAX;
    let mut buffer = 0;
    for _ in 0..RUNS {
        let start = Instant::now();
        for _ in 0..copies {
            let base = (1 << 32) + buffer * stride;
            let len = black_box(len);
            let body = source.read(&mut from, base + SOURCE_OFFSET, len).unwrap();
            let room = destination.write(&mut to, base + DESTINATION_OFFSET, len);
            black_box(room.unwrap().copy_from_guest(body));
            buffer += 1;
            if buffer == buffers {
                buffer = 0;
            }
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(copies));
    }
    best
}
