use std::{io::Write, os::unix::net::UnixStream};

use proptest::prelude::*;

use super::super::*;

#[test]
fn messages_are_limited_in_both_directions() {
    let error = encode(&"x".repeat(MAX_MESSAGE)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a control message of 1048578 bytes is longer than the limit of 1048576"
    );
    let mut decoder = Decoder::default();
    let error = decoder
        .feed(&u32::MAX.to_le_bytes(), Vec::new())
        .unwrap_err();
    assert!(matches!(
        error,
        CodecError::TooLong {
            length: 0xffff_ffff,
            ..
        }
    ));
    assert!(decoder.feed(&[], Vec::new()).is_err(), "stays failed");
    let error = Decoder::default().feed(&[0; 5], Vec::new()).unwrap_err();
    assert!(matches!(
        error,
        CodecError::Overrun {
            length: 5,
            wanted: 4
        }
    ));
}

proptest! {
    #[test]
    fn messages_cut_anywhere_come_out_whole(
        texts in proptest::collection::vec(".{0,40}", 1..6),
        cuts in proptest::collection::vec(1..20usize, 1..40),
    ) {
        let stream: Vec<u8> = texts.iter().flat_map(|text| encode(text).unwrap()).collect();
        let (mut decoder, mut rest, mut got) = (Decoder::default(), stream.as_slice(), Vec::new());
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(decoder.wanted()).min(rest.len()));
            got.extend(decoder.feed(now, Vec::new()).unwrap().map(|message| message.parse::<String>().unwrap()));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got, texts);
        prop_assert!(!decoder.has_partial());
    }

    #[test]
    fn random_bytes_never_panic(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..16), length in 0..200u32) {
        let mut decoder = Decoder::default();
        let mut stream = length.to_le_bytes().to_vec();
        stream.extend(pieces.concat());
        let mut rest = stream.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(decoder.wanted().min(rest.len()));
            rest = later;
            match decoder.feed(now, Vec::new()) {
                Ok(Some(message)) => { let _ = (message.parse::<Request>(), message.parse::<Reply>(), message.parse::<Hello>()); }
                Ok(None) => {}
                Err(_) => break,
            }
        }
        // The same over a socket, after a good hello: what is received ends in an error or in silence, nothing else.
        let (mut peer, ours) = UnixStream::pair().unwrap();
        let mut channel = Channel::new(ours.into()).unwrap();
        peer.write_all(&encode(&Hello { version: VERSION }).unwrap()).unwrap();
        peer.write_all(&stream).unwrap();
        drop(peer);
        for _ in 0..stream.len() + 2 {
            match channel.receive::<Request>() {
                Ok(Some(_)) => {}
                Ok(None) => prop_assert!(false, "the peer is gone, so there is an end"),
                Err(error) if error.is_fatal() => return Ok(()),
                Err(_) => {}
            }
        }
        prop_assert!(false, "more messages than bytes");
    }
}
