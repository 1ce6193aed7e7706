//! What a pool speaks of.

use std::net::Ipv4Addr;

use ringway_wire::MacAddress;

/// Who an address is lent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Client {
    /// By client identifier (option 61).
    Id(Vec<u8>),
    /// By hardware address.
    Mac(MacAddress),
}

/// An address bound by a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The address.
    pub address: Ipv4Addr,
    /// To whom.
    pub client: Client,
    /// Its name.
    pub name: Option<String>,
}

/// What became of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Lent.
    Bound,
    /// Given back, or expired; remembered for the client.
    Free,
    /// In use by somebody unknown.
    Declined,
}

/// An address that DHCP lent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// To whom.
    pub client: Client,
    /// Hardware address of the client.
    pub mac: MacAddress,
    /// Name that the client asked for and nobody else has.
    pub name: Option<String>,
    /// When it ends, in seconds since 1970-01-01 UTC.
    pub expires: u64,
    /// What became of it.
    pub state: State,
}

impl Client {
    pub(super) fn mac(&self) -> Option<MacAddress> {
        match self {
            Self::Id(_) => None,
            Self::Mac(mac) => Some(*mac),
        }
    }
}

impl Lease {
    /// Whether the address is somebody's now.
    pub fn is_active(&self, now: u64) -> bool {
        self.state != State::Free && self.expires > now
    }
}

/// Something to commit: the lease takes the place of any other of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As it is now.
    pub lease: Lease,
    /// As it was before, if it was.
    pub(super) before: Option<Lease>,
}

/// Why there is no address for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// All are lent or bound.
    #[error("no address is left")]
    Exhausted,
    /// Somebody else's, or not one to lend.
    #[error("the address is not the client's")]
    NotYours,
}
