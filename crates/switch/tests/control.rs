//! The control socket: ports are added, changed and removed, descriptors passed, statistics read,
//! and whoever does not keep to the protocol is told so.

mod mock;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use mock::frames::{BROADCAST, frame, mac, tagged};
use mock::{Guest, Lab, Options, PATIENCE};
use ringway_api::control::{Client, ClientError, Passed, PortChange, Setting};
use ringway_switch::{Config, NewPort, StartError, Switch};
use ringway_vhost::user::frontend::Frontend;
use ringway_wire::arp;

fn add(lab: &Lab, text: &str) -> Result<String, ClientError> {
    let spec = lab.spec(text);
    lab.ask(|client| client.add_port(spec, Passed::Nothing, Vec::new()))
}

fn change(lab: &Lab, port: &str, change: PortChange) -> Result<(), ClientError> {
    lab.ask(|client| client.change_port(port, change))
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> String {
    match outcome {
        Err(ClientError::Refused(message)) => message,
        other => panic!("{other:?}"),
    }
}

fn names(lab: &Lab) -> Vec<String> {
    let ports = lab.ask(Client::ports).unwrap();
    ports.into_iter().map(|port| port.name).collect()
}

#[test]
fn ports_are_listed_as_they_were_asked_for() {
    let lab = Lab::start(&["a,vlan=10,isolated", "b"]);
    assert_eq!(add(&lab, "sink,name=drain").unwrap(), "drain");
    assert_eq!(add(&lab, "sink").unwrap(), "sink");
    assert_eq!(add(&lab, "sink").unwrap(), "sink-2");
    assert_eq!(names(&lab), ["a", "b", "drain", "sink", "sink-2"]);
    let _guest = lab.guest("b", Options::default());
    let ports = lab.ask(Client::ports).unwrap();
    assert_eq!(ports[0].spec, lab.spec("a,vlan=10,isolated"));
    assert_eq!((ports[0].connected, ports[0].features), (false, 0));
    assert!(ports[1].connected);
    assert_eq!(ports[1].features, Options::default().features);
    assert!(lab.path("a").exists());
    lab.ask(|client| client.remove_port("a")).unwrap();
    assert!(!lab.path("a").exists());
    assert_eq!(names(&lab), ["b", "drain", "sink", "sink-2"]);
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let lab = Lab::start(&["a"]);
    let dir = lab.path("");
    let dir = dir.display();
    std::fs::write(lab.path("file.txt"), "precious").unwrap();
    let long = "x".repeat(110);
    let wrong = [
        ("sink,name=a", "there is a port a already".to_owned()),
        ("a,name=z", format!("{dir}a is in use")),
        (
            "no/z",
            format!("{dir}no/z: the directory {dir}no does not exist"),
        ),
        ("file.txt", format!("{dir}file.txt exists and is no socket")),
        (
            "z,group=no-such-group",
            "there is no group no-such-group".to_owned(),
        ),
        (
            "tap,name=tap0",
            "tap tap0 came without its queues".to_owned(),
        ),
        (
            "pcap,path=DIR/no/z.pcapng",
            format!("{dir}no/z.pcapng: cannot write"),
        ),
    ];
    for (text, message) in wrong {
        let refused = refusal(add(&lab, text));
        assert!(refused.starts_with(&message), "{text}: {refused}");
    }
    // A path that no socket can have is refused before it is sent, or by the switch.
    let text = format!("vhost-user,path={dir}{long}");
    assert!(text.parse::<ringway_api::PortSpec>().is_err());
    let missing = "there is no port z; list the ports to see which there are";
    assert_eq!(refusal(lab.ask(|client| client.remove_port("z"))), missing);
    assert_eq!(refusal(change(&lab, "z", PortChange::default())), missing);
    assert_eq!(
        refusal(lab.ask(|client| client.statistics(Some("z")))),
        missing
    );
    let both = PortChange {
        vlan: Setting::Set(10),
        trunk: Setting::Set("20".parse().unwrap()),
        ..PortChange::default()
    };
    refusal(change(&lab, "a", both));
    let ports = lab.ask(Client::ports).unwrap();
    assert_eq!((ports.len(), &ports[0].spec), (1, &lab.spec("a")));
    assert_eq!(std::fs::read(lab.path("file.txt")).unwrap(), b"precious");
    assert!(!lab.path("z").exists(), "left behind");
}

#[test]
fn a_switch_that_does_not_start_leaves_nothing() {
    let lab = Lab::start(&[]);
    let port = |text| NewPort::from(lab.spec(text));
    let outcome = Switch::embed(Config {
        ports: vec![port("a"), port("no/b")],
        control: Some(lab.path("other")),
        ..Config::default()
    });
    assert!(matches!(outcome, Err(StartError::Port(_))));
    assert!(!lab.path("a").exists());
    assert!(!lab.path("other").exists());
    let outcome = Switch::embed(Config {
        control: Some(lab.path("control")),
        ..Config::default()
    });
    assert!(matches!(outcome, Err(StartError::Control(_))), "in use");
    assert_eq!(names(&lab), [""; 0]);
}

#[test]
fn settings_change_while_frames_cross() {
    let lab = Lab::start(&["a", "b", "c"]);
    let [mut a, mut b, mut c] = ["a", "b", "c"].map(|name| lab.guest(name, Options::default()));
    let hello = frame(mac(1), BROADCAST, 60, 1);
    a.send(&hello);
    b.receive();
    c.receive();
    for name in ["a", "b"] {
        let vlan = Setting::Set(10);
        change(
            &lab,
            name,
            PortChange {
                vlan,
                ..PortChange::default()
            },
        )
        .unwrap();
    }
    a.send(&hello);
    b.receive();
    let untag = PortChange {
        vlan: Setting::Clear,
        trunk: Setting::Set("10+11".parse().unwrap()),
        ..PortChange::default()
    };
    change(&lab, "b", untag).unwrap();
    a.send(&hello);
    assert_eq!(b.receive().frame, tagged(&hello, 10));
    assert_eq!(c.try_receive(), None);
    for name in ["a", "b"] {
        let plain = PortChange {
            vlan: Setting::Clear,
            trunk: Setting::Clear,
            isolated: Some(true),
            ..PortChange::default()
        };
        change(&lab, name, plain).unwrap();
    }
    a.send(&hello);
    c.receive();
    let mac_only = PortChange {
        mac: Setting::Set("02:00:00:00:00:07".parse().unwrap()),
        isolated: Some(false),
        ..PortChange::default()
    };
    change(&lab, "a", mac_only).unwrap();
    a.send(&hello);
    a.send(&frame(mac(7), BROADCAST, 60, 2));
    for guest in [&mut b, &mut c] {
        assert_eq!(guest.receive().frame, frame(mac(7), BROADCAST, 60, 2));
    }
    assert_eq!(lab.port("a").drops["spoofed_mac"], 1);
    let rate = PortChange {
        mac: Setting::Clear,
        rate: Setting::Set("1G".parse().unwrap()),
        ..PortChange::default()
    };
    change(&lab, "a", rate).unwrap();
    a.send(&hello);
    for guest in [&mut b, &mut c] {
        assert_eq!(guest.receive().frame, hello);
    }
    let spec = &lab.ask(Client::ports).unwrap()[0].spec;
    assert_eq!(*spec, lab.spec("a,rate=1G"));
}

#[test]
fn sockets_and_files_can_be_opened_by_somebody_else() {
    let lab = Lab::start(&[]);
    let listener = UnixListener::bind(lab.path("ours.sock")).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let file = std::fs::File::create(lab.path("all.pcapng")).unwrap();
    let client_port = format!(
        "vhost-user,path={},mode=client,name=client",
        lab.path("x").display()
    );
    lab.ask(|client| {
        let pass = |client: &mut Client, text: &str, passed, fd: OwnedFd| {
            client.add_port(lab.spec(text), passed, vec![fd]).unwrap()
        };
        pass(
            client,
            "elsewhere,name=server",
            Passed::Listener,
            listener.into(),
        );
        pass(
            client,
            "pcap,path=DIR/ignored,name=file",
            Passed::File,
            file.into(),
        );
        let spec = client_port.parse().unwrap();
        let name = client.add_port(spec, Passed::Connection, vec![theirs.into()]);
        assert_eq!(name.unwrap(), "client");
    });
    let mut server = Guest::start(&lab.path("ours.sock"), Options::default());
    let front = Frontend::new(ours.into(), PATIENCE).unwrap();
    let mut client = Guest::over(front, Options::default());
    client.send(&frame(mac(1), BROADCAST, 60, 1));
    assert_eq!(server.receive().frame, frame(mac(1), BROADCAST, 60, 1));
    server.send(&frame(mac(2), mac(1), 77, 2));
    assert_eq!(client.receive().frame, frame(mac(2), mac(1), 77, 2));
    // What a front-end has sent in its guest's name is recorded as well.
    server.front.send_rarp(mac(2).0).unwrap();
    assert_eq!(client.receive().frame, arp::rarp_announce(mac(2)));
    assert!(!lab.path("elsewhere").exists());
    assert!(!lab.path("ignored").exists());
    // A connection that was passed and ended does not come again; a listener goes on.
    drop(client);
    lab.until("the end of the session", |statistics| {
        !statistics.ports[2].connected
    });
    drop(server);
    lab.until("the end of the session", |statistics| {
        !statistics.ports[0].connected
    });
    Guest::start(&lab.path("ours.sock"), Options::default());
    lab.ask(|client| client.remove_port("file")).unwrap();
    assert_eq!(tcpdump(&lab, "all.pcapng"), 3);
    lab.ask(|client| client.remove_port("server")).unwrap();
    assert!(lab.path("ours.sock").exists(), "whoever made it removes it");
    std::fs::remove_file(lab.path("ours.sock")).unwrap();
}

#[test]
fn a_switch_in_its_sandbox_is_given_what_a_port_needs() {
    let lab = Lab::confined(&["a"]);
    let texts = ["b", "pcap,path=DIR/all.pcapng,name=file"];
    for (text, wanted) in texts.into_iter().zip(["a listening socket", "a file"]) {
        let spec = lab.spec(text);
        let refused = lab.ask(|client| client.add_port(spec, Passed::Nothing, Vec::new()));
        let sentence = refused.unwrap_err().to_string();
        assert!(sentence.contains(wanted), "{sentence}");
        assert!(sentence.contains("--sandbox off"), "{sentence}");
    }
    // The control socket, the port's, and its journal.
    assert_eq!(std::fs::read_dir(lab.path("")).unwrap().count(), 3);
    for text in texts {
        let spec = lab.spec(text);
        lab.ask(|client| client.open_port(spec)).unwrap();
    }
    // Twice is refused, and the socket that stands is left alone.
    let twice = lab.spec("b,name=other");
    let refused = lab.ask(|client| client.open_port(twice)).unwrap_err();
    assert!(refused.to_string().contains("in use"), "{refused}");
    let (mut a, mut b) = lab.pair();
    for round in 0..3 {
        a.send(&frame(mac(1), BROADCAST, 60, round));
        assert_eq!(b.receive().frame, frame(mac(1), BROADCAST, 60, round));
        drop(b);
        lab.until("the end of the session", |statistics| {
            !statistics.ports[1].connected
        });
        b = lab.guest("b", Options::default());
    }
    lab.ask(|client| client.close_port("file")).unwrap();
    assert_eq!(tcpdump(&lab, "all.pcapng"), 3);
    lab.ask(|client| client.close_port("b")).unwrap();
    assert!(!lab.path("b").exists(), "who made it removes it");
}

/// Packets that tcpdump finds in a file.
fn tcpdump(lab: &Lab, file: &str) -> usize {
    let output = Command::new("tcpdump")
        .args(["-n", "-e", "-r"])
        .arg(lab.path(file))
        .output()
        .expect("tcpdump is installed (apt-get install tcpdump)");
    assert!(output.status.success(), "{output:?}");
    let lines = output.stdout.split(|&byte| byte == b'\n');
    // Below each packet's line stand its bytes, indented.
    lines
        .filter(|line| line.first().is_some_and(u8::is_ascii_digit))
        .count()
}

#[test]
fn descriptors_that_do_not_fit_are_refused_and_closed() {
    let lab = Lab::start(&[]);
    let (kept, sent) = UnixStream::pair().unwrap();
    let request = br#"{"type":"add-port","spec":"sink,name=s","passed":"file"}"#;
    let mut raw = Raw::connect(&lab);
    raw.greet();
    raw.send_with(request, sent.into());
    let reply = raw.receive();
    assert!(
        reply.contains("a sink port cannot be given a file"),
        "{reply}"
    );
    // Nobody has the other end any more.
    assert_eq!((&kept).read(&mut [0]).unwrap(), 0);
    let request = br#"{"type":"add-port","spec":"pcap,path=/tmp/x","passed":"file"}"#;
    raw.send(request);
    let reply = raw.receive();
    assert!(
        reply.contains("0 file descriptors came with a pcap port that needs 1"),
        "{reply}"
    );
    assert_eq!(names(&lab), [""; 0]);
}

/// A control connection without a client.
struct Raw(UnixStream);

impl Raw {
    fn connect(lab: &Lab) -> Self {
        let socket = UnixStream::connect(lab.path("control")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn greet(&mut self) {
        assert_eq!(self.receive(), r#"{"type":"hello","version":1}"#);
        self.send(br#"{"type":"hello","version":1}"#);
    }

    fn send(&mut self, body: &[u8]) {
        self.0.write_all(&framed(body)).unwrap();
    }

    fn send_with(&mut self, body: &[u8], fd: OwnedFd) {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        use std::os::fd::AsFd;
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let bytes = framed(body);
        let pieces = [std::io::IoSlice::new(&bytes)];
        let sent = sendmsg(&self.0, &pieces, &mut control, SendFlags::empty());
        assert_eq!(sent.unwrap(), bytes.len());
    }

    fn receive(&mut self) -> String {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The switch has closed the connection.
    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&length.to_le_bytes()[..], body].concat()
}

#[test]
fn another_version_is_told_both_and_left() {
    let lab = Lab::start(&[]);
    let mut raw = Raw::connect(&lab);
    raw.receive();
    raw.send(br#"{"type":"hello","version":2}"#);
    let reply = raw.receive();
    assert!(reply.contains("version 1"), "{reply}");
    assert!(reply.contains("version 2"), "{reply}");
    assert!(raw.is_closed());
    assert_eq!(names(&lab), [""; 0]);
}

#[test]
fn a_request_that_is_not_understood_is_answered_and_the_next_one_is_served() {
    let lab = Lab::start(&["a"]);
    let mut raw = Raw::connect(&lab);
    raw.greet();
    let wrong: [&[u8]; 7] = [
        b"",
        b"{",
        b"\xff\xfe",
        br#"{"type":"fly"}"#,
        br#"{"type":"remove-port"}"#,
        br#"{"type":"add-port","spec":"balloon"}"#,
        br#"{"type":"change-port","name":"a","change":{"vlan":4095}}"#,
    ];
    for wrong in wrong {
        raw.send(wrong);
        let reply = raw.receive();
        assert!(
            reply.starts_with(r#"{"type":"error","message":""#),
            "{reply}"
        );
    }
    raw.send(br#"{"type":"add-port","spec":"balloon"}"#);
    let reply = raw.receive();
    assert!(reply.contains("balloon"), "the value is named: {reply}");
    raw.send(br#"{"type":"list-ports"}"#);
    assert!(raw.receive().contains(r#""name":"a""#));
}

#[test]
fn what_cannot_be_a_message_ends_that_connection_alone() {
    let lab = Lab::start(&[]);
    let mut other = lab.client();
    for bytes in [&u32::MAX.to_le_bytes()[..], &(1u32 << 20 | 1).to_le_bytes()] {
        let mut raw = Raw::connect(&lab);
        raw.greet();
        raw.0.write_all(bytes).unwrap();
        assert!(raw.is_closed());
    }
    // Half a message and gone; nothing and gone; no hello.
    let mut raw = Raw::connect(&lab);
    raw.greet();
    raw.0.write_all(&framed(b"{}")[..5]).unwrap();
    drop(raw);
    drop(Raw::connect(&lab));
    let mut raw = Raw::connect(&lab);
    raw.receive();
    raw.send(br#"{"type":"list-ports"}"#);
    assert!(raw.is_closed());
    assert!(other.ports().unwrap().is_empty());
}

#[test]
fn many_clients_are_served_and_one_too_many_is_turned_away() {
    let lab = Lab::start(&["a"]);
    // With the lab's own there are sixteen.
    let clients: Vec<_> = (0..15).map(|_| lab.client()).collect();
    let refused = Client::connect(&lab.path("control"), PATIENCE);
    assert!(refused.is_err(), "{refused:?}");
    let threads = clients.into_iter().enumerate().map(|(n, mut client)| {
        std::thread::spawn(move || {
            for round in 0..40 {
                let name = format!("s{n}-{round}");
                let spec = format!("sink,name={name}").parse().unwrap();
                client.add_port(spec, Passed::Nothing, Vec::new()).unwrap();
                assert_eq!(client.statistics(Some(&name)).unwrap().ports.len(), 1);
                client.remove_port(&name).unwrap();
            }
        })
    });
    let threads: Vec<_> = threads.collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(names(&lab), ["a"]);
    lab.client();
}

#[test]
fn a_reply_longer_than_a_socket_takes_at_once_arrives() {
    let lab = Lab::start(&[]);
    for n in 0..80 {
        add(&lab, &format!("port-{n},queues=128")).unwrap();
    }
    let statistics = lab.statistics();
    let json = statistics.to_json();
    assert!(json.len() > 700_000, "{}", json.len());
    assert_eq!(statistics.ports.len(), 80);
    assert!(statistics.ports.iter().all(|port| port.queues.len() == 128));
}

#[test]
fn a_client_ends_the_switch() {
    let mut lab = Lab::start(&["a"]);
    let mut guest = lab.guest("a", Options::default());
    lab.ask(Client::shutdown).unwrap();
    lab.join();
    assert!(!lab.path("a").exists());
    assert!(!lab.path("control").exists());
    assert!(guest.front.get_features().is_err(), "the session has ended");
}
