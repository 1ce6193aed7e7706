//! A vhost-user back-end that can less than ours: `back-end SOCKET [KEY=N]...`, with `features` and `protocol` as masks, `queues` in
//! pairs, and `memory` 0 to refuse every memory table. It carries no frames.

#![forbid(unsafe_code)]

use std::{collections::HashMap, os::unix::net::UnixListener};

use anyhow::{Context, Result};
use ringway_vhost::user::{Event, Offer, Session};
use rustix::event::{PollFd, PollFlags, poll};

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let path = words.next().context("no socket")?;
    let mut values = HashMap::new();
    for word in words {
        let (key, value) = word.split_once('=').context("no KEY=N")?;
        let value = match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16)?,
            None => value.parse()?,
        };
        values.insert(key.to_owned(), value);
    }
    let value = |key: &str, default| values.get(key).copied().unwrap_or(default);
    let offer = Offer {
        features: value("features", 1 << 32),
        protocol_features: value("protocol", u64::MAX),
        queue_pairs: u16::try_from(value("queues", 1))?,
        max_memory_slots: value("slots", 8),
    };
    let listener = UnixListener::bind(path)?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept()?;
        let watched = stream.try_clone()?;
        let mut session = Session::new(stream.into(), offer)?;
        // A front-end that leaves makes room for the next.
        while poll(&mut [PollFd::new(&watched, PollFlags::IN)], None).is_ok() {
            let Ok(event) = session.receive() else { break };
            let refused = event == Some(Event::Memory) && value("memory", 1) == 0;
            let outcome = if refused { Err(()) } else { Ok(()) };
            if event.is_some() && session.finish(outcome).is_err() {
                break;
            }
        }
    }
}
