//! No wake-up is lost: two threads, one on each side of a ring, that sleep whenever there is nothing to do, in every order of events.
//!
//! Whoever sleeps is woken by the other's decision to notify and by nothing else. A notification that is lost leaves a thread asleep
//! for ever, which loom finds and calls a deadlock. The same models with the fence or the second look left out must come to that: what
//! cannot fail shows nothing.

use std::sync::{Arc, LazyLock};

use loom::sync::{Condvar, Mutex};
use loom::thread::{self, JoinHandle};
use ringway_mem::GuestMemory;

use super::explore;
use crate::{DeviceRing, DriverOptions, DriverRing, ReadBatch, RingBase, RingFeatures};

/// Chains of one run: the first that a side waits for, and one that comes while the side goes back to sleep.
const CHAINS: usize = 2;

/// In units of the crate that makes the threads; a batch lies on the stack.
const STACK: usize = 0x8000;

static MEMORY: LazyLock<Arc<GuestMemory>> =
    LazyLock::new(|| Arc::new(GuestMemory::heap(&[(0, 0x2000)])));

const BUFFER: (u64, u32) = (0x1000, 64);

/// What the protocol is left without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// The full fence between a side's own store and its look at what the other one wants.
    Fence,
    /// The look after asking to be told.
    SecondLook,
    /// What publishes chains that were kept back once no others follow.
    Settle,
}

/// Who sleeps while there is nothing to do. Who does not, does all its work before or after the other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleeps {
    Device,
    Driver,
    Both,
}

/// An eventfd.
#[derive(Clone)]
struct Bell(Arc<(Mutex<bool>, Condvar)>);

impl Bell {
    fn new() -> Self {
        Self(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn ring(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.0.0.lock().unwrap();
        while !*rung {
            rung = self.0.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

struct Driver {
    ring: DriverRing,
    kick: Bell,
    call: Bell,
    without: Without,
}

impl Driver {
    /// Sends the chains after the first `added`; waits until all are back.
    fn run(mut self, mut added: usize) {
        let mut back = 0;
        self.ring.disable_calls();
        loop {
            while self.ring.pop_used().unwrap().is_some() {
                back += 1;
            }
            if back == CHAINS {
                return;
            }
            if added == back {
                self.send();
                added += 1;
            } else {
                let come = self.ring.enable_calls();
                if !come || self.without == Without::SecondLook {
                    self.call.wait();
                }
                self.ring.disable_calls();
            }
        }
    }

    fn send(&mut self) {
        self.ring.add(&[BUFFER], &[], false).unwrap();
        if self.ring.publish() {
            self.kick.ring();
        }
    }
}

struct Device {
    ring: DeviceRing,
    kick: Bell,
    call: Bell,
    without: Without,
    returns: Returns,
}

/// How the device returns chains.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Returns {
    Never,
    OneByOne,
    /// The newest stay back from a driver that polls, until there is nothing else to do.
    OlderFirst,
}

impl Device {
    /// Takes all chains and may return them; waits for those that have not come.
    fn run(mut self) {
        let mut seen = 0;
        let mut batch = ReadBatch::new();
        self.ring.disable_kicks();
        while seen < CHAINS {
            let taken = self.ring.take_readable(&MEMORY, &mut batch, 1).unwrap();
            seen += taken;
            if self.returns != Returns::Never && taken > 0 {
                self.ring.complete(&batch.chains);
                batch.clear();
                let call = match self.returns {
                    Returns::OlderFirst => self.ring.publish_older(),
                    _ => self.ring.publish(),
                };
                if call {
                    self.call.ring();
                }
            }
            if taken == 0 {
                self.settle();
                let come = self.ring.enable_kicks();
                if !come || self.without == Without::SecondLook {
                    self.kick.wait();
                }
                self.ring.disable_kicks();
            }
        }
        self.settle();
    }

    /// As a worker does before it sleeps.
    fn settle(&mut self) {
        if self.without != Without::Settle && self.ring.publish() {
            self.call.ring();
        }
    }
}

fn check(features: RingFeatures, sleeps: Sleeps, without: Without) {
    let returns = match sleeps {
        Sleeps::Device => Returns::Never,
        _ => Returns::OneByOne,
    };
    explore_ring(features, sleeps, (2, returns), without);
}

fn explore_ring(
    features: RingFeatures,
    sleeps: Sleeps,
    (size, returns): (u16, Returns),
    without: Without,
) {
    // Made here: the stack of a model is short.
    LazyLock::force(&MEMORY);
    explore(without != Without::Fence, move || {
        let options = DriverOptions {
            size,
            features,
            base: RingBase::start(features.packed),
            table: 0,
        };
        let ring = DriverRing::new(&MEMORY, 0, options).unwrap();
        let (kick, call) = (Bell::new(), Bell::new());
        let device = Device {
            ring: DeviceRing::new(&MEMORY, &ring.layout(), features, options.base).unwrap(),
            kick: kick.clone(),
            call: call.clone(),
            without,
            returns,
        };
        let mut driver = Driver {
            ring,
            kick,
            call,
            without,
        };
        if sleeps == Sleeps::Driver {
            (0..CHAINS).for_each(|_| driver.send());
        }
        let device = start(move || device.run());
        let driver = start(move || match sleeps {
            Sleeps::Device => (0..CHAINS).for_each(|_| driver.send()),
            Sleeps::Driver => driver.run(CHAINS),
            Sleeps::Both => driver.run(0),
        });
        device.join().unwrap();
        driver.join().unwrap();
    });
}

fn start(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let builder = thread::Builder::new().stack_size(STACK);
    builder.spawn(run).unwrap()
}

fn features(packed: bool, event_idx: bool) -> RingFeatures {
    RingFeatures {
        packed,
        event_idx,
        ..RingFeatures::default()
    }
}

/// Tests of one ring: as it is nothing is lost, without either half of the protocol something is.
macro_rules! no_wake_up_is_lost {
    ($name:ident, $packed:literal, $event_idx:literal) => {
        mod $name {
            use super::*;

            const FEATURES: fn() -> RingFeatures = || features($packed, $event_idx);

            #[test]
            fn no_kick_is_lost() {
                check(FEATURES(), Sleeps::Device, Without::Nothing);
            }

            #[test]
            fn no_call_is_lost() {
                check(FEATURES(), Sleeps::Driver, Without::Nothing);
            }

            #[test]
            fn neither_is_lost_where_both_sleep() {
                check(FEATURES(), Sleeps::Both, Without::Nothing);
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn a_kick_is_lost_without_the_fence() {
                check(FEATURES(), Sleeps::Device, Without::Fence);
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn a_call_is_lost_without_the_fence() {
                check(FEATURES(), Sleeps::Driver, Without::Fence);
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn a_kick_is_lost_without_the_second_look() {
                check(FEATURES(), Sleeps::Device, Without::SecondLook);
            }

            #[test]
            #[should_panic(expected = "deadlock")]
            fn a_call_is_lost_without_the_second_look() {
                check(FEATURES(), Sleeps::Driver, Without::SecondLook);
            }
        }
    };
}

no_wake_up_is_lost!(split_with_flags_virtio_2_7_7_and_2_7_9, false, false);
no_wake_up_is_lost!(split_with_events_virtio_2_7_7_2_and_2_7_13_4_1, false, true);
no_wake_up_is_lost!(packed_with_flags_virtio_2_8_14, true, false);
no_wake_up_is_lost!(packed_with_events_virtio_2_8_10_and_2_8_21_3_1, true, true);

/// Chains that are kept back from a driver that polls, which then wants to be called all the same (decision 0014).
mod kept_back {
    use super::*;

    /// The smallest of which a chain is kept back.
    const SIZE: u16 = 8;

    fn check(sleeps: Sleeps, without: Without) {
        let features = features(false, false);
        explore_ring(features, sleeps, (SIZE, Returns::OlderFirst), without);
    }

    #[test]
    fn a_driver_that_goes_to_sleep_gets_its_newest_chain() {
        check(Sleeps::Driver, Without::Nothing);
    }

    #[test]
    fn it_gets_it_where_both_sleep() {
        check(Sleeps::Both, Without::Nothing);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn it_does_not_when_nobody_settles() {
        check(Sleeps::Driver, Without::Settle);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn it_does_not_without_the_fence() {
        check(Sleeps::Driver, Without::Fence);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn it_does_not_without_the_second_look() {
        check(Sleeps::Driver, Without::SecondLook);
    }
}
