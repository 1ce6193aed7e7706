//! How long ago the switch heard an address at last: asked for while a trace runs, seldom, and never waited for long.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use ringway_api::{control, v1::client::Client};
use ringway_wire::MacAddress;

/// Whom to ask.
pub(super) enum Teller {
    Daemon(Client),
    Switch(PathBuf),
}

/// An answer is good for so long; seconds are all it has.
const FRESH: Duration = Duration::from_secs(1);
/// Who does not answer within that is asked no more.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is known about addresses, by the port they are behind.
#[derive(Default)]
pub(super) struct Ages {
    teller: Option<Teller>,
    known: HashMap<String, (Instant, HashMap<MacAddress, u32>)>,
}

impl Ages {
    pub(super) fn new(teller: Teller) -> Self {
        let teller = match teller {
            Teller::Daemon(client) => Teller::Daemon(client.with_deadline(PATIENCE)),
            switch => switch,
        };
        Self {
            teller: Some(teller),
            ..Self::default()
        }
    }

    /// Seconds since a frame came from `mac`, which is behind `port`; `None` where that cannot be had.
    pub(super) fn of(&mut self, port: &str, mac: MacAddress) -> Option<u32> {
        let is_fresh = |(at, _): &(Instant, _)| at.elapsed() < FRESH;
        if !self.known.get(port).is_some_and(is_fresh) {
            let Some(ages) = self.teller.as_ref().and_then(|teller| teller.ask(port)) else {
                self.teller = None;
                return None;
            };
            self.known.insert(port.to_owned(), (Instant::now(), ages));
        }
        self.known.get(port)?.1.get(&mac).copied()
    }
}

impl Teller {
    fn ask(&self, port: &str) -> Option<HashMap<MacAddress, u32>> {
        let addresses = match self {
            Self::Daemon(client) => client.addresses(Some(port)).ok()?.addresses,
            Self::Switch(path) => {
                let mut switch = control::Client::connect(path, PATIENCE).ok()?;
                switch.addresses(Some(port)).ok()?.0
            }
        };
        let mut ages = HashMap::new();
        for address in addresses {
            let age = ages.entry(MacAddress(address.mac.0)).or_insert(address.age);
            *age = address.age.min(*age);
        }
        Some(ages)
    }
}
