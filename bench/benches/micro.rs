//! What the parts of a worker's turn cost: taking chains, copying bodies, giving chains back; and the whole turn, with its allocations.
//!
//! `cargo bench -p ringway-bench --bench micro`. The parts run in one thread, both sides' lines in the caches of one processor: they
//! are the instructions. The whole turn is that of a worker between two guests, whose lines come from another processor.

#![forbid(unsafe_code)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::alloc::System;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use common::Inside;
use ringway_bench::cycles::{SIZES, of_worker};
use ringway_bench::generator::Generator;
use ringway_bench::processors::Pinned;
use ringway_bench::report::{Parts, Report, parts};
use ringway_bench::ring::{Ring, Shape};
use ringway_bench::traffic::{BUFFER, Traffic};
use ringway_measure::machine::Machine;
use ringway_measure::statistics::spread;
use ringway_mem::GuestMemory;
use ringway_ring::{DeviceRing, ReadBatch, RingBase, RingFeatures, WriteBatch};
use ringway_switch::Poll;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RING: u16 = 1024;
const BURST: usize = 32;
/// Guest addresses of the source's ring and buffers, and of the destination's.
const BASE: u64 = 1 << 30;
const SENT: u64 = BASE + (1 << 20);
const DESTINATION: u64 = BASE + (8 << 20);
const RECEIVED: u64 = BASE + (9 << 20);
/// Buffers of either side that are used in turn.
const BUFFERS: u64 = 64;

#[derive(Parser)]
struct Options {
    /// Where the report is that the figures are put into
    #[arg(long)]
    out: Option<PathBuf>,
    /// Said by cargo bench; without it everything runs for a moment only
    #[arg(long)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut found = Vec::new();
    for size in SIZES {
        for packed in [false, true] {
            let measured = measure(size, packed, options.bench);
            found.push(measured.with_context(|| format!("{size} B, packed: {packed}"))?);
        }
    }
    println!("{}", parts(&found));
    if let Some(out) = options.out {
        let mut report = Report::load(&out)?;
        report.machine = Machine::here();
        report.parts = found;
        report.save(&out)?;
    }
    Ok(())
}

fn measure(size: usize, packed: bool, long: bool) -> Result<Parts> {
    let groups = if long { 7 } else { 1 };
    let mut found = Vec::new();
    for _ in 0..groups {
        found.push(alone(size, packed, if long { 300 } else { 3 })?);
    }
    let median = |part: usize| spread(found.iter().map(|parts| parts[part])).median;
    let (turn, allocations) = whole(size, packed, long)?;
    Ok(Parts {
        size,
        packed,
        pop: median(0),
        copy: median(1),
        publish: median(2),
        turn,
        allocations,
    })
}

/// Nanoseconds per frame for taking its chains, copying its bytes and giving its chains back, of source and destination together.
fn alone(size: usize, packed: bool, rounds: usize) -> Result<[f64; 3]> {
    let memory = Arc::new(GuestMemory::heap(&[(BASE, 16 << 20)]));
    let (mut source, mut from) = sides(&memory, BASE, packed, false)?;
    let (mut sink, mut to) = sides(&memory, DESTINATION, packed, true)?;
    let len = u32::try_from(size + 12)?;
    let room = u32::try_from(BUFFER + 12)?;
    let pieces = (size + 12).div_ceil(BUFFER + 12);
    // As many frames as fit into one take.
    let frames = (BURST / pieces).max(1);
    let (mut sent, mut received) = (ReadBatch::new(), WriteBatch::new());
    let mut spent = [Duration::ZERO; 3];
    let clock = Instant::now();
    for _ in 0..1000 {
        std::hint::black_box(Instant::now());
    }
    let clock = clock.elapsed() / 1000;
    for _ in 0..rounds {
        for _ in 0..frames {
            let number = u64::from(source.next_id()) % BUFFERS;
            source.stage(SENT + number * stride(size), len);
        }
        source.publish();
        for _ in 0..frames * pieces {
            let number = u64::from(sink.next_id()) % BUFFERS;
            sink.stage(RECEIVED + number * stride(BUFFER), room);
        }
        sink.publish();
        let start = Instant::now();
        from.take_readable(&memory, &mut sent, frames)?;
        to.take_writable(&memory, &mut received, frames * pieces)?;
        let popped = Instant::now();
        let mut targets = received.chains.iter_mut();
        for chain in &sent.chains {
            let mut rest = sent.slices(chain)[0];
            for target in targets.by_ref().take(pieces) {
                let place = received.segments[usize::from(target.first)];
                let copied = place.copy_from_guest(rest);
                target.written = u32::try_from(copied)?;
                rest = rest.skip(copied);
            }
        }
        let copied = Instant::now();
        to.complete(&received.chains);
        to.publish();
        from.complete(&sent.chains);
        from.publish();
        let published = Instant::now();
        for (sum, part) in spent.iter_mut().zip([
            popped.duration_since(start),
            copied.duration_since(popped),
            published.duration_since(copied),
        ]) {
            *sum += part.saturating_sub(clock);
        }
        sent.clear();
        received.clear();
        source.take(usize::MAX, |_, _| ())?;
        let mut bytes = 0;
        sink.take(usize::MAX, |_, used| bytes += used.len)?;
        anyhow::ensure!(bytes as usize == frames * (size + 12), "{bytes} came");
    }
    let count = (rounds * frames) as f64;
    Ok(spent.map(|part| part.as_nanos() as f64 / count))
}

/// From buffer to buffer: an odd number of two lines, so that they spread over the sets of a cache.
fn stride(room: usize) -> u64 {
    (((room + 128).div_ceil(128) | 1) * 128) as u64
}

fn sides(
    memory: &Arc<GuestMemory>,
    address: u64,
    packed: bool,
    writable: bool,
) -> Result<(Ring, DeviceRing)> {
    let shape = Shape {
        size: RING,
        packed,
        in_order: false,
        writable,
    };
    let ring = Ring::new(memory, address, shape)?;
    let features = RingFeatures {
        packed,
        ..RingFeatures::default()
    };
    let (layout, start) = (ring.layout(address), RingBase::start(packed));
    let device = DeviceRing::new(memory, &layout, features, start)?;
    Ok((ring, device))
}

/// Nanoseconds of a worker per frame from guest to guest, and allocations of the process meanwhile.
fn whole(size: usize, packed: bool, long: bool) -> Result<(f64, f64)> {
    let traffic = Traffic {
        size,
        packed,
        tso: size > 9000,
        ..Traffic::default()
    };
    let stop = AtomicBool::new(false);
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let (switch, fronts) = Inside::start(Poll::Never, vec![1 % cpus]);
    let _pinned = Pinned::to(0)?;
    let mut generator = Generator::start(fronts, &traffic, &stop)?;
    let batch = usize::from(traffic.ring) / traffic.buffers_per_frame() / 2;
    let turn = if long {
        of_worker(std::process::id(), &mut generator, &traffic, &stop)?
            .nanoseconds
            .median
    } else {
        f64::NAN
    };
    // Reading the kernel's account allocates, passing frames does not.
    let batches = 20;
    let region = Region::new(ALLOCATOR);
    for _ in 0..batches {
        generator.batch(batch)?;
    }
    let change = region.change();
    drop(generator);
    drop(switch);
    let made = (change.allocations + change.reallocations) as f64;
    Ok((turn, made / (batches * batch) as f64))
}
