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

use rustix::event::{PollFd, PollFlags, poll};

use super::{super::*, spec};

const TIMEOUT: Duration = Duration::from_secs(20);

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
        Request::TakeOver { oldest, .. } => Reply::HandingOver { format: oldest },
        Request::ListAddresses { .. } => Reply::Addresses {
            addresses: Vec::new(),
            learned: 3,
        },
        Request::ChangePort { .. } | Request::Capture { .. } | Request::Shutdown => Reply::Ok,
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
