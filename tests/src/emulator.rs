//! What QEMU's emulated processors get wrong, told from what the project does.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::json;

use crate::qmp::Qmp;

/// How often it is run at most.
const RUNS: u32 = 3;
/// How often a local APIC is looked at, and how long between: a handler that a busy host interrupts goes on within this time.
const LOOKS: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);
/// How long the monitor may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// How a kernel ends that meets a breakpoint which nobody put there (`exc_int3` in `arch/x86/kernel/traps.c`).
const STALE: &str = "Oops: int3:";

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static LOST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a test of guests with many processors, and again if it failed while QEMU had done wrong to one of them. Such a guest proves
/// nothing, neither way. QEMU 10.0 is known to do that now and then when it emulates more processors than the host has:
///
/// - The end of an interrupt gets lost: the local APIC has it in service for good, and the processor takes none of the same or
///   lower priority any more: no timer, no queue of a NIC. That is read from the APIC.
/// - A processor executes a breakpoint that Linux had put into its code to rewrite it, and has taken out again since
///   (`smp_text_poke_batch_process` in `arch/x86/kernel/alternative.c`). That is read from the kernel's last words.
pub fn again_if_the_emulator_failed(mut run: impl FnMut() -> Result<()>) -> Result<()> {
    WATCHED.set(true);
    let mut done = run();
    for _ in 1..RUNS {
        let (Err(error), Some(lost)) = (&done, LOST.take()) else {
            break;
        };
        eprintln!("{lost}; other guests are booted: {error:#}");
        done = run();
    }
    WATCHED.set(false);
    done
}

/// Looks at the processors of a guest that is about to end, and at what its kernel said last, if somebody wants to know.
pub(crate) fn examine(name: &str, monitor: &Path, said: &str) {
    if !WATCHED.get() {
        return;
    }
    if said.contains(STALE) {
        let lost = format!("guest {name}: a processor executed code that was there before");
        return LOST.set(Some(lost));
    }
    // A QEMU that ended, or whose monitor somebody has, tells nothing.
    let qmp = Qmp::connect_within(name, monitor, ANSWER);
    let found = qmp.and_then(|mut qmp| lost(&mut qmp));
    if let Ok(Some((processor, interrupts))) = found {
        let lost = format!(
            "guest {name}: processor {processor} has interrupts {interrupts:?} in service for good"
        );
        LOST.set(Some(lost));
    }
}

/// A processor with interrupts that stay in service and are requested again meanwhile.
fn lost(qmp: &mut Qmp) -> Result<Option<(usize, BTreeSet<u32>)>> {
    let processors = qmp.execute("query-cpus-fast", json!({}))?;
    let count = processors.as_array().context("no list")?.len();
    for processor in 0..count {
        let mut stuck = busy(qmp, processor)?;
        for _ in 1..LOOKS {
            if stuck.is_empty() {
                break;
            }
            thread::sleep(PAUSE);
            let now = busy(qmp, processor)?;
            stuck.retain(|interrupt| now.contains(interrupt));
        }
        if !stuck.is_empty() {
            return Ok(Some((processor, stuck)));
        }
    }
    Ok(None)
}

/// Interrupts of a local APIC that are in service and requested.
fn busy(qmp: &mut Qmp, processor: usize) -> Result<BTreeSet<u32>> {
    let line = format!("info lapic {processor}");
    let said = qmp.execute("human-monitor-command", json!({ "command-line": line }))?;
    let said = said.as_str().context("no text")?;
    Ok(&vectors(said, "ISR") & &vectors(said, "IRR"))
}

/// The numbers in the line of a register, which has `(none)` if there are none.
fn vectors(said: &str, register: &str) -> BTreeSet<u32> {
    let line = said.lines().find_map(|line| line.strip_prefix(register));
    let words = line.unwrap_or_default().split_whitespace();
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use anyhow::{bail, ensure};

    use super::*;

    #[test]
    fn interrupts_of_an_apic_are_read() {
        let said = "dumping local APIC state for CPU 6 \r\n\r\nISR\t 236 \r\nIRR\t 32 33 236 \r\n";
        assert_eq!(vectors(said, "ISR"), [236].into());
        assert_eq!(vectors(said, "IRR"), [32, 33, 236].into());
        assert_eq!(vectors("ISR\t (none)\r\n", "ISR"), [].into());
        assert_eq!(vectors("", "ISR"), [].into());
    }

    #[test]
    fn only_what_lost_an_interrupt_is_run_again_and_not_for_ever() {
        for (loses, runs) in [(true, RUNS), (false, 1)] {
            let mut count = 0;
            let done = again_if_the_emulator_failed(|| {
                count += 1;
                LOST.set(loses.then(|| "guest one".into()));
                bail!("no address")
            });
            assert!(done.is_err());
            assert_eq!(count, runs);
            LOST.set(None);
        }
        let mut first = true;
        let done = again_if_the_emulator_failed(|| {
            LOST.set(Some("guest one".into()));
            ensure!(!std::mem::take(&mut first), "a timer");
            Ok(())
        });
        done.unwrap();
        assert!(!WATCHED.get());
    }
}
