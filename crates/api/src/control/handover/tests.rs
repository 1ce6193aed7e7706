use std::{
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use super::*;
use crate::control::{Channel, MAX_FDS};

/// A hand-over as the first program that could wrote it. It stands here unchanged for as long as the format is read.
const FORMAT_1: &[&str] = &[
    r#"{"type":"descriptors"}"#,
    r#"{"type":"switch","control":{"socket":0,"file":["/run/c",77]},"next_number":4}"#,
    r#"{"type":"port","number":1,"slot":0,"name":"a","spec":"vhost-user,path=/run/a","vhost_user":{"listener":{"socket":0,"file":["/run/a",78]},"connects":false,"session":{"socket":1,"age":1500,"complaints":0,"received":"0b00","received_files":[2],"features":"0x170018021","acked_features":true,"protocol_features":"0x1022f","status":15,"mtu":1500,"memory":[{"guest_address":"0x0","user_address":"0x7f0000000000","size":"0x20000000","mmap_offset":"0x0","file":3}],"log":{"size":"0x4000","mmap_offset":"0x0","file":4},"backend_requests":5,"rings":[{"size":256,"addresses":{"descriptors":"0x7f0000001000","available":"0x7f0000002000","used":"0x7f0000003000","log":"0x3000","logged":false},"base":0,"kick":6,"call":7,"err":8,"started":true,"enabled":true},{"size":0,"base":0,"started":false,"enabled":false}]}}}"#,
    r#"{"type":"port","number":2,"slot":1,"name":"t","spec":"tap,name=t","files":[0]}"#,
    r#"{"type":"port","number":3,"slot":2,"name":"c","spec":"vhost-user,path=/run/d,mode=client","vhost_user":{"connects":true}}"#,
    r#"{"type":"learned","addresses":[{"mac":"52:54:00:00:00:01","vlan":0,"slot":0,"age":3}]}"#,
    r#"{"type":"prepare"}"#,
    r#"{"type":"standing","ports":[{"number":1,"rings":[{"ring":0,"base":4711,"failed":false},{"ring":1,"base":2147581952,"failed":true}],"counters":[[[1,2,3,4,5,6,7],[8,9]]],"drops":{"no_buffers":2}},{"number":2,"counters":[],"drops":{}}]}"#,
    r#"{"type":"stopped","at":123456789,"attempted":10,"delivered":8,"dropped":2,"copied_bytes":640}"#,
    r#"{"type":"go"}"#,
    r#"{"type":"failed","message":"a worker is stuck"}"#,
];

#[test]
fn a_hand_over_in_format_1_is_read() {
    for text in FORMAT_1 {
        let message: FromOld = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(serde_json::to_string(&message).unwrap(), *text);
    }
    let FromOld::Port(port) = serde_json::from_str(FORMAT_1[2]).unwrap() else {
        panic!("a port");
    };
    let session = port.vhost_user.unwrap().session.unwrap();
    assert_eq!((session.received, session.queued), (vec![0x0b, 0], vec![]));
    assert_eq!(session.rings[0].addresses.unwrap().used, 0x7f00_0000_3000);
    for (answer, text) in [
        (FromNew::Got, r#"{"type":"got"}"#),
        (FromNew::Prepared, r#"{"type":"prepared"}"#),
        (FromNew::Ready, r#"{"type":"ready"}"#),
        (
            FromNew::Running { gap: 800 },
            r#"{"type":"running","gap":800}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        assert_eq!(serde_json::from_str::<FromNew>(text).unwrap(), answer);
    }
}

#[test]
fn what_a_later_program_adds_is_passed_over() {
    let text = FORMAT_1[7].replace(r#""base":4711,"#, r#""base":4711,"colour":"red","#);
    assert_eq!(
        serde_json::from_str::<FromOld>(&text).unwrap(),
        serde_json::from_str(FORMAT_1[7]).unwrap()
    );
}

/// Both ends of a connection that is greeted.
fn lines(patience: Duration) -> (Line, Line) {
    let flags = SocketFlags::CLOEXEC;
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    let [mut a, mut b] = [a, b].map(|socket| Channel::new(socket).unwrap());
    while !(a.receive_hello().unwrap() & b.receive_hello().unwrap()) {}
    let deadline = Instant::now() + patience;
    (Line::new(a, deadline), Line::new(b, deadline))
}

#[test]
fn more_descriptors_than_a_message_takes_arrive_in_their_order() {
    let (mut old, mut new) = lines(Duration::from_secs(10));
    let count = u64::try_from(2 * MAX_FDS + 7).unwrap();
    let events = (0..count).map(|n| eventfd(u32::try_from(n + 1).unwrap(), EventfdFlags::empty()));
    let events: Vec<_> = events.collect::<Result<_, _>>().unwrap();
    let sender = thread::spawn(move || {
        let mut descriptors = Descriptors::default();
        for event in &events {
            descriptors.add(event.as_fd());
        }
        old.send_all(&FromOld::Prepare, &descriptors).unwrap();
        old.send_all(&FromOld::Go, &Descriptors::default()).unwrap();
    });
    let (message, mut received) = new.receive_all().unwrap();
    assert_eq!(message, FromOld::Prepare);
    for place in (0..u32::try_from(count).unwrap()).rev() {
        let event = received.take(place).unwrap();
        let mut value = [0; 8];
        rustix::io::read(&event, &mut value).unwrap();
        assert_eq!(u64::from_ne_bytes(value), u64::from(place) + 1);
        assert!(matches!(
            received.take(place),
            Err(HandoverError::NoDescriptor { place: missing }) if missing == place
        ));
    }
    let (message, mut none) = new.receive_all().unwrap();
    assert_eq!(message, FromOld::Go);
    assert!(none.take(0).is_err());
    sender.join().unwrap();
}

#[test]
fn the_other_side_may_give_up_say_nonsense_or_nothing() {
    let (mut old, mut new) = lines(Duration::from_secs(10));
    new.send(&FromNew::Failed {
        message: "no room".into(),
    })
    .unwrap();
    let error = old.expect(&FromNew::Ready).unwrap_err();
    assert_eq!(error.to_string(), "the other side gave up: no room");
    new.send(&FromNew::Running { gap: 3 }).unwrap();
    let error = old.expect(&FromNew::Ready).unwrap_err();
    assert_eq!(error.to_string(), "the other side said Running instead");
    old.set_deadline(Instant::now());
    assert!(matches!(
        old.expect(&FromNew::Ready),
        Err(HandoverError::Timeout)
    ));
    drop(old);
    assert!(matches!(new.receive_all(), Err(HandoverError::Channel(_))));
}
