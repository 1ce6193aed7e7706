//! Live migration: a guest moves to another switch while it receives streams and answers pings.
//!
//! What the switch writes to the guest's memory, QEMU learns from the dirty log alone. The guest keeps a stream unread over the move,
//! in buffers that were copied before they were written, and that no processor of the guest touches afterwards: only marked pages
//! bring it to the other side. Between QEMU and the old switch sits a proxy; it can hide from the switch that it has to mark.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Lab, Need, Nic,
    migration::{Migration, Moved, Network, PLACES, Parked, Recording, Running},
    pings::Pinged,
    proxy::{Message, Proxy},
    stream::Stream,
    switch::Statistics,
};

const MAC: &str = "52:54:00:12:34:56";
const MAC_BYTES: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const PARKED: Stream = Stream {
    blocks: 32,
    key: 33,
};

/// `VHOST_F_LOG_ALL`, among the features.
const LOG_ALL: u64 = 1 << 26;
/// `VHOST_VRING_F_LOG`, in the second word of a ring's addresses.
const LOG_RING: u64 = 1 << 32;
const SET_FEATURES: u32 = 2;
const SET_LOG_BASE: u32 = 6;
const SET_VRING_ADDR: u32 = 9;

#[test]
fn a_guest_with_a_split_ring_moves() -> Result<()> {
    moves("migration-split", &Setting::default())
}

/// Its own announcement switched off, the switch sends one for it.
#[test]
fn a_guest_with_two_split_pairs_moves_and_is_announced() -> Result<()> {
    moves(
        "migration-split-2",
        &Setting {
            pairs: 2,
            announces: false,
            ..Setting::default()
        },
    )
}

#[test]
fn a_guest_with_a_packed_ring_moves_and_is_announced() -> Result<()> {
    moves(
        "migration-packed",
        &Setting {
            packed: true,
            announces: false,
            ..Setting::default()
        },
    )
}

#[test]
fn a_guest_with_two_packed_pairs_moves() -> Result<()> {
    moves(
        "migration-packed-2",
        &Setting {
            packed: true,
            pairs: 2,
            ..Setting::default()
        },
    )
}

#[test]
fn without_the_dirty_log_a_split_ring_does_not_survive_the_move() -> Result<()> {
    breaks("migration-unmarked-split", false)
}

#[test]
fn without_the_dirty_log_a_packed_ring_does_not_survive_the_move() -> Result<()> {
    breaks("migration-unmarked-packed", true)
}

#[derive(Debug)]
struct Setting {
    packed: bool,
    pairs: u16,
    /// Whether the guest announces itself.
    announces: bool,
    /// Whether the old switch learns that it has to mark.
    marks: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            packed: false,
            pairs: 1,
            announces: true,
            marks: true,
        }
    }
}

/// What a move did to the guest.
struct Outcome {
    moved: Moved,
    /// Whether the stream that was kept unread is whole.
    parked: bool,
    /// The same of the one under way.
    running: Result<bool>,
    /// Of each of [`PLACES`].
    pinged: [Pinged; 3],
    /// From the guest's going on to the first frame for it that came to the new switch, and to the first one it sent.
    first: [Option<Duration>; 2],
    learned: Result<String>,
    rarp: bool,
    /// Of the old switch and the new one, before and after the move.
    statistics: [Statistics; 2],
}

fn moves(name: &str, setting: &Setting) -> Result<()> {
    let Some(lab) = lab(name)? else {
        return Ok(());
    };
    let outcome = play(&lab, setting)?;
    report(&lab, &outcome);
    ensure!(outcome.parked && outcome.running?, "a stream is not whole");
    ensure!(outcome.learned? == "new");
    ensure!(outcome.rarp != setting.announces, "RARP: {}", outcome.rarp);
    for (place, pinged) in PLACES.iter().zip(&outcome.pinged) {
        let after = pinged.next_after(outcome.moved.resumed);
        after.with_context(|| format!("no ping is answered any more at the {place}"))?;
    }
    let arrived = outcome.first[0].context("nothing for the guest came to the new switch")?;
    ensure!(arrived < Duration::from_secs(2), "{arrived:?}");
    for (statistics, port) in outcome.statistics.iter().zip(["a", "b"]) {
        statistics.check()?;
        let queues = &statistics.port(port)?.queues;
        let idle = queues
            .iter()
            .any(|queue| queue.tx_frames == 0 || queue.rx_frames == 0);
        ensure!(!idle, "a queue carried nothing: {queues:?}");
    }
    Ok(())
}

/// The same with nothing marked has to fail, or the tests above would show nothing.
fn breaks(name: &str, packed: bool) -> Result<()> {
    let Some(lab) = lab(name)? else {
        return Ok(());
    };
    let setting = Setting {
        packed,
        marks: false,
        ..Setting::default()
    };
    let outcome = play(&lab, &setting)?;
    report(&lab, &outcome);
    ensure!(
        !outcome.parked,
        "the stream is whole although nothing was marked"
    );
    Ok(())
}

fn lab(name: &str) -> Result<Option<Lab>> {
    Lab::with(
        name,
        &[
            Need::Guests,
            Need::Namespaces,
            Need::Program("bridge"),
            Need::Program("openssl"),
            Need::Program("ping"),
            Need::Program("socat"),
            Need::Program("tcpdump"),
        ],
    )
}

fn play(lab: &Lab, setting: &Setting) -> Result<Outcome> {
    let mut network = Network::new(lab, setting.pairs)?;
    let proxy = lab.path("proxy");
    let edit = if setting.marks { keep } else { hide };
    let proxy = (Proxy::start(&proxy, &lab.path("a"), edit)?, proxy);
    let guest = |name, nic: Nic| {
        let nic = nic.queues(setting.pairs).mac(MAC);
        let nic = if setting.packed { nic.packed() } else { nic };
        let nic = if setting.announces {
            nic
        } else {
            nic.property("guest_announce=off")
        };
        // Pages that the kernel clears before it lends them to the switch would be copied for that reason alone.
        lab.guest(name)
            .processors(setting.pairs)
            .append("init_on_alloc=0")
            .nic(nic)
    };
    let before = guest("a", Nic::vhost_user(&proxy.1)).boot()?;
    network.configure(&before)?;
    let parked = Parked::listen(&before, PARKED)?;
    let path = lab.path("migration");
    let after = guest("b", lab.nic("b")).start_incoming(&before, &path)?;

    let pings = network.ping(lab)?;
    let recording = Recording::start(lab, &network)?;
    let running = Running::start(lab, &network, &before)?;
    await_frames(&mut network.old, "a", 2000)?;

    let migration = Migration::begin(&before, &after, &path)?;
    parked.fill(&network, &before)?;
    let moved = migration.complete(&after)?;

    if setting.marks {
        await_frames(&mut network.new, "b", 2000)?;
    }
    let learned = network.learned(MAC);
    let running = running.finish();
    let [bridge, near, far] = pings.map(|pings| pings.stop());
    let frames = recording.stop()?;
    let parked = parked.read(&after)?;
    asked_to_mark(&proxy.0.seen())?;
    Ok(Outcome {
        parked,
        running,
        pinged: [bridge?, near?, far?],
        first: [for_guest, from_guest].map(|wanted| {
            let first = frames
                .iter()
                .find(|(at, frame)| *at >= moved.resumed && wanted(frame))?;
            Some(first.0 - moved.resumed)
        }),
        rarp: frames
            .iter()
            .any(|(_, frame)| frame.get(12..14) == Some(&[0x80, 0x35])),
        learned,
        statistics: [network.old.statistics()?, network.new.statistics()?],
        moved,
    })
}

/// Not from the host's end behind the new switch, whose packets leave it as long as the guest is elsewhere.
fn for_guest(frame: &[u8]) -> bool {
    let ipv4 = frame.get(12..14) == Some(&[8, 0]);
    ipv4 && frame.get(..6) == Some(&MAC_BYTES) && frame.get(30..34) != Some(&[10, 0, 2, 1])
}

fn from_guest(frame: &[u8]) -> bool {
    frame.get(6..12) == Some(&MAC_BYTES)
}

fn keep(_: &mut Message) {}

/// The switch is never told to mark.
fn hide(message: &mut Message) {
    match message.request {
        SET_FEATURES => message.clear(0, LOG_ALL),
        SET_VRING_ADDR => message.clear(0, LOG_RING),
        _ => {}
    }
}

/// QEMU told the switch to mark, and gave it the log before.
fn asked_to_mark(messages: &[Message]) -> Result<()> {
    let first = |wanted: fn(&Message) -> bool| messages.iter().position(wanted);
    let features = first(|message| {
        message.request == SET_FEATURES && message.number(0).is_some_and(|bits| bits & LOG_ALL != 0)
    });
    let log = first(|message| message.request == SET_LOG_BASE);
    ensure!(log.is_some() && log < features, "{log:?}, {features:?}");
    Ok(())
}

fn await_frames(switch: &mut ringway_tests::Switch, port: &str, frames: u64) -> Result<()> {
    switch.await_statistics("frames for the guest", |statistics| {
        statistics
            .port(port)
            .is_ok_and(|port| port.sum().tx_frames >= frames)
    })?;
    Ok(())
}

fn report(lab: &Lab, outcome: &Outcome) {
    let Outcome { moved, .. } = outcome;
    let intact = |stream: bool| if stream { "equal" } else { "another" };
    lab.report(&format!(
        "paused for {:?} (from stop to going on {:?}), {} passes, {} MiB carried over",
        moved.downtime,
        moved.resumed - moved.stopped,
        moved.passes,
        moved.bytes >> 20
    ));
    let running = match &outcome.running {
        Ok(running) => format!("{} SHA-256", intact(*running)),
        Err(error) => format!("{error:#}"),
    };
    lab.report(&format!(
        "stream kept unread: {} SHA-256; stream under way: {running}",
        intact(outcome.parked)
    ));
    for (place, pinged) in PLACES.iter().zip(&outcome.pinged) {
        lab.report(&format!(
            "pings from {place}: {} sent, {} lost, longest gap {:?}, first answer {:?} after the guest went on",
            pinged.sent,
            pinged.lost(),
            pinged.longest_gap(),
            pinged.next_after(moved.resumed)
        ));
    }
    let [received, sent] = outcome.first;
    lab.report(&format!(
        "after the guest went on: its first frame {sent:?}, the first frame for it at the new switch {received:?}; \
         the bridge has it at {:?}; RARP: {}",
        outcome.learned, outcome.rarp
    ));
}
