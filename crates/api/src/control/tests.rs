use std::{
    fs::File,
    io::{Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    thread,
    time::Duration,
};

use proptest::prelude::*;
use rustix::event::{PollFd, PollFlags, poll};

use super::*;
use crate::port_spec::PortSpec;

const TIMEOUT: Duration = Duration::from_secs(20);

fn spec(text: &str) -> PortSpec {
    text.parse().unwrap()
}

fn pair() -> (OwnedFd, OwnedFd) {
    let (a, b) = UnixStream::pair().unwrap();
    (a.into(), b.into())
}

/// A pipe's writing end, and a reader that sees its end of file when the last copy is closed.
fn watched() -> (OwnedFd, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (write, File::from(read))
}

fn is_closed_everywhere(mut watch: File) -> bool {
    rustix::fs::fcntl_setfl(&watch, rustix::fs::OFlags::NONBLOCK).unwrap();
    matches!(watch.read(&mut [0; 1]), Ok(0))
}

fn until_readable(channel: &Channel) {
    poll(
        &mut [PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN)],
        None,
    )
    .unwrap();
}

/// Answers each request by `answer` until the client leaves.
fn serve(
    socket: OwnedFd,
    mut answer: impl FnMut(Request, Vec<OwnedFd>) -> Reply + Send + 'static,
) -> thread::JoinHandle<ChannelError> {
    thread::spawn(move || {
        let mut channel = Channel::new(socket).unwrap();
        loop {
            match channel.receive::<Request>() {
                Ok(Some(received)) => channel
                    .send(&answer(received.message, received.fds), Vec::new())
                    .unwrap(),
                Ok(None) => until_readable(&channel),
                Err(error) if !error.is_fatal() => {
                    channel
                        .send(
                            &Reply::Error {
                                message: error.to_string(),
                            },
                            Vec::new(),
                        )
                        .unwrap();
                }
                Err(error) => return error,
            }
        }
    })
}

#[test]
fn requests_and_replies_have_their_json() {
    for (request, text) in [
        (
            Request::AddPort {
                spec: spec("tap,name=t,queues=2"),
                passed: Passed::TapQueues,
            },
            r#"{"type":"add-port","spec":"tap,name=t,queues=2","passed":"tap-queues"}"#,
        ),
        (
            Request::ChangePort {
                name: "a".into(),
                change: PortChange {
                    vlan: Setting::Set(5),
                    mac: Setting::Clear,
                    ..PortChange::default()
                },
            },
            r#"{"type":"change-port","name":"a","change":{"vlan":5,"mac":null}}"#,
        ),
        (
            Request::RemovePort { name: "a".into() },
            r#"{"type":"remove-port","name":"a"}"#,
        ),
        (Request::ListPorts, r#"{"type":"list-ports"}"#),
        (
            Request::Statistics { port: None },
            r#"{"type":"statistics"}"#,
        ),
        (Request::Shutdown, r#"{"type":"shutdown"}"#),
    ] {
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
    }
    let added = serde_json::from_str::<Request>(r#"{"type":"add-port","spec":"sink"}"#).unwrap();
    assert_eq!(
        added,
        Request::AddPort {
            spec: spec("sink"),
            passed: Passed::Nothing
        }
    );
    for wrong in [
        r#"{"type":"change-port","name":"a","change":{"vlam":5}}"#,
        r#"{"type":"add-port","spec":"sink,vlan=0"}"#,
        r#"{"type":"hello","version":1}"#,
    ] {
        assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
    }
    assert_eq!(
        serde_json::to_string(&Hello { version: 1 }).unwrap(),
        r#"{"type":"hello","version":1}"#
    );
    assert_eq!(
        serde_json::from_str::<Hello>(r#"{"type":"hello","version":2,"more":3}"#).unwrap(),
        Hello { version: 2 }
    );
    assert!(serde_json::from_str::<Hello>(r#"{"type":"ok","version":2}"#).is_err());
}

#[test]
fn a_change_keeps_the_rules_of_a_specification() {
    let port = spec("sink,vlan=5,rate=1M");
    let trunk = Setting::Set("7-9".parse().unwrap());
    let change = PortChange {
        trunk: trunk.clone(),
        ..PortChange::default()
    };
    assert!(matches!(
        change.apply(&port),
        Err(SpecError::VlanAndTrunk { vlan: 5, .. })
    ));
    let change = PortChange {
        trunk,
        vlan: Setting::Clear,
        isolated: Some(true),
        ..PortChange::default()
    };
    assert_eq!(
        change.apply(&port).unwrap(),
        spec("sink,trunk=7-9,isolated,rate=1M")
    );
    let change = PortChange {
        vlan: Setting::Set(4095),
        ..PortChange::default()
    };
    assert!(matches!(
        change.apply(&port),
        Err(SpecError::BadValue { key: "vlan", .. })
    ));
    let change = PortChange {
        mac: Setting::Set(Mac([0xff; 6])),
        ..PortChange::default()
    };
    assert!(matches!(
        change.apply(&port),
        Err(SpecError::BadValue { key: "mac", .. })
    ));
}

#[test]
fn descriptors_must_fit_the_port() {
    let fits = |text: &str, passed: Passed, count| {
        passed
            .check(&spec(text).kind, count)
            .map_err(|error| error.to_string())
    };
    assert_eq!(fits("vhost-user,path=/a", Passed::Listener, 1), Ok(()));
    assert_eq!(
        fits("vhost-user,path=/a,mode=client", Passed::Connection, 1),
        Ok(())
    );
    assert_eq!(fits("tap,name=t,queues=3", Passed::TapQueues, 3), Ok(()));
    assert_eq!(fits("pcap,path=/f", Passed::File, 1), Ok(()));
    assert_eq!(fits("sink", Passed::Nothing, 0), Ok(()));
    assert_eq!(
        fits("tap,name=t,queues=3", Passed::TapQueues, 2).unwrap_err(),
        "2 file descriptors came with a tap port that needs 3: send exactly as many"
    );
    assert!(fits("sink", Passed::Nothing, 1).is_err());
    let error = fits("vhost-user,path=/a,mode=client", Passed::Listener, 1).unwrap_err();
    assert!(
        error.starts_with("a vhost-user mode=client port cannot be given a listening socket: "),
        "{error}"
    );
}

#[test]
fn a_client_asks_and_is_answered() {
    let (ours, theirs) = pair();
    let server = serve(theirs, |request, fds| match request {
        Request::AddPort { spec, passed } => match passed.check(&spec.kind, fds.len()) {
            Ok(()) => {
                for fd in fds {
                    File::from(fd).write_all(b"x").unwrap();
                }
                Reply::Added {
                    name: spec.default_name(),
                }
            }
            Err(error) => Reply::Error {
                message: error.to_string(),
            },
        },
        Request::RemovePort { name } => Reply::Error {
            message: format!("no port {name:?}"),
        },
        Request::ListPorts => {
            let port = PortInfo {
                name: "t".into(),
                spec: spec("sink,name=t"),
                connected: true,
                features: 1 << 63,
            };
            Reply::Ports { ports: vec![port] }
        }
        Request::Statistics { .. } => Reply::Statistics {
            statistics: Statistics::default(),
        },
        Request::ChangePort { .. } | Request::Shutdown => Reply::Ok,
    });
    let mut client = Client::from_socket(ours, TIMEOUT).unwrap();
    let (queues, mut watches): (Vec<_>, Vec<_>) = (0..128).map(|_| watched()).unzip();
    assert_eq!(
        client
            .add_port(spec("tap,name=t,queues=128"), Passed::TapQueues, queues)
            .unwrap(),
        "t"
    );
    for watch in &mut watches {
        let mut all = Vec::new();
        watch.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"x", "each queue arrived once and no copy stayed open");
    }
    let (fd, watch) = watched();
    assert!(matches!(
        client.add_port(spec("sink"), Passed::Nothing, vec![fd]),
        Err(ClientError::Passed(_))
    ));
    assert!(is_closed_everywhere(watch));
    assert_eq!(
        client.remove_port("x").unwrap_err().to_string(),
        "no port \"x\""
    );
    client.change_port("t", PortChange::default()).unwrap();
    assert_eq!(client.ports().unwrap()[0].features, 1 << 63);
    assert_eq!(client.statistics(None).unwrap(), Statistics::default());
    let long = "x".repeat(MAX_MESSAGE);
    assert!(matches!(
        client.remove_port(&long),
        Err(ClientError::Channel(ChannelError::Unsendable(_)))
    ));
    client.shutdown().unwrap();
    drop(client);
    assert!(matches!(server.join().unwrap(), ChannelError::Closed));
}

#[test]
fn another_version_is_answered_with_both_numbers() {
    let (mut peer, ours) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours.into()).unwrap();
    peer.write_all(&encode(&Hello { version: 7 }).unwrap())
        .unwrap();
    let sentence = "this side speaks control protocol version 1 and the other side version 7: use the same ringway on both";
    assert_eq!(
        channel.receive::<Request>().unwrap_err().to_string(),
        sentence
    );
    drop(channel);
    let mut said = Vec::new();
    peer.read_to_end(&mut said).unwrap();
    let mut expected = encode(&Hello { version: 1 }).unwrap();
    expected.extend(
        encode(&Reply::Error {
            message: sentence.into(),
        })
        .unwrap(),
    );
    assert_eq!(said, expected);
}

#[test]
fn a_refused_hello_is_told_by_the_client() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(
        &encode(&Reply::Error {
            message: "no".into(),
        })
        .unwrap(),
    )
    .unwrap();
    let error = Client::from_socket(ours.into(), TIMEOUT).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the other side refused the control connection: no"
    );
    let error = Client::connect(Path::new("/nonexistent/control"), TIMEOUT).unwrap_err();
    let sentence = "no switch answers at /nonexistent/control: start one with `ringway switch --control /nonexistent/control`";
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn a_silent_switch_costs_the_deadline_and_the_connection() {
    let (ours, _silent) = pair();
    let short = Duration::from_millis(20);
    let error = Client::from_socket(ours, short).unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Timeout {
                request: "hello",
                ..
            }
        ),
        "{error}"
    );

    let (ours, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(&encode(&Hello { version: VERSION }).unwrap())
        .unwrap();
    let mut client = Client::from_socket(ours.into(), short).unwrap();
    assert!(matches!(
        client.ports(),
        Err(ClientError::Timeout {
            request: "list-ports",
            ..
        })
    ));
    assert!(matches!(client.ports(), Err(ClientError::Disconnected)));
}

#[test]
fn a_message_that_is_not_understood_is_skipped_and_its_descriptors_closed() {
    let (ours, theirs) = pair();
    let mut sender = Channel::new(ours).unwrap();
    let mut receiver = Channel::new(theirs).unwrap();
    let (fd, watch) = watched();
    sender.send(&"nonsense", vec![fd]).unwrap();
    sender.send(&Request::ListPorts, Vec::new()).unwrap();
    let error = receiver.receive::<Request>().unwrap_err();
    assert!(!error.is_fatal() && is_closed_everywhere(watch), "{error}");
    assert_eq!(
        receiver.receive::<Request>().unwrap().unwrap().message,
        Request::ListPorts
    );
    assert!(receiver.receive::<Request>().unwrap().is_none());
}

#[test]
fn descriptors_within_a_message_end_the_connection_and_are_closed() {
    let (peer, ours) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(ours.into()).unwrap();
    let bytes = encode(&Hello { version: VERSION }).unwrap();
    (&peer).write_all(&bytes[..6]).unwrap();
    assert!(channel.receive::<Request>().unwrap().is_none() && channel.has_partial());
    let (fd, watch) = watched();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = [fd.as_fd()];
    control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
    let rest = [std::io::IoSlice::new(&bytes[6..])];
    rustix::net::sendmsg(&peer, &rest, &mut control, rustix::net::SendFlags::empty()).unwrap();
    drop(fd);
    let error = channel.receive::<Request>().unwrap_err();
    assert!(
        matches!(
            error,
            ChannelError::Codec(CodecError::StrayFds {
                count: 1,
                offset: 6
            })
        ),
        "{error}"
    );
    assert!(error.is_fatal() && is_closed_everywhere(watch));
}

#[test]
fn a_peer_that_does_not_read_cannot_make_us_hoard() {
    let (ours, _deaf) = pair();
    let mut channel = Channel::new(ours).unwrap();
    let reply = Reply::Error {
        message: "x".repeat(MAX_MESSAGE / 2),
    };
    let error = (0..100)
        .find_map(|_| channel.send(&reply, Vec::new()).err())
        .expect("a limit");
    assert!(matches!(error, ChannelError::Backlog { .. }), "{error}");
    assert!(channel.wants_write());
}

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
