//! What the device side of a ring costs: take, complete and publish in bursts, without any copying of frames.
//!
//! `cargo bench -p ringway-ring`. The first part runs both sides in one thread and times the device's part alone, so that it shows the
//! instructions; the second gives each side a processor, so that it shows the cache lines that travel between them.

#![allow(missing_docs, clippy::cast_possible_truncation)]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ringway_mem::GuestMemory;
use ringway_ring::{
    DeviceRing, DriverOptions, DriverRing, ReadBatch, RingBase, RingFeatures, WriteBatch,
};

const SIZE: u16 = 1024;
const BURST: usize = 32;
/// Guest address of the buffers, 2 KiB each.
const BUFFERS: u64 = 0x20_0000;
const BUFFER: u32 = 2048;

#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    features: RingFeatures,
    writable: bool,
    /// Descriptors of a chain.
    pieces: usize,
    indirect: bool,
}

fn main() {
    let cases: Vec<Case> = [false, true].into_iter().flat_map(cases).collect();
    let ghz = ticks_per_ns();
    println!("ring {SIZE}, bursts of {BURST}; {ghz:.2} ticks per ns");
    println!(
        "{:32} {:>18} {:>6} {:>8} {:>7} {:>18} {:>11}",
        "device's part, per chain",
        "one thread",
        "take",
        "complete",
        "publish",
        "two threads",
        "chains"
    );
    for case in &cases {
        let (alone, parts) = one_thread(case);
        let [take, complete, publish] = parts.map(|part| part / ghz);
        let (busy, rate) = two_threads(case);
        let format = if case.features.packed {
            "packed"
        } else {
            "split"
        };
        println!(
            "{format:6} {:25} {alone:7.1} {:7.2} ns {take:6.2} {complete:8.2} {publish:7.2} {busy:7.1} {:7.2} ns {rate:7.1} M/s",
            case.name,
            alone / ghz,
            busy / ghz
        );
    }
}

/// The same for each format, so that the lines compare.
fn cases(packed: bool) -> [Case; 6] {
    let plain = RingFeatures {
        packed,
        ..RingFeatures::default()
    };
    let event_idx = RingFeatures {
        event_idx: true,
        ..plain
    };
    let in_order = RingFeatures {
        in_order: true,
        ..plain
    };
    let indirect = RingFeatures {
        indirect: true,
        ..plain
    };
    let case = |name, features, writable, pieces, indirect| Case {
        name,
        features,
        writable,
        pieces,
        indirect,
    };
    [
        case("read", plain, false, 1, false),
        case("read, event indices", event_idx, false, 1, false),
        case("read, in order", in_order, false, 1, false),
        case("write", plain, true, 1, false),
        case("read, 3 descriptors", plain, false, 3, false),
        case("read, indirect of 3", indirect, false, 3, true),
    ]
}

struct Setup {
    memory: Arc<GuestMemory>,
    driver: DriverRing,
    device: DeviceRing,
}

fn setup(case: &Case) -> Setup {
    let options = DriverOptions {
        size: SIZE,
        features: case.features,
        base: RingBase::start(case.features.packed),
        table: 4,
    };
    let len = BUFFERS as usize + usize::from(SIZE) * BUFFER as usize;
    let memory = Arc::new(GuestMemory::heap(&[(0, len)]));
    let driver = DriverRing::new(&memory, 0, options).unwrap();
    let device = DeviceRing::new(&memory, &driver.layout(), case.features, driver.base()).unwrap();
    Setup {
        memory,
        driver,
        device,
    }
}

/// Takes, completes and publishes one burst, with a mark after each; returns its chains.
#[inline(always)]
fn turn(
    memory: &GuestMemory,
    device: &mut DeviceRing,
    writable: bool,
    mut mark: impl FnMut(),
) -> usize {
    if writable {
        let mut batch = WriteBatch::new();
        let taken = device.take_writable(memory, &mut batch, BURST).unwrap();
        for chain in &mut batch.chains {
            chain.written = 64;
        }
        black_box(&batch.segments);
        mark();
        device.complete(&batch.chains);
        mark();
        black_box(device.publish());
        mark();
        taken
    } else {
        let mut batch = ReadBatch::new();
        let taken = device.take_readable(memory, &mut batch, BURST).unwrap();
        black_box(&batch.segments);
        mark();
        device.complete(&batch.chains);
        mark();
        black_box(device.publish());
        mark();
        taken
    }
}

/// Adds chains until the ring is full or `max` are there.
fn refill(driver: &mut DriverRing, case: &Case, max: usize, next: &mut u64) -> usize {
    let mut added = 0;
    while added < max {
        let mut pieces = [(0, 0); 4];
        for piece in &mut pieces[..case.pieces] {
            *piece = (BUFFERS + (*next % u64::from(SIZE)) * u64::from(BUFFER), 64);
            *next += 1;
        }
        let pieces = &pieces[..case.pieces];
        let (readable, writable) = if case.writable {
            (&[][..], pieces)
        } else {
            (pieces, &[][..])
        };
        if driver.add(readable, writable, case.indirect).is_err() {
            break;
        }
        added += 1;
    }
    added
}

/// Ticks per chain of the device's part, the best of some rounds: as a whole, and of take, complete and publish apart. The parts are
/// more than the whole, because nothing of one overlaps with the next.
fn one_thread(case: &Case) -> (f64, [f64; 3]) {
    let mut setup = setup(case);
    let mut next = 0;
    let mut best = f64::INFINITY;
    let mut best_parts = [f64::INFINITY; 3];
    let overhead = timer_overhead();
    for round in 0..400 {
        let (mut ticks, mut parts, mut chains) = (0, [0; 3], 0);
        for _ in 0..300 {
            while setup.driver.pop_used().unwrap().is_some() {}
            refill(&mut setup.driver, case, BURST, &mut next);
            setup.driver.publish();
            let mut start = now();
            if round % 2 == 0 {
                chains += turn(&setup.memory, &mut setup.device, case.writable, || ());
                ticks += now().saturating_sub(start).saturating_sub(overhead);
            } else {
                let mut sums = parts.iter_mut();
                chains += turn(&setup.memory, &mut setup.device, case.writable, || {
                    let end = now();
                    if let Some(sum) = sums.next() {
                        *sum += end.saturating_sub(start).saturating_sub(overhead);
                    }
                    start = now();
                });
            }
        }
        if round % 2 == 0 {
            best = best.min(ticks as f64 / chains as f64);
        } else {
            for (best, part) in best_parts.iter_mut().zip(parts) {
                *best = best.min(part as f64 / chains as f64);
            }
        }
    }
    (best, best_parts)
}

/// Ticks per chain of the turns that found some, and millions of chains per second, the best of some windows.
fn two_threads(case: &Case) -> (f64, f64) {
    let Setup {
        memory,
        mut driver,
        mut device,
    } = setup(case);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let copy = *case;
    let thread = std::thread::spawn(move || {
        let mut next = 0;
        while !asked.load(Ordering::Relaxed) {
            let mut popped = 0;
            while popped < BURST && driver.pop_used().unwrap().is_some() {
                popped += 1;
            }
            refill(&mut driver, &copy, BURST, &mut next);
            driver.publish();
        }
    });
    let (mut busy, mut rate) = (f64::INFINITY, 0f64);
    for _ in 0..40 {
        let begin = Instant::now();
        let (mut ticks, mut chains) = (0, 0);
        for _ in 0..20_000 {
            let start = now();
            let taken = turn(&memory, &mut device, case.writable, || ());
            if taken > 0 {
                ticks += now().saturating_sub(start);
                chains += taken;
            }
        }
        if chains > 0 {
            busy = busy.min(ticks as f64 / chains as f64);
            rate = rate.max(chains as f64 / begin.elapsed().as_secs_f64() / 1e6);
        }
    }
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    (busy, rate)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn now() -> u64 {
    // SAFETY: both are part of x86_64 and touch no memory. The fence keeps work from moving over the reading.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        core::arch::x86_64::_rdtsc()
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn now() -> u64 {
    use std::sync::OnceLock;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

fn timer_overhead() -> u64 {
    (0..1000)
        .map(|_| {
            let start = now();
            now() - start
        })
        .min()
        .unwrap_or(0)
}

fn ticks_per_ns() -> f64 {
    let (begin, start) = (Instant::now(), now());
    while begin.elapsed().as_millis() < 50 {}
    (now() - start) as f64 / begin.elapsed().as_nanos() as f64
}
