//! A guest and the host's own network stack over a tap that was opened elsewhere and passed on.

mod mock;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use etherparse::{SlicedPacket, TransportSlice};
use mock::features::{ASKS, TAKES_CSUM, TAKES_TSO, USUAL};
use mock::frames::mac;
use mock::namespace::{in_namespace, ip};
use mock::{Guest, Lab, Options, PATIENCE, Received};
use ringway_api::control::{ClientError, Passed};
use ringway_host::tap;
use ringway_wire::arp;
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::tcp::flag;
use ringway_wire::vnet_hdr::{GSO_NONE, GSO_TCPV4};
use ringway_wire::{MacAddress, VnetHeader};

const HOST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);

/// A tap with an address, up, and its queues.
fn host_tap(queues: u16) -> (Vec<OwnedFd>, MacAddress) {
    tap::create_persistent("tap0", queues > 1, None).unwrap();
    let tap = tap::open("tap0", queues).unwrap();
    ip("address add 10.9.0.1/24 dev tap0");
    // After it was opened: the kernel takes up to a second to use a link that gets its carrier later.
    ip("link set tap0 up");
    (tap.queues, MacAddress(tap.mac))
}

/// A switch between a tap and a guest with these features.
struct Scene {
    lab: Lab,
    guest: Guest,
    host: MacAddress,
}

impl Scene {
    fn new(queues: u16, features: u64) -> Self {
        // A tap that comes to a switch in its sandbox gets along without io_uring.
        let lab = match queues {
            1 => Lab::start(&["a"]),
            _ => Lab::confined(&["a"]),
        };
        let (fds, host) = host_tap(queues);
        let spec = lab.spec(&format!("tap,name=tap0,queues={queues}"));
        lab.ask(|client| client.add_port(spec, Passed::TapQueues, fds))
            .unwrap();
        let options = Options {
            features: USUAL | ASKS | features,
            ..Options::default()
        };
        let guest = lab.guest("a", options);
        let mut scene = Self { lab, guest, host };
        scene.learn();
        scene
    }

    /// The guest asks for the host's address, so that both know each other's.
    fn learn(&mut self) {
        let request = arp::Packet {
            operation: arp::REQUEST,
            sender_mac: mac(2),
            sender: GUEST,
            target_mac: MacAddress::ZERO,
            target: HOST,
        };
        self.guest.send(&request.to_frame(mock::frames::BROADCAST));
        let answer = self.next(|frame| frame[12..14] == [8, 6] && frame[..6] == mac(2).0);
        let answer = arp::Packet::parse(&answer.frame[14..]).unwrap();
        assert_eq!((answer.sender, answer.sender_mac), (HOST, self.host));
    }

    /// The next frame of this kind; the host's stack sends others of its own accord.
    fn next(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Received {
        loop {
            let received = self.guest.receive();
            if wanted(&received.frame) {
                return received;
            }
        }
    }

    fn builder(&self) -> FrameBuilder {
        FrameBuilder::ipv4(GUEST, HOST).macs(mac(2), self.host)
    }
}

fn is_udp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[23] == 17
}

fn is_tcp(frame: &[u8]) -> bool {
    frame[12..14] == [8, 0] && frame[23] == 6
}

#[test]
fn datagrams_cross_with_whole_and_with_partial_checksums() {
    in_namespace(|| {
        for (queues, features) in [(1, 0), (1, TAKES_CSUM), (2, 0)] {
            let mut scene = Scene::new(queues, features);
            let socket = UdpSocket::bind((HOST, 5000)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for len in [0, 1, 18, 1472] {
                let data = vec![7; len];
                let builder = scene.builder().udp(6000, 5000);
                scene.guest.send(&builder.build(&data));
                let (partial, header) = builder.build_partial(&data);
                scene.guest.send_with(header, &partial);
                let mut buffer = [0; 2000];
                for _ in 0..2 {
                    let (count, from) = socket.recv_from(&mut buffer).unwrap();
                    assert_eq!(buffer[..count], data);
                    assert_eq!(from, (GUEST, 6000).into());
                }
                socket.send_to(&data, (GUEST, 6000)).unwrap();
                let received = scene.next(is_udp);
                let packet = SlicedPacket::from_ethernet(&received.frame).unwrap();
                let Some(TransportSlice::Udp(udp)) = packet.transport else {
                    panic!("{packet:?}");
                };
                assert_eq!(udp.payload(), data);
                let right =
                    udp.to_header()
                        .calc_checksum_ipv4_raw(HOST.octets(), GUEST.octets(), &data);
                if features == 0 {
                    assert_eq!(received.header.flags, 0);
                    assert_eq!(udp.checksum(), right.unwrap());
                }
            }
            drop((socket, scene));
            tap::delete("tap0").unwrap();
        }
    });
}

/// A TCP connection from the guest to a listener of the host, both ends by hand.
struct Connection {
    stream: std::net::TcpStream,
    fields: TcpFields,
}

impl Connection {
    fn open(scene: &mut Scene) -> Self {
        let listener = TcpListener::bind((HOST, 5001)).unwrap();
        let mut fields = TcpFields {
            source_port: 6001,
            destination_port: 5001,
            sequence: 1000,
            flags: flag::SYN,
            window: u16::MAX,
            ..TcpFields::default()
        };
        let mss = [2, 4, 0x05, 0xb4]; // 1460
        let syn = scene.builder().tcp(fields, &mss).build(&[]);
        scene.guest.send(&syn);
        let answer = scene.next(is_tcp).frame;
        let packet = SlicedPacket::from_ethernet(&answer).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
            panic!("{packet:?}");
        };
        assert!(tcp.syn() && tcp.ack());
        fields.sequence += 1;
        fields.acknowledgement = tcp.sequence_number().wrapping_add(1);
        fields.flags = flag::ACK;
        let ack = scene.builder().tcp(fields, &[]).build(&[]);
        scene.guest.send(&ack);
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, fields }
    }
}

/// As much as a sender sends before it has heard anything: ten segments.
const FLIGHT: usize = 14_000;

fn bytes() -> Vec<u8> {
    (0..FLIGHT)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

#[test]
fn large_segments_cross_whole_to_who_takes_them_and_cut_to_who_does_not() {
    for features in [TAKES_CSUM | TAKES_TSO, TAKES_CSUM, 0] {
        in_namespace(move || {
            let mut scene = Scene::new(1, features);
            let mut connection = Connection::open(&mut scene);
            connection.stream.write_all(&bytes()).unwrap();
            let start = connection.fields.acknowledgement;
            let (mut received, mut longest) = (vec![0; FLIGHT], 0);
            let mut missing = FLIGHT;
            while missing > 0 {
                let Received { header, frame, .. } = scene.next(is_tcp);
                let packet = SlicedPacket::from_ethernet(&frame).unwrap();
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
                    panic!("{packet:?}");
                };
                let at = tcp.sequence_number().wrapping_sub(start) as usize;
                let data = tcp.payload();
                received[at..at + data.len()].copy_from_slice(data);
                missing -= data.len();
                longest = longest.max(data.len());
                if data.len() > 1460 {
                    assert_eq!(header.gso_type, GSO_TCPV4);
                    assert_eq!(usize::from(header.hdr_len), frame.len() - data.len());
                } else {
                    assert_eq!(header.gso_type, GSO_NONE);
                }
                if features == 0 {
                    let right = tcp.calc_checksum_ipv4(HOST.octets(), GUEST.octets());
                    assert_eq!((tcp.checksum(), header.flags), (right.unwrap(), 0));
                }
            }
            assert_eq!(received, bytes());
            assert_eq!(longest > 1460, features & TAKES_TSO != 0, "{longest}");
            drop((connection, scene));
            tap::delete("tap0").unwrap();
        });
    }
}

#[test]
fn a_large_segment_of_the_guest_reaches_the_hosts_stack() {
    in_namespace(|| {
        let mut scene = Scene::new(1, 0);
        let mut connection = Connection::open(&mut scene);
        let mut fields = connection.fields;
        fields.flags |= flag::PSH;
        let (frame, header) = scene.builder().tcp(fields, &[]).build_gso(&bytes(), 1460);
        // The host's stack would refuse a length of headers beyond the frame.
        let said = VnetHeader {
            hdr_len: u16::MAX,
            ..header
        };
        scene.guest.send_with(said, &frame);
        let mut received = vec![0; FLIGHT];
        connection.stream.read_exact(&mut received).unwrap();
        assert_eq!(received, bytes());
        let copied = scene.lab.statistics().copied_bytes;
        assert!(copied < 1000, "to the tap nothing is copied: {copied}");
        drop((connection, scene));
        tap::delete("tap0").unwrap();
    });
}

#[test]
fn a_tap_that_is_down_drops_and_its_queues_are_free_after_the_port() {
    in_namespace(|| {
        let mut scene = Scene::new(1, 0);
        ip("link set tap0 down");
        let before = scene.lab.statistics().dropped;
        let frame = scene.builder().udp(1, 2).build(&[0; 20]);
        for _ in 0..5 {
            scene.guest.send(&frame);
        }
        let statistics = scene
            .lab
            .until("five drops", |statistics| statistics.dropped >= before + 5);
        assert_eq!(statistics.ports[1].drops["link_down"], 5);
        ip("link set tap0 up");
        scene.learn();
        assert!(tap::open("tap0", 1).is_err(), "in use");
        scene.lab.ask(|client| client.remove_port("tap0")).unwrap();
        // The port is gone from the switch and the tap can be opened again.
        drop(tap::open("tap0", 1).unwrap());
        drop(scene);
        tap::delete("tap0").unwrap();
    });
}

#[test]
fn as_many_queues_are_passed_as_were_asked_for() {
    in_namespace(|| {
        let lab = Lab::start(&[]);
        let (mut fds, _) = host_tap(2);
        fds.pop();
        let spec = lab.spec("tap,name=tap0,queues=2");
        let refused = lab.ask(|client| client.add_port(spec, Passed::TapQueues, fds));
        assert!(
            matches!(refused, Err(ClientError::Passed(_))),
            "{refused:?}"
        );
        drop(lab);
        tap::delete("tap0").unwrap();
    });
}
