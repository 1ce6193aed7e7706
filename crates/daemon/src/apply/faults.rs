//! Dying on purpose. Tests set `RINGWAY_DIE` to `change:N` or `start:N`, and the daemon ends as by SIGKILL at place N, counted from
//! 0, of its first change, or of bringing the host to what the store says at its start. Where it is not set, a place costs a look at
//! a variable.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::process::{Signal, getpid, kill_process};

struct Fate {
    in_change: bool,
    left: AtomicU64,
}

static FATE: LazyLock<Option<Fate>> = LazyLock::new(|| {
    let text = std::env::var("RINGWAY_DIE").ok()?;
    let (when, place) = text.split_once(':')?;
    Some(Fate {
        in_change: when == "change",
        left: AtomicU64::new(place.parse().ok()?),
    })
});

static CHANGING: AtomicBool = AtomicBool::new(false);

/// From here on places are those of a change.
pub(super) fn change_begins() {
    CHANGING.store(true, Ordering::Relaxed);
}

/// A place where the daemon may die.
pub(super) fn place() {
    let Some(fate) = &*FATE else { return };
    if fate.in_change == CHANGING.load(Ordering::Relaxed)
        && fate.left.fetch_sub(1, Ordering::Relaxed) == 0
    {
        let _ = kill_process(getpid(), Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}
