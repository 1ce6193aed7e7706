//! Which address is whose: bindings by people, leases by DHCP, and the choice of an address for who has none.
//!
//! A pool is a model: what changes it is returned as a [`Change`] and has to be committed by the caller before anybody is told.
//! After a restart the same changes, put in again with [`Pool::restore`], make the same pool. Those that could not be committed are
//! taken back with [`Pool::undo`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use ringway_wire::MacAddress;

use crate::dns::Hosts;

mod lease;
pub use lease::{Change, Client, Lease, Refusal, Reservation, State};

/// Seconds an offer is kept for the client that got it.
const OFFER_SECONDS: u64 = 60;
/// Seconds an address is not given out after somebody said it is in use (as ISC dhcpd has it by default).
const DECLINED_SECONDS: u64 = 86_400;
/// Seconds an address is not offered after somebody was heard to use it without a lease.
const SEEN_SECONDS: u64 = 600;
/// Addresses in use that are remembered; more than a `/20` has, and less than a liar may want.
const SEEN_MOST: usize = 4096;

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
    offers: HashMap<Ipv4Addr, Offer>,
    offer_of: HashMap<Client, Ipv4Addr>,
    /// When offers and uses that are over were last forgotten.
    swept: u64,
    /// Addresses heard in use, by whom and until when that counts.
    seen: HashMap<Ipv4Addr, (MacAddress, u64)>,
}

#[derive(Clone, Debug)]
struct Offer {
    client: Client,
    /// The client's hardware address, whatever name it goes by.
    mac: Option<MacAddress>,
    until: u64,
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
            offer_of: HashMap::new(),
            swept: 0,
            seen: HashMap::new(),
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
        self.forget_offer_of(lease.address);
        self.remove(lease.address);
        if let Some(name) = &lease.name {
            self.by_name.insert((name.clone(), lease.address));
        }
        // A client that moved has two; the one it has now, or had last, is the one it gets again.
        let rank = |lease: &Lease| (lease.state == State::Bound, lease.expires);
        let other = self.by_client.get(&lease.client);
        let other = other.and_then(|address| self.leases.get(address));
        if lease.state != State::Declined && other.is_none_or(|other| rank(other) <= rank(&lease)) {
            self.by_client.insert(lease.client.clone(), lease.address);
        }
        self.leases.insert(lease.address, lease);
    }

    /// Takes changes back that could not be committed; the latest were made last, and nothing was changed since.
    pub fn undo(&mut self, changes: Vec<Change>) {
        for Change { lease, before } in changes.into_iter().rev() {
            match before {
                Some(before) => self.restore(before),
                None => self.remove(lease.address),
            }
        }
    }

    fn remove(&mut self, address: Ipv4Addr) {
        let Some(old) = self.leases.remove(&address) else {
            return;
        };
        if self.by_client.get(&old.client) == Some(&address) {
            self.by_client.remove(&old.client);
        }
        let bound = self
            .reservations
            .get(&address)
            .and_then(|r| r.name.as_ref());
        if let Some(name) = old.name
            && bound != Some(&name)
        {
            self.by_name.remove(&(name, address));
        }
    }

    fn set(&mut self, lease: Lease) -> Change {
        let before = self.leases.get(&lease.address).cloned();
        self.restore(lease.clone());
        Change { lease, before }
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
        self.sweep(now);
        let client = clients.first().ok_or(Refusal::NotYours)?;
        let bound = clients.iter().find_map(|client| self.reserved.get(client));
        if let Some(&address) = bound
            && self.is_free_for(address, clients, now)
        {
            return Ok((address, false));
        }
        let offered = self.offer_of.get(client).copied();
        let last = self.by_client.get(client).copied();
        let known = [last, offered].into_iter().flatten();
        let wished = known
            .chain(wish)
            .find(|&address| self.may_have(address, clients, now));
        let address = match wished {
            Some(address) => address,
            None => self.choose(client, now).ok_or(Refusal::Exhausted)?,
        };
        self.forget_offer_of(address);
        self.forget_offer(std::slice::from_ref(client));
        self.offer_of.insert(client.clone(), address);
        let offer = Offer {
            client: client.clone(),
            mac: clients.iter().find_map(Client::mac),
            until: now + OFFER_SECONDS,
        };
        self.offers.insert(address, offer);
        Ok((address, last != Some(address)))
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
            && let Some(lease) = self.leases.get(&before).cloned()
        {
            changes.push(self.set(Lease {
                state: State::Free,
                expires: lease.expires.min(now),
                ..lease
            }));
        }
        let lease = Lease {
            address,
            client: client.clone(),
            mac,
            name,
            expires,
            state: State::Bound,
        };
        self.seen.remove(&address);
        changes.push(self.set(lease));
        Ok(changes)
    }

    /// Takes an address back that its client gives up.
    pub fn release(&mut self, clients: &[Client], address: Ipv4Addr, now: u64) -> Option<Change> {
        let lease = self.leases.get(&address)?.clone();
        if !clients.contains(&lease.client) || lease.state != State::Bound {
            return None;
        }
        Some(self.set(Lease {
            state: State::Free,
            expires: now,
            ..lease
        }))
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
            .is_some_and(|offer| clients.contains(&offer.client));
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
        Some(self.set(lease))
    }

    /// Hears that `mac` uses `address`. If it was just offered to another it is kept back, as if declined; a free one is not
    /// offered to others for a while.
    pub fn hear(&mut self, mac: MacAddress, address: Ipv4Addr, now: u64) -> Option<Change> {
        self.sweep(now);
        if !self.range.contains(&u32::from(address)) || self.excluded.contains(&address) {
            return None;
        }
        let offer = self.offers.get(&address).filter(|offer| offer.until > now);
        if let Some(offer) = offer
            && offer.mac != Some(mac)
        {
            let client = [offer.client.clone()];
            return self.decline(&client, mac, address, now);
        }
        let lease = self.leases.get(&address);
        if lease.is_some_and(|lease| lease.mac == mac && lease.is_active(now)) {
            return None;
        }
        if self.seen.len() < SEEN_MOST || self.seen.contains_key(&address) {
            self.seen.insert(address, (mac, now + SEEN_SECONDS));
        }
        None
    }

    /// Whether the client has, or had, this address of any.
    pub fn remembers(&self, clients: &[Client], address: Ipv4Addr) -> bool {
        let lease = self.leases.get(&address);
        lease.is_some_and(|lease| clients.contains(&lease.client))
            || self
                .reservations
                .get(&address)
                .is_some_and(|r| clients.contains(&r.client))
    }

    /// Whether anything is known of the client.
    pub fn knows(&self, clients: &[Client]) -> bool {
        clients
            .iter()
            .any(|client| self.by_client.contains_key(client) || self.reserved.contains_key(client))
    }

    /// The client that `address` was offered to and that has not taken it up.
    pub fn offered_to(&self, address: Ipv4Addr, now: u64) -> Option<&Client> {
        let offer = self.offers.get(&address);
        offer
            .filter(|offer| offer.until > now)
            .map(|offer| &offer.client)
    }

    /// Forgets what was offered to a client that chose another server.
    pub fn forget_offer(&mut self, clients: &[Client]) {
        for client in clients {
            if let Some(address) = self.offer_of.remove(client) {
                self.offers.remove(&address);
            }
        }
    }

    fn forget_offer_of(&mut self, address: Ipv4Addr) {
        if let Some(offer) = self.offers.remove(&address) {
            self.offer_of.remove(&offer.client);
        }
    }

    /// Forgets what is over; once a second, so that many clients at once do not cost the square of their number.
    fn sweep(&mut self, now: u64) {
        if self.swept == now {
            return;
        }
        self.swept = now;
        self.offers.retain(|_, offer| offer.until > now);
        let offers = &self.offers;
        self.offer_of
            .retain(|_, address| offers.contains_key(address));
        self.seen.retain(|_, (_, until)| *until > now);
    }

    /// How many addresses of the range are free: neither lent, bound nor kept back.
    pub fn free(&self, now: u64) -> usize {
        let size = self.range.end().saturating_sub(*self.range.start()) as usize
            + usize::from(!self.range.is_empty());
        let inside = |address: &&Ipv4Addr| self.range.contains(&u32::from(**address));
        let lent = self.leases.values().filter(|lease| lease.is_active(now));
        let lent = lent.map(|lease| &lease.address);
        let taken: BTreeSet<_> = lent
            .chain(self.reservations.keys())
            .chain(&self.excluded)
            .filter(inside)
            .collect();
        size - taken.len()
    }

    /// Whether the client may have the address now.
    pub fn may_have(&self, address: Ipv4Addr, clients: &[Client], now: u64) -> bool {
        let lendable =
            self.range.contains(&u32::from(address)) && !self.excluded.contains(&address);
        let bound = self.reservations.get(&address);
        match bound {
            Some(reservation) => {
                clients.contains(&reservation.client) && self.is_free_for(address, clients, now)
            }
            None => {
                lendable
                    && self.is_free_for(address, clients, now)
                    && !self.is_used_by_another(address, clients, now)
            }
        }
    }

    /// Whether nobody else has the address, by lease or offer.
    fn is_free_for(&self, address: Ipv4Addr, clients: &[Client], now: u64) -> bool {
        let offered = self.offers.get(&address).filter(|offer| offer.until > now);
        let lease = self
            .leases
            .get(&address)
            .filter(|lease| lease.is_active(now));
        offered.is_none_or(|offer| clients.contains(&offer.client))
            && lease
                .is_none_or(|lease| lease.state == State::Bound && clients.contains(&lease.client))
    }

    /// Whether somebody else was heard to use an address that is lent to nobody. Who has it by a lease keeps it, whoever claims it.
    fn is_used_by_another(&self, address: Ipv4Addr, clients: &[Client], now: u64) -> bool {
        let seen = self.seen.get(&address).filter(|(_, until)| *until > now);
        let lent = self.leases.get(&address);
        seen.is_some_and(|(mac, _)| !clients.contains(&Client::Mac(*mac)))
            && !lent.is_some_and(|lease| lease.state == State::Bound && lease.is_active(now))
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
                || self.is_used_by_another(*address, std::slice::from_ref(client), now)
        };
        let candidates = (0..size)
            .map(|n| Ipv4Addr::from(first + u32::try_from((start + n) % size).unwrap_or(0)));
        // As many as are taken, and one more, are enough to find one that is not.
        let known = self.leases.len()
            + self.reservations.len()
            + self.excluded.len()
            + self.offers.len()
            + self.seen.len()
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
