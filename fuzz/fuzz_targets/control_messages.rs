//! Messages on the control socket, in pieces and with descriptors, and what they ask for.
//!
//! The first byte says how the rest is read: as the body of one message, or as a stream in pieces of which each begins with its
//! length and the number of its descriptors.

#![no_main]

use std::fmt::Debug;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ringway_api::control::{
    Decoder, Hello, MAX_FDS, MAX_MESSAGE, Message, PortChange, Reply, Request, encode,
};
use ringway_api::port_spec::PortSpec;
use serde::{Serialize, de::DeserializeOwned};

static FILE: LazyLock<File> = LazyLock::new(|| File::open("/dev/null").unwrap());

fuzz_target!(|input: &[u8]| {
    let Some((&mode, rest)) = input.split_first() else {
        return;
    };
    if mode % 2 == 0 {
        let body = rest.to_vec();
        understand(&Message {
            body,
            fds: files(usize::from(mode / 2 % 4)),
        });
    } else {
        stream(rest);
    }
});

fn stream(mut rest: &[u8]) {
    let mut decoder = Decoder::default();
    while let [len, fds, bytes @ ..] = rest {
        // Never more than is wanted, as a channel reads; one time in 256 that, too.
        let mut take = usize::from(*len).min(bytes.len());
        if *fds != 0xff {
            take = take.min(decoder.wanted());
        }
        // Up to some more than may be sent with a message.
        let count = match fds {
            0..0xf0 => usize::from(fds % 4),
            _ => MAX_FDS + usize::from(fds % 4),
        };
        let (piece, after) = bytes.split_at(take);
        rest = after;
        match decoder.feed(piece, files(count)) {
            Ok(Some(message)) => {
                assert!(!decoder.has_partial());
                understand(&message);
            }
            Ok(None) => assert!(decoder.wanted() <= MAX_MESSAGE),
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
}

fn understand(message: &Message) {
    assert!(message.fds.len() <= MAX_FDS);
    same::<Hello>(message);
    same::<Reply>(message);
    match same::<Request>(message) {
        Some(Request::AddPort { spec, passed }) => {
            let _ = passed.check(&spec.kind, message.fds.len());
        }
        Some(Request::ChangePort { change, .. }) => {
            for spec in ["sink", "sink,vlan=5,rate=1M", "sink,trunk=1-9,isolated"] {
                changed(&change, &spec.parse().unwrap());
            }
        }
        _ => {}
    }
}

/// A change gives a specification that could have been asked for in the first place.
fn changed(change: &PortChange, spec: &PortSpec) {
    if let Ok(spec) = change.apply(spec) {
        assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec));
    }
}

/// What is understood is written, and understood again, as the same.
fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &Message) -> Option<T> {
    let value = message.parse::<T>().ok()?;
    let bytes = encode(&value).unwrap();
    let mut decoder = Decoder::default();
    let (length, body) = bytes.split_at(decoder.wanted());
    assert!(matches!(decoder.feed(length, Vec::new()), Ok(None)));
    let again = decoder.feed(body, Vec::new()).unwrap().unwrap();
    assert_eq!(again.parse::<T>().unwrap(), value);
    Some(value)
}

fn files(count: usize) -> Vec<OwnedFd> {
    let file = |_| FILE.try_clone().unwrap().into();
    (0..count).map(file).collect()
}
