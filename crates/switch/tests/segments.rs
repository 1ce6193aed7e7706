//! Software segmentation and checksum completion against the kernel's own: the same frames are given
//! to both, and what comes out is compared byte for byte.
//!
//! Where the two differ on purpose, a test of its own says so: [`fits_in_one_segment`],
//! [`more_datagrams_than_the_kernel_makes`], [`fragments_and_padding`].

mod mock;
#[path = "segments/random.rs"]
mod random;

use std::net::{Ipv4Addr, Ipv6Addr};

use mock::Kernel;
use mock::frames::mac;
use mock::namespace::in_namespace;
use ringway_switch::offload::{Checksums, MAX_HEAD_LEN, Segmenter, complete_checksum};
use ringway_wire::build::{FrameBuilder, TcpFields};
use ringway_wire::ipv6::extension;
use ringway_wire::tcp::flag;
use ringway_wire::vlan::{Tag, VlanId};
use ringway_wire::vnet_hdr::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};
use ringway_wire::{EtherType, VnetHeader};

/// Datagrams that the kernel cuts at most (UDP_MAX_SEGMENTS).
const KERNEL_DATAGRAMS: usize = 128;

fn v4() -> FrameBuilder {
    let ends = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    FrameBuilder::ipv4(ends.0, ends.1)
        .fragment(0xfffe, 0x4000)
        .macs(mac(1), mac(2))
}

fn v6() -> FrameBuilder {
    let ends = ["fd00::1", "fd00::2"].map(|end| end.parse::<Ipv6Addr>().unwrap());
    FrameBuilder::ipv6(ends[0], ends[1]).macs(mac(1), mac(2))
}

fn tag(tpid: EtherType, vlan: u16) -> Tag {
    Tag {
        tpid,
        tci: 0xa000 | Tag::new(VlanId::new(vlan).unwrap()).tci,
    }
}

fn tcp(network: &FrameBuilder, flags: u8, options: &[u8]) -> FrameBuilder {
    let fields = TcpFields {
        source_port: 40_000,
        destination_port: 5201,
        // Wraps within the larger frames.
        sequence: 0xffff_f000,
        acknowledgement: 7,
        flags,
        window: 512,
    };
    network.clone().tcp(fields, options)
}

fn payload(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

/// Networks of every shape, by how they are called.
fn networks() -> Vec<(&'static str, FrameBuilder)> {
    let ctag = tag(EtherType::VLAN, 42);
    let stag = tag(EtherType::QINQ, 7);
    vec![
        ("IPv4", v4()),
        ("IPv4 that may be fragmented", v4().fragment(1, 0)),
        ("IPv4, router alert", v4().options(&[0x94, 4, 0, 0])),
        ("IPv4, 40 bytes of options", v4().options(&[1; 40])),
        ("IPv4, tagged", v4().tag(ctag)),
        ("IPv4, tagged twice", v4().tag(stag).tag(ctag)),
        (
            "IPv4, twice by the inner kind",
            v4().tag(ctag).tag(tag(EtherType::VLAN, 9)),
        ),
        ("IPv6", v6()),
        (
            "IPv6, hop by hop",
            v6().extension(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0]),
        ),
        (
            "IPv6, destination options",
            v6().extension(extension::DESTINATION, &[1, 4]),
        ),
        (
            "IPv6, routing",
            v6().extension(extension::ROUTING, &[4, 0, 0, 0, 0, 0]),
        ),
        (
            "IPv6, all of them, tagged",
            v6().tag(ctag)
                .extension(extension::HOP_BY_HOP, &[5, 2, 0, 0, 1, 0])
                .extension(extension::DESTINATION, &[1, 12])
                .extension(extension::ROUTING, &[4; 22])
                .extension(extension::DESTINATION, &[1, 4]),
        ),
        ("IPv6, tagged twice", v6().tag(stag).tag(ctag)),
    ]
}

/// Transports of every kind over a network.
fn transports(network: &FrameBuilder) -> Vec<FrameBuilder> {
    let ends = flag::ACK | flag::PSH | flag::FIN;
    vec![
        network.clone().udp(53, 4444),
        tcp(network, flag::ACK, &[]),
        tcp(network, ends, &TIMESTAMPS),
        tcp(network, ends | flag::CWR | flag::ECE, &TIMESTAMPS),
        tcp(network, flag::ACK | flag::CWR, &[1; 40]),
        tcp(network, u8::MAX, &[]),
    ]
}

/// Our segments with complete checksums; none if the frame is refused.
fn ours(header: VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
    let Ok(mut segmenter) = Segmenter::new(frame, &header, Checksums::Complete) else {
        return Vec::new();
    };
    let mut head = [0; MAX_HEAD_LEN];
    let mut made = Vec::new();
    while let Some(segment) = segmenter.next(&mut head) {
        let mut bytes = head[..segmenter.head_len()].to_vec();
        bytes.extend(&frame[segment.body]);
        made.push(bytes);
    }
    made
}

/// Where two lists of frames differ first.
fn difference(ours: &[Vec<u8>], theirs: &[Vec<u8>]) -> Option<String> {
    if ours.len() != theirs.len() {
        return Some(format!("{} frames, theirs {}", ours.len(), theirs.len()));
    }
    ours.iter()
        .zip(theirs)
        .enumerate()
        .find(|(_, (ours, theirs))| ours != theirs)
        .map(|(n, (ours, theirs))| {
            let len = (ours.len(), theirs.len());
            let at = ours.iter().zip(theirs).position(|(a, b)| a != b);
            let show = |bytes: &[u8]| bytes[..bytes.len().min(120)].to_vec();
            format!(
                "frame {n}: lengths {len:?}, byte {at:?}\nours   {:02x?}\ntheirs {:02x?}",
                show(ours),
                show(theirs)
            )
        })
}

/// Both make the same of it, and that is something.
fn same(kernel: &Kernel, header: VnetHeader, frame: &[u8]) -> Result<usize, String> {
    let (ours, theirs) = (ours(header, frame), kernel.pass(header, frame));
    match difference(&ours, &theirs) {
        None if ours.is_empty() => Err(format!("refused: {header:?}")),
        None => Ok(ours.len()),
        Some(difference) => Err(format!("{header:?}\n{difference}")),
    }
}

#[test]
fn large_frames_become_what_the_kernel_makes_of_them() {
    in_namespace(|| {
        let kernel = Kernel::new();
        for (name, network) in networks() {
            for builder in transports(&network) {
                // A multiple, a short last segment, a last one of a single byte, odd sizes.
                for (len, size) in [
                    (2896, 1448),
                    (4000, 1448),
                    (1449, 1448),
                    (20_001, 1447),
                    (9000, 536),
                    (5000, 87),
                    (60_000, 8948),
                ] {
                    let (frame, header) = builder.build_gso(&payload(len), size);
                    let made = same(&kernel, header, &frame)
                        .unwrap_or_else(|error| panic!("{name}, {len} by {size}: {error}"));
                    assert_eq!(made, len.div_ceil(size.into()));
                }
            }
        }
    });
}

#[test]
fn packets_of_65535_bytes() {
    in_namespace(|| {
        let kernel = Kernel::new();
        for (name, network) in networks() {
            for builder in transports(&network) {
                let headers = builder.build(&[]).len() - 14;
                let (tags, fixed) = match name {
                    name if name.contains("twice") => (8, 0),
                    name if name.contains("tagged") => (4, 0),
                    _ => (0, 0),
                };
                let ip = headers - tags;
                // IPv6 does not count its own header.
                let most = 65_535 - ip + if name.starts_with("IPv6") { 40 } else { fixed };
                for (len, size) in [(most, 1440), (most, 8947), (most - 1, 1447)] {
                    let (frame, header) = builder.build_gso(&payload(len), size);
                    same(&kernel, header, &frame)
                        .unwrap_or_else(|error| panic!("{name}, {len} by {size}: {error}"));
                }
            }
        }
    });
}

/// A TCP checksum may come out as either zero, and the kernel has its own for each way to get there.
#[test]
fn checksums_that_come_out_as_zero() {
    in_namespace(|| {
        let kernel = Kernel::new();
        for network in [v4(), v6()] {
            for builder in [network.clone().udp(1, 2), tcp(&network, flag::ACK, &[])] {
                // The checksum of the first segment, as data in its place, makes its sum 0xffff.
                let (mut frame, header) = builder.build_gso(&[0; 40], 20);
                let at = usize::from(header.csum_start + header.csum_offset);
                let first = ours(header, &frame).remove(0);
                let body = frame.len() - 40;
                frame[body..body + 2].copy_from_slice(&first[at..at + 2]);
                assert_eq!(same(&kernel, header, &frame), Ok(2));

                let (mut frame, header) = builder.build_partial(&[0; 20]);
                let right = completed(header, &frame);
                let body = frame.len() - 20;
                frame[body..body + 2].copy_from_slice(&right[at..at + 2]);
                let right = completed(header, &frame);
                assert_eq!(right[at..at + 2], [0xff; 2]);
                assert_eq!(kernel.pass(header, &frame), [right]);
            }
        }
    });
}

fn completed(header: VnetHeader, frame: &[u8]) -> Vec<u8> {
    let mut whole = frame.to_vec();
    complete_checksum(&mut whole, &header).unwrap();
    whole
}

#[test]
fn partial_checksums_become_what_the_kernel_makes_of_them() {
    in_namespace(|| {
        let kernel = Kernel::new();
        for (name, network) in networks() {
            for builder in transports(&network) {
                for len in [0, 1, 2, 60, 1400, 1401, 9000, 65_000] {
                    let (frame, header) = builder.build_partial(&payload(len));
                    let theirs = kernel.pass(header, &frame);
                    let difference = difference(&[completed(header, &frame)], &theirs);
                    assert_eq!(difference, None, "{name}, {len} bytes");
                }
            }
        }
    });
}

/// What neither makes anything of.
#[test]
fn what_cannot_be_segmented() {
    in_namespace(|| {
        let kernel = Kernel::new();
        let data = payload(4000);
        let good = tcp(&v4(), flag::ACK, &[]);
        let (frame, header) = good.build_gso(&data, 1000);
        let change = |change: &dyn Fn(&mut VnetHeader)| {
            let mut header = header;
            change(&mut header);
            ("header", header, frame.clone())
        };
        let whole = |name, builder: FrameBuilder| {
            let (frame, header) = builder.build_gso(&data, 1000);
            (name, header, frame)
        };
        let atomic = v6().extension(extension::FRAGMENT, &[0; 6]);
        let guarded = v6().extension(extension::AUTHENTICATION, &[0; 22]);
        let cases = [
            change(&|header| header.gso_size = 0),
            change(&|header| header.gso_type = GSO_TCPV6),
            change(&|header| header.gso_type = GSO_UDP_L4),
            change(&|header| header.gso_type = GSO_ECN),
            change(&|header| header.gso_type = 2),
            change(&|header| header.csum_offset = 6),
            change(&|header| header.csum_start = u16::MAX),
            whole("a fragment header, TCP", tcp(&atomic, flag::ACK, &[])),
            whole("a fragment header, UDP", atomic.clone().udp(1, 2)),
            whole("authenticated, TCP", tcp(&guarded, flag::ACK, &[])),
            whole("authenticated, UDP", guarded.clone().udp(1, 2)),
            whole(
                "no next header",
                tcp(&v6().extension(extension::NONE, &[]), flag::ACK, &[]),
            ),
        ];
        for (name, header, frame) in cases {
            let (ours, theirs) = (ours(header, &frame), kernel.pass(header, &frame));
            assert_eq!(
                (ours.len(), theirs.len()),
                (0, 0),
                "{name} {header:?}: {:?}",
                difference(&ours, &theirs)
            );
        }
        assert_eq!(same(&kernel, header, &frame), Ok(4));
    });
}

/// What is not longer than one segment is sent as it is here. The kernel does so too, but drops what
/// only the TCP options make longer than a segment.
#[test]
fn fits_in_one_segment() {
    in_namespace(|| {
        let kernel = Kernel::new();
        for network in [v4(), v6()] {
            for (options, len, drops) in [
                (&TIMESTAMPS[..0], 1000, false),
                (&TIMESTAMPS, 988, false),
                (&TIMESTAMPS, 989, true),
                (&TIMESTAMPS, 1000, true),
            ] {
                let builder = tcp(&network, flag::ACK | flag::FIN, options);
                let (frame, header) = builder.build_gso(&payload(len), 1000);
                let whole = builder.build(&payload(len));
                assert_eq!(ours(header, &frame), [whole]);
                let theirs = kernel.pass(header, &frame);
                assert_eq!(theirs.is_empty(), drops, "{len}");
                if !drops {
                    assert_eq!(difference(&ours(header, &frame), &theirs), None);
                }
            }
            let (frame, header) = network.udp(1, 2).build_gso(&payload(1000), 1000);
            assert_eq!(same(&kernel, header, &frame), Ok(1));
        }
    });
}

#[test]
fn more_datagrams_than_the_kernel_makes() {
    in_namespace(|| {
        let kernel = Kernel::new();
        let builder = v4().udp(1, 2);
        let (frame, header) = builder.build_gso(&payload(100 * KERNEL_DATAGRAMS), 100);
        assert_eq!(same(&kernel, header, &frame), Ok(KERNEL_DATAGRAMS));
        let (frame, header) = builder.build_gso(&payload(100 * KERNEL_DATAGRAMS + 1), 100);
        assert_eq!(ours(header, &frame).len(), KERNEL_DATAGRAMS + 1);
        assert_eq!(kernel.pass(header, &frame).len(), 0);
    });
}

/// Fragments are refused here: segments of one would overlap the rest. The kernel cuts TCP ones
/// nevertheless. Bytes behind the IP packet's end are no payload here; to the kernel they are, when
/// it bridges.
#[test]
fn fragments_and_padding() {
    in_namespace(|| {
        let kernel = Kernel::new();
        let piece = tcp(&v4().fragment(1, 0x2000), flag::ACK, &[]);
        let (frame, header) = piece.build_gso(&payload(4000), 1000);
        assert_eq!(ours(header, &frame).len(), 0);
        assert_eq!(kernel.pass(header, &frame).len(), 4);

        let (frame, header) = tcp(&v4(), flag::ACK, &[]).build_gso(&payload(3000), 1000);
        let right = ours(header, &frame);
        let padded = [&frame[..], &[0xaa; 9]].concat();
        assert_eq!(ours(header, &padded), right);
        assert_eq!(kernel.pass(header, &padded).len(), 4);
    });
}
