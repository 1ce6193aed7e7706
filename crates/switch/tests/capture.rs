//! Captures at one port: every frame it sent with what became of it, every frame for it, and an end when nobody reads.

mod mock;

use std::io::Read;
use std::time::Instant;

use mock::frames::{BROADCAST, frame, mac, tagged};
use mock::{Guest, Lab, Options, PATIENCE};
use ringway_api::control::{Client, ClientError};

/// A frame of a capture: inbound or not, its bytes, what is said about it.
type Packet = (bool, Vec<u8>, String);

/// Begins a capture; gives the end to read.
fn capture(lab: &Lab, port: &str) -> std::io::PipeReader {
    let (reader, writer) = std::io::pipe().unwrap();
    lab.ask(|client| client.capture(port, writer.into()))
        .unwrap();
    reader
}

/// The pcapng of a capture that has ended: packets, and frames missed.
fn packets(file: &[u8]) -> (Vec<Packet>, u64) {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let (mut packets, mut missed) = (Vec::new(), 0);
    let mut file = file;
    while !file.is_empty() {
        let (kind, len) = (word(file, 0), word(file, 4) as usize);
        let body = &file[8..len - 4];
        file = &file[len..];
        match kind {
            6 => {
                let frame_len = word(body, 12) as usize;
                let options = &body[20 + frame_len.next_multiple_of(4)..];
                assert_eq!(options[..4], [2, 0, 4, 0], "flags first");
                let comment_len = usize::from(options[10]);
                assert_eq!(options[8..10], [1, 0], "then a comment");
                let comment = String::from_utf8(options[12..12 + comment_len].to_vec()).unwrap();
                let frame = body[20..20 + frame_len].to_vec();
                packets.push((options[4] == 1, frame, comment));
            }
            5 => missed = u64::from(word(body, 28)),
            _ => {}
        }
    }
    (packets, missed)
}

/// All of a capture, whose port is removed to end it.
fn ended(lab: &Lab, port: &str, mut reader: std::io::PipeReader) -> Vec<Packet> {
    lab.ask(|client| client.remove_port(port)).unwrap();
    let mut file = Vec::new();
    reader.read_to_end(&mut file).unwrap();
    let (packets, missed) = packets(&file);
    assert_eq!(missed, 0);
    packets
}

fn guest(lab: &Lab, name: &str) -> Guest {
    lab.guest(name, Options::default())
}

#[test]
fn a_capture_says_of_each_frame_what_became_of_it() {
    // In the sandbox: the thread that writes has no rights but to write.
    let lab = Lab::confined(&["a,mac=02:00:00:00:00:01", "b", "c,isolated", "d,isolated"]);
    let reader = capture(&lab, "a");
    let [mut a, mut b, _c] = ["a", "b", "c"].map(|name| guest(&lab, name));
    assert_eq!(mac(1).to_string(), "02:00:00:00:00:01");
    let hello = frame(mac(1), BROADCAST, 60, 1);
    a.send(&hello);
    assert_eq!(b.receive().frame, hello);
    let answer = frame(mac(2), mac(1), 1514, 2);
    b.send(&answer);
    assert_eq!(a.receive().frame, answer);
    let question = frame(mac(1), mac(2), 61, 3);
    a.send(&question);
    assert_eq!(b.receive().frame, question);
    let lie = frame(mac(9), mac(2), 62, 4);
    a.send(&lie);
    let echo = frame(mac(1), mac(1), 63, 5);
    a.send(&echo);
    a.drain();
    // Nothing of what others say to each other is here.
    b.send(&frame(mac(2), mac(3), 64, 6));
    a.receive();
    lab.settled(2 + 1 + 1 + 1 + 1 + 2);
    let unknown = frame(mac(2), mac(3), 64, 6);
    let expected = [
        (true, hello, "flooded to 2 ports"),
        (false, answer, "from b"),
        (true, question, "to b"),
        (true, lie, "dropped: spoofed_mac"),
        (true, echo, "dropped: same_port"),
        (false, unknown, "from b"),
    ];
    let found = ended(&lab, "a", reader);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, (inbound, frame, comment)) in found.into_iter().zip(expected) {
        assert_eq!(found, (inbound, frame, comment.to_owned()));
    }
}

#[test]
fn frames_that_a_port_did_not_get_are_there_with_the_reason() {
    let lab = Lab::start(&["a,vlan=7", "t,trunk=7", "b,vlan=7"]);
    let [at_a, at_b, at_t] = ["a", "b", "t"].map(|port| capture(&lab, port));
    let [mut a, mut t] = ["a", "t"].map(|name| guest(&lab, name));
    // A guest that offers no buffers.
    let mut b = lab.guest(
        "b",
        Options {
            buffers: 0,
            ..Options::default()
        },
    );
    let hello = frame(mac(1), BROADCAST, 60, 1);
    a.send(&hello);
    assert_eq!(t.receive().frame, tagged(&hello, 7));
    t.send(&tagged(&hello, 9));
    t.drain();
    b.send(&frame(mac(2), mac(1), 60, 2));
    a.receive();
    lab.settled(4);
    let (tag7, tag9) = (tagged(&hello, 7), tagged(&hello, 9));
    let reply = frame(mac(2), mac(1), 60, 2);
    let text = |packet: Packet| (packet.0, packet.1, packet.2);
    assert_eq!(
        ended(&lab, "b", at_b)
            .into_iter()
            .map(text)
            .collect::<Vec<_>>(),
        [
            (false, hello.clone(), "from a, dropped: no_buffers".into()),
            (true, reply.clone(), "to a".into()),
        ]
    );
    // With its tag, as the trunk has it; and its sender knows of both.
    assert_eq!(
        ended(&lab, "t", at_t),
        [
            (false, tag7, "from a".into()),
            (true, tag9, "dropped: vlan_mismatch".into()),
        ]
    );
    assert_eq!(
        ended(&lab, "a", at_a),
        [
            (
                true,
                hello,
                "flooded to 1 of 2 ports, dropped: no_buffers".into()
            ),
            (false, reply, "from b".into()),
        ]
    );
}

#[test]
fn a_capture_ends_with_its_reader_and_costs_nothing_when_it_does_not_read() {
    let lab = Lab::start(&["a", "b"]);
    let [mut a, mut b] = ["a", "b"].map(|name| guest(&lab, name));
    let refusal = |port: &str, fd| match lab.ask(|client| client.capture(port, fd)) {
        Err(ClientError::Refused(message)) => message,
        other => panic!("{other:?}"),
    };
    let pipe = || std::io::pipe().unwrap().1.into();
    assert!(refusal("z", pipe()).contains("there is no port z"));
    let file = std::fs::File::create(lab.path("file")).unwrap();
    assert!(refusal("a", file.into()).contains("written to a pipe"));
    std::fs::remove_file(lab.path("file")).unwrap();
    // One that nobody reads fills up, and frames cross as before.
    let idle = capture(&lab, "a");
    let big = frame(mac(1), BROADCAST, 60_000, 1);
    for _ in 0..200 {
        a.send(&big);
        assert_eq!(b.receive().frame.len(), big.len());
    }
    lab.settled(200);
    let mut file = Vec::new();
    lab.ask(|client| client.remove_port("a")).unwrap();
    let mut idle = idle;
    idle.read_to_end(&mut file).unwrap();
    let (found, missed) = packets(&file);
    assert!(missed > 0, "{} frames found room", found.len());
    assert_eq!(found.len() as u64 + missed, 200);

    // Sixteen at once, and a place is free again when a reader goes, although nothing was sent.
    let mut readers: Vec<_> = (0..16).map(|_| capture(&lab, "b")).collect();
    assert!(refusal("b", pipe()).contains("16 captures"));
    readers.pop();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (_reader, writer) = std::io::pipe().unwrap();
        match lab.ask(|client: &mut Client| client.capture("b", writer.into())) {
            Ok(()) => break,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[test]
fn addresses_are_listed_with_port_vlan_and_age() {
    let lab = Lab::start(&["a,vlan=7", "b"]);
    let [mut a, mut b] = ["a", "b"].map(|name| guest(&lab, name));
    a.send(&frame(mac(1), BROADCAST, 60, 1));
    b.send(&frame(mac(3), BROADCAST, 60, 2));
    b.send(&frame(mac(2), BROADCAST, 60, 3));
    a.drain();
    b.drain();
    let (addresses, learned) = lab.ask(|client| client.addresses(None)).unwrap();
    let found: Vec<_> = addresses
        .iter()
        .map(|address| (&*address.port, address.mac.0, address.vlan))
        .collect();
    assert_eq!(learned, 3);
    assert_eq!(found[0], ("a", mac(1).0, Some(7)));
    assert_eq!(found.len(), 3);
    assert!(addresses.iter().all(|address| address.age < 10));
    let (only, learned) = lab.ask(|client| client.addresses(Some("b"))).unwrap();
    assert!(learned == 2 && only.iter().all(|address| address.vlan.is_none()));
    let none = lab.ask(|client| client.addresses(Some("z")));
    assert!(matches!(none, Err(ClientError::Refused(message)) if message.contains("no port z")));
}
