//! UDP segmentation offload (USO): large datagrams of the host's stack come through the tap whole; a
//! guest that takes them gets them so, another gets the datagrams that the sender meant.

mod mock;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mock::features::{ASKS, ASKS_USO, TAKES_CSUM, TAKES_TSO, TAKES_USO, USUAL};
use mock::frames::{BROADCAST, frame, mac};
use mock::namespace::{in_namespace, ip};
use mock::{Guest, Lab, Options, PATIENCE, Received};
use ringway_api::control::Passed;
use ringway_host::tap;
use ringway_switch::offload::complete_checksum;
use ringway_wire::MacAddress;
use ringway_wire::build::FrameBuilder;
use ringway_wire::vnet_hdr::GSO_UDP_L4;

const ENDS: [(IpAddr, IpAddr); 2] = [
    (
        IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1)),
        IpAddr::V4(Ipv4Addr::new(10, 9, 0, 2)),
    ),
    (
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)),
    ),
];

/// Two guests at a tap of the host: guest 2 with these features, and one that takes everything.
struct Scene {
    lab: Lab,
    guest: Guest,
    other: Guest,
    host: MacAddress,
    /// The kernel knows USO.
    known: bool,
}

impl Scene {
    fn new(takes: u64) -> Self {
        let lab = Lab::start(&["a", "b"]);
        tap::create_persistent("tap0", false, None).unwrap();
        let tap = tap::open("tap0", 1).unwrap();
        let set = tap::set_offload(tap.queues[0].as_fd(), tap::Offloads::ALL).unwrap();
        // It says nothing of its own accord, and knows where the guest is.
        ip("link set tap0 addrgenmode none");
        for (host, guest) in ENDS {
            let nodad = if host.is_ipv6() { " nodad" } else { "" };
            let bits = if host.is_ipv6() { 64 } else { 24 };
            ip(&format!("address add {host}/{bits} dev tap0{nodad}"));
            ip(&format!("neigh add {guest} lladdr {} dev tap0", mac(2)));
        }
        ip("link set tap0 up");
        let spec = lab.spec("tap,name=tap0");
        lab.ask(|client| client.add_port(spec, Passed::TapQueues, tap.queues))
            .unwrap();
        let options = |takes| Options {
            features: USUAL | ASKS | ASKS_USO | takes,
            ..Options::default()
        };
        let mut guest = lab.guest("a", options(takes));
        let mut other = lab.guest("b", options(TAKES_CSUM | TAKES_TSO | TAKES_USO));
        guest.send(&frame(mac(2), BROADCAST, 60, 0));
        other.receive();
        let host = MacAddress(tap.mac);
        let known = set.uso;
        Self {
            lab,
            guest,
            other,
            host,
            known,
        }
    }

    /// Frames that the tap has given so far.
    fn given(&self) -> u64 {
        self.lab.port("tap0").queues[0].rx_frames
    }

    /// The next UDP datagram for the guest: its header, and what it says. The host also announces itself
    /// to groups (MLD).
    fn next(&mut self) -> (Received, Vec<u8>, u16) {
        let mut received = self.guest.receive();
        while received.frame[0] & 1 != 0 {
            received = self.guest.receive();
        }
        let copy = received.frame.clone();
        let packet = SlicedPacket::from_ethernet(&copy).unwrap();
        let ident = match packet.net.unwrap() {
            NetSlice::Ipv4(network) => network.header().identification(),
            _ => 0,
        };
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("{:02x?}", received.frame);
        };
        let data = udp.payload().to_vec();
        (received, data, ident)
    }
}

/// A socket whose sends are cut into datagrams of `size` bytes.
fn sender(host: IpAddr, size: i32) -> UdpSocket {
    let socket = UdpSocket::bind((host, 5000)).unwrap();
    let bytes = libc::socklen_t::try_from(size_of::<i32>()).unwrap();
    let at = (&raw const size).cast();
    // SAFETY: the kernel reads `bytes` bytes from `at`, which is a number that lives until the call returns.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_UDP,
            libc::UDP_SEGMENT,
            at,
            bytes,
        )
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    socket
}

fn payload(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

#[test]
fn datagrams_of_the_host_reach_every_guest_in_the_form_it_takes() {
    for takes in [
        0,
        TAKES_CSUM,
        TAKES_CSUM | TAKES_TSO,
        TAKES_CSUM | TAKES_TSO | TAKES_USO,
    ] {
        in_namespace(move || {
            let mut scene = Scene::new(takes);
            for (host, guest) in ENDS {
                for (len, size) in [(4321, 1000), (3000, 1000), (1001, 1000), (64_000, 1400)] {
                    let data = payload(len);
                    let before = scene.given();
                    let to = SocketAddr::new(guest, 6000);
                    let count = sender(host, size).send_to(&data, to).unwrap();
                    assert_eq!(count, len);
                    let size = usize::try_from(size).unwrap();
                    if takes & TAKES_USO != 0 && scene.known {
                        let (received, whole, _) = scene.next();
                        assert_eq!(received.header.gso_type, GSO_UDP_L4);
                        assert_eq!(usize::from(received.header.gso_size), size);
                        assert!(whole == data);
                    } else {
                        let idents: Vec<_> = data
                            .chunks(size)
                            .map(|chunk| datagram(&mut scene, chunk, takes))
                            .collect();
                        let counted = idents
                            .windows(2)
                            .all(|two| two[1] == two[0].wrapping_add(u16::from(host.is_ipv4())));
                        assert!(counted, "{idents:?}");
                    }
                    if scene.known {
                        // Whole, and perhaps an announcement; in pieces it would be three at least.
                        let given = scene.given() - before;
                        assert!(given <= 2, "{len} bytes in {given} frames");
                    }
                }
            }
            // Announcements of the host may find no guest yet.
            let ports = scene.lab.statistics().ports;
            let drops = ports.iter().flat_map(|port| &port.drops);
            let early = ["no_destination", "not_connected"];
            let lost: Vec<_> = drops
                .filter(|(reason, _)| !early.contains(&reason.as_str()))
                .collect();
            assert!(lost.is_empty(), "{lost:?}");
            drop(scene);
            tap::delete("tap0").unwrap();
        });
    }
}

/// The next frame is this datagram, with a right checksum; its IPv4 identification.
fn datagram(scene: &mut Scene, expected: &[u8], takes: u64) -> u16 {
    let (received, data, ident) = scene.next();
    assert!(data == expected);
    let Received {
        header, mut frame, ..
    } = received;
    assert!(!header.is_gso() && (takes & TAKES_CSUM != 0 || !header.needs_csum()));
    complete_checksum(&mut frame, &header).unwrap();
    let packet = SlicedPacket::from_ethernet(&frame).unwrap();
    let Some(TransportSlice::Udp(udp)) = packet.transport else {
        unreachable!();
    };
    let right = match packet.net.unwrap() {
        NetSlice::Ipv4(network) => {
            let ip = network.header();
            udp.to_header()
                .calc_checksum_ipv4_raw(ip.source(), ip.destination(), expected)
        }
        NetSlice::Ipv6(network) => {
            let ip = network.header();
            udp.to_header()
                .calc_checksum_ipv6_raw(ip.source(), ip.destination(), expected)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(udp.checksum(), right.unwrap());
    ident
}

#[test]
fn large_datagrams_of_a_guest_reach_the_hosts_sockets_and_other_guests() {
    in_namespace(|| {
        let mut scene = Scene::new(TAKES_CSUM | TAKES_TSO);
        let (host, guest) = ENDS[0];
        let (IpAddr::V4(from), IpAddr::V4(to)) = (guest, host) else {
            unreachable!();
        };
        let socket = UdpSocket::bind((host, 5000)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let data = payload(4321);
        let build = |to: Ipv4Addr, address| {
            let builder = FrameBuilder::ipv4(from, to).macs(mac(2), address);
            builder.udp(6000, 5000).build_gso(&data, 1000)
        };
        let (frame, header) = build(to, scene.host);
        scene.guest.send_with(header, &frame);
        let mut buffer = [0; 2000];
        for chunk in data.chunks(1000) {
            let count = socket.recv(&mut buffer).unwrap();
            assert!(buffer[..count] == *chunk);
        }
        // Whole from guest to guest.
        let (frame, header) = build(Ipv4Addr::new(10, 9, 0, 3), BROADCAST);
        scene.guest.send_with(header, &frame);
        loop {
            let received = scene.other.receive();
            if received.frame == frame {
                assert_eq!(received.header.gso_type, GSO_UDP_L4);
                break;
            }
        }
        drop((socket, scene));
        tap::delete("tap0").unwrap();
    });
}
