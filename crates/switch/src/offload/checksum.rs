//! Completing the checksum that a virtio-net header asks for (virtio 1.2, 5.1.6.2).

use ringway_wire::VnetHeader;
use ringway_wire::checksum::Sum;

use super::OffloadFault;

/// Completes the checksum of a whole frame. Without NEEDS_CSUM there is nothing to do. The header
/// the frame then goes out with must no longer say NEEDS_CSUM.
pub fn complete_checksum(frame: &mut [u8], header: &VnetHeader) -> Result<(), OffloadFault> {
    complete_checksum_with(frame, header, Sum::new())
}

/// Completes the checksum in the first bytes of a frame. `body`: the sum over all bytes that follow
/// `head`, begun with [`Sum::new`].
pub fn complete_checksum_with(
    head: &mut [u8],
    header: &VnetHeader,
    body: Sum,
) -> Result<(), OffloadFault> {
    if !header.needs_csum() {
        return Ok(());
    }
    let len = head.len();
    let start = usize::from(header.csum_start);
    let offset = usize::from(header.csum_offset);
    let outside = OffloadFault::ChecksumOutside {
        start: header.csum_start,
        offset: header.csum_offset,
        len,
    };
    let covered = head.get_mut(start..).ok_or(outside)?;
    if offset + 2 > covered.len() {
        return Err(outside);
    }
    // The field holds the pseudo header's sum, so it is summed as it stands. A UDP checksum of 0
    // would say that there is none; for the others 0xffff means the same as 0.
    let mut sum = Sum::new();
    sum.add(covered);
    sum.append(body);
    covered[offset..offset + 2].copy_from_slice(&sum.checksum_nonzero().to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;
    use ringway_wire::build::{FrameBuilder, TcpFields};
    use ringway_wire::ipv6::extension;
    use ringway_wire::vnet_hdr::F_NEEDS_CSUM;

    use super::*;

    fn builders() -> [FrameBuilder; 3] {
        let v4 = FrameBuilder::ipv4(Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let v6 = FrameBuilder::ipv6(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
        [
            v4.clone().options(&[1; 4]).udp(68, 67),
            v4.tcp(TcpFields::default(), &[1; 12]),
            v6.extension(extension::DESTINATION, &[1, 4]).udp(1, 2),
        ]
    }

    proptest! {
        #[test]
        fn whole_and_split_frames_get_the_right_checksum(
            payload in proptest::collection::vec(any::<u8>(), 0..300),
            cuts in proptest::collection::vec(0usize..400, 3),
        ) {
            for builder in builders() {
                let right = builder.build(&payload);
                let (partial, header) = builder.build_partial(&payload);
                let mut whole = partial.clone();
                complete_checksum(&mut whole, &header).unwrap();
                prop_assert_eq!(&whole, &right);

                let field = usize::from(header.csum_start + header.csum_offset);
                let place = |cut: usize| cut.clamp(field + 2, partial.len());
                let mut cuts: Vec<_> = cuts.iter().copied().map(place).collect();
                cuts.sort_unstable();
                let mut split = partial.clone();
                let (head, rest) = split.split_at_mut(cuts[0]);
                let (first, rest) = rest.split_at(cuts[1] - cuts[0]);
                let (second, third) = rest.split_at(cuts[2] - cuts[1]);
                let mut sum = Sum::new();
                sum.add(first);
                sum.add(second);
                sum.add(third);
                complete_checksum_with(head, &header, sum).unwrap();
                prop_assert_eq!(&split, &right);
            }
        }

        #[test]
        fn never_panics(
            mut frame in proptest::collection::vec(any::<u8>(), 0..80),
            csum_start in 0u16..100,
            csum_offset in prop_oneof![0u16..100, any::<u16>()],
        ) {
            let header = VnetHeader {
                flags: F_NEEDS_CSUM,
                csum_start,
                csum_offset,
                ..VnetHeader::default()
            };
            let fits = usize::from(csum_start) + usize::from(csum_offset) + 2 <= frame.len();
            prop_assert_eq!(complete_checksum(&mut frame, &header).is_ok(), fits);
        }
    }

    #[test]
    fn a_checksum_of_zero_goes_out_as_all_ones() {
        let [_, _, builder] = builders();
        let (mut frame, header) = builder.build_partial(&[0, 0]);
        let mut sum = Sum::new();
        sum.add(&frame[usize::from(header.csum_start)..]);
        let end = frame.len();
        // Makes the sum 0xffff.
        frame[end - 2..].copy_from_slice(&sum.checksum().to_be_bytes());
        complete_checksum(&mut frame, &header).unwrap();
        let field = usize::from(header.csum_start + header.csum_offset);
        assert_eq!(frame[field..field + 2], [0xff, 0xff]);
    }

    #[test]
    fn nothing_to_do_leaves_the_frame() {
        let mut frame = [7; 60];
        complete_checksum(&mut frame, &VnetHeader::default()).unwrap();
        assert_eq!(frame, [7; 60]);
    }
}
