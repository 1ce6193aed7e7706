//! Random frames, right ones and wrong ones.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ringway_wire::layers::Version;

use super::*;

/// A frame of any shape.
fn any_frame() -> impl Strategy<Value = (FrameBuilder, usize, u16)> {
    let tags = proptest::collection::vec((any::<bool>(), 1u16..4095), 0..3);
    let extensions = proptest::collection::vec(
        (
            prop_oneof![
                Just(extension::HOP_BY_HOP),
                Just(extension::DESTINATION),
                Just(extension::ROUTING),
            ],
            proptest::collection::vec(any::<u8>(), 0..30),
        ),
        0..4,
    );
    let fields = (any::<u16>(), any::<u16>(), any::<u32>(), any::<u32>());
    let shape = (any::<bool>(), any::<bool>(), any::<u16>(), any::<u8>());
    let options = (
        proptest::collection::vec(any::<u8>(), 0..41),
        proptest::collection::vec(any::<u8>(), 0..41),
    );
    let lengths = (
        prop_oneof![1usize..4000, 1usize..65_000],
        prop_oneof![1u16..200, 1u16..9000],
    );
    (tags, extensions, fields, shape, options, lengths).prop_map(
        |(tags, extensions, fields, (is_v4, is_tcp, ident, flags), options, (len, size))| {
            let mut builder = if is_v4 { v4() } else { v6() };
            for (outer, vlan) in tags {
                let tpid = if outer {
                    EtherType::QINQ
                } else {
                    EtherType::VLAN
                };
                builder = builder.tag(tag(tpid, vlan));
            }
            for (kind, body) in extensions {
                builder = builder.extension(kind, &body);
            }
            builder = builder.fragment(ident, 0x4000).options(&options.0);
            let (source_port, destination_port, sequence, acknowledgement) = fields;
            let builder = if is_tcp {
                let fields = TcpFields {
                    source_port,
                    destination_port,
                    sequence,
                    acknowledgement,
                    flags,
                    window: ident,
                };
                builder.tcp(fields, &options.1)
            } else {
                builder.udp(source_port, destination_port)
            };
            let headers = builder.build(&[]).len();
            (builder, len.min(65_500 - headers), size)
        },
    )
}

/// Whether one of the differences that are meant applies.
fn is_difference(header: VnetHeader, payload: usize) -> bool {
    let size = usize::from(header.gso_size);
    let is_udp = header.gso_type == GSO_UDP_L4;
    payload <= size || is_udp && payload > size * KERNEL_DATAGRAMS
}

#[test]
fn any_large_frame() {
    in_namespace(|| {
        let kernel = Kernel::new();
        let mut runner = TestRunner::new(config(400));
        let outcome = runner.run(&any_frame(), |(builder, len, size)| {
            let least = u16::try_from(len.div_ceil(1500)).unwrap();
            let (frame, header) = builder.build_gso(&payload(len), size.max(least));
            if !is_difference(header, len) {
                let outcome = same(&kernel, header, &frame);
                prop_assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
            }
            let (frame, header) = builder.build_partial(&payload(len));
            let theirs = kernel.pass(header, &frame);
            let difference = difference(&[completed(header, &frame)], &theirs);
            prop_assert_eq!(difference, None);
            Ok(())
        });
        outcome.unwrap();
    });
}

/// What is delivered of a frame with a wrong byte or header is what the kernel would have delivered,
/// or nothing. (A frame that is its only segment leaves the kernel with the IP header it had; here it
/// gets a right one.)
#[test]
fn any_wrong_frame() {
    in_namespace(|| {
        let kernel = Kernel::new();
        let mut runner = TestRunner::new(config(600));
        let wrong = (
            any_frame(),
            proptest::collection::vec((12usize..130, any::<u8>()), 0..3),
            0u8..8,
            any::<u16>(),
        );
        let (equal, refused) = (Cell::new(0), Cell::new(0));
        let outcome = runner.run(&wrong, |((builder, len, size), noise, kind, value)| {
            let len = len.min(3000);
            let (mut frame, mut header) = builder.build_gso(&payload(len), size.max(20));
            let headers = frame.len() - len;
            for (at, byte) in noise {
                if at < headers {
                    frame[at] = byte;
                }
            }
            match kind {
                0 => header.csum_start ^= value & 0x3f,
                1 => header.csum_offset ^= value & 0x1f,
                2 => header.gso_type = [GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4][usize::from(value % 3)],
                3 => frame.truncate(headers + usize::from(value) % len),
                _ => {}
            }
            let ours = ours(header, &frame);
            if ours.is_empty() {
                refused.set(refused.get() + 1);
                return Ok(());
            }
            let theirs = kernel.pass(header, &frame);
            if theirs.is_empty() || difference(&ours, &theirs).is_none() {
                equal.set(equal.get() + 1);
                return Ok(());
            }
            prop_assert!(
                ours.len() == 1 || lengths_differ(&frame),
                "{header:?} {:?}",
                difference(&ours, &theirs)
            );
            Ok(())
        });
        outcome.unwrap();
        let (equal, refused) = (equal.get(), refused.get());
        assert!(
            equal > 100 && refused > 50,
            "{equal} equal, {refused} refused"
        );
    });
}

/// The IP length is not that of the frame. What is behind it is padding here, and payload to a bridge;
/// what is not longer than a segment keeps the wrong length there, and gets the right one here.
fn lengths_differ(frame: &[u8]) -> bool {
    let layers = ringway_wire::layers::dissect(frame, frame.len());
    layers.network.present().is_none_or(|network| {
        let word = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
        let end = match network.version {
            Version::V4 => word(network.offset + 2),
            Version::V6 => word(network.offset + 4) + 40,
        };
        network.offset + end != frame.len()
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    }
}
