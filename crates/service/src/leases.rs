//! Which address is whose: bindings by people, leases by DHCP, and the choice of an address for who has none.
//!
//! A pool is a model: what changes it is returned as a [`Change`] and has to be committed by the caller before anybody is told.
//! After a restart the same changes, put in again with [`Pool::restore`], make the same pool.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ringway_wire::MacAddress;

use crate::dns::Hosts;

/// Seconds an offer is kept for the client that got it.
const OFFER_SECONDS: u64 = 60;
/// Seconds an address is not given out after somebody said it is in use (as ISC dhcpd has it by default).
const DECLINED_SECONDS: u64 = 86_400;

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

impl Lease {
    /// Whether the address is somebody's now.
    pub fn is_active(&self, now: u64) -> bool {
        self.state != State::Free && self.expires > now
    }
}

/// Something to commit: the lease takes the place of any other of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change(pub Lease);

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

/// The addresses of a network.
#[derive(Clone, Debug)]
pub struct Pool {
    range: RangeInclusive<u32>,
    /// Addresses that are never lent: the gateway's.
    excluded: Vec<Ipv4Addr>,
    reservations: BTreeMap<Ipv4Addr, Reservation>,
    reserved: HashMap<Client, Ipv4Addr>,
    leases: BTreeMap<Ipv4Addr, Lease>,
    by_client: HashMap<Client, Ipv4Addr>,
    /// Where to look for a name: every address that a binding or a lease, ended or not, gives it.
    by_name: BTreeSet<(String, Ipv4Addr)>,
    offers: HashMap<Ipv4Addr, (Client, u64)>,
}

impl Pool {
    /// A pool that lends the addresses of `range` but for `excluded`.
    pub fn new(range: RangeInclusive<Ipv4Addr>, excluded: Vec<Ipv4Addr>) -> Self {
        Self {
            range: u32::from(*range.start())..=u32::from(*range.end()),
            excluded,
            reservations: BTreeMap::new(),
            reserved: HashMap::new(),
            leases: BTreeMap::new(),
            by_client: HashMap::new(),
            by_name: BTreeSet::new(),
            offers: HashMap::new(),
        }
    }

    /// Takes the bindings by people, in place of those before.
    pub fn set_reservations(&mut self, reservations: impl IntoIterator<Item = Reservation>) {
        self.reservations.clear();
        self.reserved.clear();
        let lent = self.leases.values();
        self.by_name = lent
            .filter_map(|l| Some((l.name.clone()?, l.address)))
            .collect();
        for reservation in reservations {
            if let Some(name) = &reservation.name {
                self.by_name.insert((name.clone(), reservation.address));
            }
            self.reserved
                .insert(reservation.client.clone(), reservation.address);
            self.reservations.insert(reservation.address, reservation);
        }
    }

    /// Puts in a lease as it was committed.
    pub fn restore(&mut self, lease: Lease) {
        self.offers.remove(&lease.address);
        if let Some(old) = self.leases.get(&lease.address)
            && self.by_client.get(&old.client) == Some(&lease.address)
        {
            self.by_client.remove(&old.client);
        }
        let forgotten = self
            .leases
            .get(&lease.address)
            .and_then(|old| old.name.clone());
        let bound = self.reservations.get(&lease.address).map(|r| &r.name);
        if let Some(name) = forgotten
            && bound != Some(&Some(name.clone()))
        {
            self.by_name.remove(&(name, lease.address));
        }
        if let Some(name) = &lease.name {
            self.by_name.insert((name.clone(), lease.address));
        }
        if lease.state != State::Declined {
            self.by_client.insert(lease.client.clone(), lease.address);
        }
        self.leases.insert(lease.address, lease);
    }

    /// Every lease there is or was.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.leases.values()
    }

    /// Every binding by a person.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.reservations.values()
    }

    /// The address that goes by `name`, of those bound or else lent now.
    pub fn find(&self, name: &str, now: u64) -> Option<Ipv4Addr> {
        let first = (name.to_owned(), Ipv4Addr::UNSPECIFIED);
        let places = self
            .by_name
            .range(first..)
            .take_while(|(there, _)| there == name);
        let mut found: Vec<_> = places
            .map(|(_, address)| *address)
            .filter(|address| self.name_of(*address, now) == Some(name))
            .collect();
        found.sort_by_key(|address| !self.reservations.contains_key(address));
        found.first().copied()
    }

    /// The name of an address, of those bound or lent now.
    pub fn name_of(&self, address: Ipv4Addr, now: u64) -> Option<&str> {
        let bound = self
            .reservations
            .get(&address)
            .and_then(|r| r.name.as_deref());
        let lease = self
            .leases
            .get(&address)
            .filter(|l| l.state == State::Bound && l.is_active(now));
        bound.or_else(|| lease.and_then(|l| l.name.as_deref()))
    }

    /// An address for a client to take up, kept for it a while: the one bound to it, its last one, the one it wishes, or any.
    /// `clients` are the names it goes by, the best first. The second value says whether the address is new to the client.
    pub fn offer(
        &mut self,
        clients: &[Client],
        wish: Option<Ipv4Addr>,
        now: u64,
    ) -> Result<(Ipv4Addr, bool), Refusal> {
        self.offers.retain(|_, (_, until)| *until > now);
        let client = clients.first().ok_or(Refusal::NotYours)?;
        let bound = clients.iter().find_map(|client| self.reserved.get(client));
        if let Some(&address) = bound
            && self.is_free_for(address, clients, now)
        {
            return Ok((address, false));
        }
        let offered = self
            .offers
            .iter()
            .find(|(_, (to, _))| to == client)
            .map(|(address, _)| *address);
        let last = self.by_client.get(client).copied();
        if let Some(address) = [last, offered]
            .into_iter()
            .flatten()
            .find(|&a| self.may_have(a, clients, now))
        {
            self.offers
                .insert(address, (client.clone(), now + OFFER_SECONDS));
            return Ok((address, last != Some(address)));
        }
        let wished = wish.filter(|&address| self.may_have(address, clients, now));
        let address = match wished {
            Some(address) => address,
            None => self.choose(client, now).ok_or(Refusal::Exhausted)?,
        };
        self.offers
            .insert(address, (client.clone(), now + OFFER_SECONDS));
        Ok((address, true))
    }

    /// Lends `address` to a client that asks for it, until `expires`.
    pub fn lend(
        &mut self,
        clients: &[Client],
        mac: MacAddress,
        address: Ipv4Addr,
        name: Option<String>,
        now: u64,
        expires: u64,
    ) -> Result<Vec<Change>, Refusal> {
        let client = clients.first().ok_or(Refusal::NotYours)?;
        if !self.may_have(address, clients, now) {
            return Err(Refusal::NotYours);
        }
        // Who is bound to an address has no other.
        let bound = clients.iter().find_map(|client| self.reserved.get(client));
        if bound.is_some_and(|&bound| bound != address && self.is_free_for(bound, clients, now)) {
            return Err(Refusal::NotYours);
        }
        let name = name.filter(|name| self.find(name, now).is_none_or(|holder| holder == address));
        let mut changes = Vec::new();
        if let Some(&before) = self.by_client.get(client)
            && before != address
            && let Some(lease) = self.leases.get_mut(&before)
        {
            lease.state = State::Free;
            changes.push(Change(lease.clone()));
        }
        let lease = Lease {
            address,
            client: client.clone(),
            mac,
            name,
            expires,
            state: State::Bound,
        };
        self.restore(lease.clone());
        changes.push(Change(lease));
        Ok(changes)
    }

    /// Takes an address back that its client gives up.
    pub fn release(&mut self, clients: &[Client], address: Ipv4Addr, now: u64) -> Option<Change> {
        let lease = self.leases.get_mut(&address)?;
        if !clients.contains(&lease.client) || lease.state != State::Bound {
            return None;
        }
        (lease.state, lease.expires) = (State::Free, now);
        Some(Change(lease.clone()))
    }

    /// Keeps an address back that somebody else has, as its client or a probe found out. Only what the client was offered or has.
    pub fn decline(
        &mut self,
        clients: &[Client],
        mac: MacAddress,
        address: Ipv4Addr,
        now: u64,
    ) -> Option<Change> {
        let offered = self
            .offers
            .get(&address)
            .is_some_and(|(to, _)| clients.contains(to));
        let lent = self
            .leases
            .get(&address)
            .is_some_and(|l| clients.contains(&l.client));
        let client = clients.first().filter(|_| offered || lent)?.clone();
        let lease = Lease {
            address,
            client,
            mac,
            name: None,
            expires: now + DECLINED_SECONDS,
            state: State::Declined,
        };
        self.restore(lease.clone());
        Some(Change(lease))
    }

    /// The client that `address` was offered to and that has not taken it up.
    pub fn offered_to(&self, address: Ipv4Addr, now: u64) -> Option<&Client> {
        self.offers
            .get(&address)
            .filter(|(_, until)| *until > now)
            .map(|(client, _)| client)
    }

    /// Forgets what was offered to a client that chose another server.
    pub fn forget_offer(&mut self, clients: &[Client]) {
        self.offers.retain(|_, (to, _)| !clients.contains(to));
    }

    /// How many addresses are lent now, and how many may be.
    pub fn usage(&self, now: u64) -> (usize, usize) {
        let used = self
            .leases
            .values()
            .filter(|lease| lease.is_active(now))
            .count();
        let size = self.range.end().saturating_sub(*self.range.start()) as usize
            + usize::from(!self.range.is_empty());
        (used, size)
    }

    /// Whether the client may have the address now.
    fn may_have(&self, address: Ipv4Addr, clients: &[Client], now: u64) -> bool {
        let lendable =
            self.range.contains(&u32::from(address)) && !self.excluded.contains(&address);
        let bound = self.reservations.get(&address);
        match bound {
            Some(reservation) => {
                clients.contains(&reservation.client) && self.is_free_for(address, clients, now)
            }
            None => lendable && self.is_free_for(address, clients, now),
        }
    }

    /// Whether nobody else has the address, by lease or offer.
    fn is_free_for(&self, address: Ipv4Addr, clients: &[Client], now: u64) -> bool {
        let offered = self.offers.get(&address).filter(|(_, until)| *until > now);
        let lease = self
            .leases
            .get(&address)
            .filter(|lease| lease.is_active(now));
        offered.is_none_or(|(to, _)| clients.contains(to))
            && lease
                .is_none_or(|lease| lease.state == State::Bound && clients.contains(&lease.client))
    }

    /// A free address: one that nobody ever had, starting where the client's name points so that it gets the same one again
    /// after its lease was forgotten; or else the one that has been free the longest.
    fn choose(&self, client: &Client, now: u64) -> Option<Ipv4Addr> {
        let (first, last) = (*self.range.start(), *self.range.end());
        if first > last {
            return None;
        }
        let size = u64::from(last - first) + 1;
        let start = hash(client) % size;
        let taken = |address: &Ipv4Addr| {
            self.leases.contains_key(address)
                || self.reservations.contains_key(address)
                || self.excluded.contains(address)
                || self.offers.contains_key(address)
        };
        let candidates = (0..size)
            .map(|n| Ipv4Addr::from(first + u32::try_from((start + n) % size).unwrap_or(0)));
        // As many as are taken, and one more, are enough to find one that is not.
        let known = self.leases.len()
            + self.reservations.len()
            + self.excluded.len()
            + self.offers.len()
            + 1;
        candidates
            .take(known)
            .find(|address| !taken(address))
            .or_else(|| {
                let free = self
                    .leases
                    .values()
                    .filter(|lease| self.may_have(lease.address, &[], now));
                free.min_by_key(|lease| lease.expires)
                    .map(|lease| lease.address)
            })
    }
}

/// A pool at a moment: what DNS asks.
impl Hosts for (&Pool, u64) {
    fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        self.0.find(name, self.1)
    }

    fn name_of(&self, address: Ipv4Addr) -> Option<String> {
        self.0.name_of(address, self.1).map(str::to_owned)
    }
}

/// FNV-1a, the same in every run.
fn hash(client: &Client) -> u64 {
    let bytes: &[u8] = match client {
        Client::Id(id) => id,
        Client::Mac(mac) => &mac.0,
    };
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
#[path = "leases/tests.rs"]
mod tests;
