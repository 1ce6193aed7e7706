//! A vhost-user port that goes on in another process, while its front-end notices nothing.
//!
//! What does not change while frames cross goes first: the session as its front-end has set it up. Once
//! nobody serves the port any more, [`Device::positions`] says where its rings stand; nothing is taken from
//! them then that was not returned, so one position says it all. In the other process [`Device::resume`]
//! takes the one and [`Device::start_at`] the other.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

pub use ringway_mem::{DirtyLog, GuestMemory, MemoryError, RegionRequest};
pub use ringway_vhost::user::message::InflightArea;
pub use ringway_vhost::user::socket::Pending;
pub use ringway_vhost::user::{DeviceState, InflightRegion, ResumeError, RingAddresses, Vring};
use ringway_vhost::user::{Offer, Session, SessionError};

use super::keeper::ENTRY_WORDS;
use super::{Device, Settings, StartError, View};
use crate::Counters;

/// Where a ring stands that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Ring index.
    pub ring: usize,
    /// Its base, as GET_VRING_BASE has it.
    pub base: u32,
    /// Its driver broke the rules: it is not served until the driver starts it again.
    pub failed: bool,
}

/// Maps the region in which a session, whose driver took `features`, keeps what is in flight.
///
/// # Errors
///
/// When the front-end shrank the file meanwhile.
pub fn map_inflight(
    file: OwnedFd,
    area: InflightArea,
    features: u64,
) -> Result<InflightRegion, SessionError> {
    InflightRegion::resume(file, area, features, ENTRY_WORDS)
}

impl Device {
    /// The device as its front-end has set it up, between two messages.
    pub fn state(&self) -> &DeviceState {
        self.session.state()
    }

    /// What waits at the session's socket.
    pub fn pending(&self) -> Pending<BorrowedFd<'_>> {
        self.session.pending()
    }

    /// Where the rings stand that run. Nobody may be serving them, and whoever serves them next has to
    /// begin there: the device goes on here only if nobody else did.
    pub fn positions(&self) -> Vec<Position> {
        let running = self.rings.iter().flatten();
        let position = |queue: &super::Queue| {
            queue.settle();
            Position {
                ring: queue.index,
                base: queue.lock().base().to_vhost(),
                failed: queue.has_failed(),
            }
        };
        running.map(|running| position(&running.queue)).collect()
    }

    /// Leaves the rings to whoever drives the device from now on: nothing is written to them here any more, nor to their
    /// journal.
    pub fn let_go(&self) {
        self.rings
            .iter()
            .flatten()
            .for_each(|running| running.queue.fail());
    }

    /// How many rings run.
    pub fn running(&self) -> usize {
        self.rings.iter().flatten().count()
    }

    /// A device that another process drove. None of its rings runs yet.
    ///
    /// # Errors
    ///
    /// When the state is none that a front-end could have brought about.
    pub fn resume(
        socket: OwnedFd,
        pending: Pending<OwnedFd>,
        state: DeviceState,
        settings: &Settings,
        counters: Arc<Counters>,
    ) -> Result<Self, ResumeError> {
        let offer: Offer = settings.offer();
        let session = Session::resume(socket, pending, offer, state)?;
        Ok(Self::over(session, counters))
    }

    /// Starts the rings where they stand; those that are ready but had not been started begin where the
    /// front-end said.
    pub fn start_at(&mut self, positions: &[Position]) -> (View, Vec<StartError>) {
        let vrings = &mut self.session.state_mut().vrings;
        for position in positions {
            if let Some(vring) = vrings.get_mut(position.ring) {
                vring.base = position.base;
            }
            self.keeper.handed_over(position.ring);
        }
        let started = self.revive();
        for position in positions.iter().filter(|position| position.failed) {
            if let Some(Some(running)) = self.rings.get(position.ring) {
                running.queue.fail();
            }
        }
        started
    }

    /// Calls the driver of every ring that runs: a call that was due may never have been made.
    pub fn call_all(&self) {
        for running in self.rings.iter().flatten() {
            running.queue.call();
        }
    }
}
