use proptest::prelude::*;

use super::*;

/// RFC 1071 to the letter: one word at a time.
fn model(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

#[test]
fn rfc_1071_example() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    let mut sum = Sum::new();
    sum.add(&bytes);
    assert_eq!(sum.folded(), 0xddf2);
    assert_eq!(checksum(&bytes), 0x220d);
}

#[test]
fn extremes() {
    assert_eq!(checksum(&[]), 0xffff);
    assert_eq!(checksum(&[0; 65_535]), 0xffff);
    assert_eq!(checksum(&[0xff; 65_534]), 0);
    assert_eq!(checksum(&[0xff; 65_535]), !model(&[0xff; 65_535]));
    let mut all_ones = Sum::new();
    all_ones.add(&[0xff; 64]);
    assert_eq!(all_ones.checksum_nonzero(), 0xffff);
    assert_eq!(fold(u64::MAX), 0xffff);
    assert_eq!(fold(0), 0);
    // The largest total that needs all three carries.
    assert_eq!(fold(0xffff_fffe_ffff_ffff), 0xfffe);
}

#[test]
fn rfc_1624_example() {
    // Section 4: old word 0x5555, new word 0x3285, checksum 0xdd2f becomes 0x0000.
    assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
}

#[test]
fn pseudo_headers_are_the_bytes_they_stand_for() {
    let (a4, b4) = (Ipv4Addr::new(192, 168, 7, 1), Ipv4Addr::new(10, 0, 255, 2));
    let mut sum = Sum::new();
    sum.add_pseudo_v4(a4, b4, 17, 0x1234);
    let bytes = [192, 168, 7, 1, 10, 0, 255, 2, 0, 17, 0x12, 0x34];
    assert_eq!(sum.folded(), model(&bytes));

    let (a6, b6) = (Ipv6Addr::LOCALHOST, Ipv6Addr::from(u128::MAX - 77));
    let mut sum = Sum::new();
    sum.add_pseudo_v6(a6, b6, 58, 0x0001_2345);
    let mut bytes = a6.octets().to_vec();
    bytes.extend(b6.octets());
    bytes.extend([0, 1, 0x23, 0x45, 0, 0, 0, 58]);
    assert_eq!(sum.folded(), model(&bytes));
}

proptest! {
    #[test]
    fn sum_is_rfc_1071(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let mut sum = Sum::new();
        sum.add(&bytes);
        prop_assert_eq!(sum.folded(), model(&bytes));
    }

    #[test]
    fn pieces_of_any_length_sum_to_the_whole(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12)
    ) {
        let (mut added, mut appended) = (Sum::new(), Sum::new());
        for piece in &pieces {
            added.add(piece);
            let mut alone = Sum::new();
            alone.add(piece);
            appended.append(alone);
        }
        let whole = model(&pieces.concat());
        prop_assert_eq!(added.folded(), whole);
        prop_assert_eq!(appended.folded(), whole);
    }

    #[test]
    fn update_is_recomputation(
        mut bytes in proptest::collection::vec(any::<u8>(), 8..64),
        at in 0usize..30,
        new in any::<[u8; 4]>(),
    ) {
        let at = (at * 2).min((bytes.len() - 4) & !1);
        let old: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
        let before = checksum(&bytes);
        bytes[at..at + 4].copy_from_slice(&new);
        // Both zeros stand for the same sum; see RFC 1624, section 3.
        let same = |a: u16, b: u16| u32::from(a) % 0xffff == u32::from(b) % 0xffff;
        let (old, new) = (u32::from_be_bytes(old), u32::from_be_bytes(new));
        prop_assert!(same(update_u32(before, old, new), checksum(&bytes)));
        let upper = |word: u32| u16::try_from(word >> 16).unwrap();
        let lower = |word: u32| u16::try_from(word & 0xffff).unwrap();
        let half = update_u16(before, upper(old), upper(new));
        prop_assert!(same(update_u16(half, lower(old), lower(new)), checksum(&bytes)));
    }
}
