//! What a person did not say: subnets, VLANs, names of interfaces, addresses of NICs.

use ipnet::Ipv4Net;
use ringway_api::port_spec::{InterfaceName, Mac};
use ringway_api::v1::Name;

/// Longest name of an interface.
const LONGEST: usize = 15;

/// A subnet that overlaps none of `taken`: a /24 of 192.168.0.0/16 from 100 on, then one of 172.16.0.0/12, then of 10.0.0.0/8.
pub(crate) fn subnet(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let of = |prefix: [u8; 2], thirds: std::ops::RangeInclusive<u8>| {
        thirds
            .filter_map(move |third| Ipv4Net::new([prefix[0], prefix[1], third, 0].into(), 24).ok())
    };
    let candidates = of([192, 168], 100..=254)
        .chain((16..=31).flat_map(|second| of([172, second], 0..=255)))
        .chain((0..=255).flat_map(|second| of([10, second], 0..=255)));
    candidates
        .into_iter()
        .find(|subnet| !taken.iter().any(|other| overlap(subnet, other)))
}

/// Whether an address is in both.
pub(crate) fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// The interface of a network: `rw-NAME`, or a part of it and a hash where that is too long.
pub(crate) fn interface(network: &Name) -> InterfaceName {
    let whole = format!("rw-{network}");
    if whole.len() <= LONGEST {
        return named(&whole);
    }
    let hash = hash(&[network.as_str()]) & 0xff_ffff;
    named(&format!("rw-{:.5}-{hash:06x}", network.as_str()))
}

/// The bridge of a network with taps for virtual machines: `rwb-NAME`, shortened as above.
pub(crate) fn bridge(network: &Name) -> InterfaceName {
    let whole = format!("rwb-{network}");
    if whole.len() <= LONGEST {
        return named(&whole);
    }
    let hash = hash(&[network.as_str()]) & 0xff_ffff;
    named(&format!("rwb-{:.4}-{hash:06x}", network.as_str()))
}

/// The tap of a port: a part of its name and a hash of both names.
pub(crate) fn tap(network: &Name, port: &Name) -> InterfaceName {
    let hash = hash(&[network.as_str(), "/", port.as_str()]) & 0xff_ffff;
    named(&format!("rt-{:.5}-{hash:06x}", port.as_str()))
}

fn named(name: &str) -> InterfaceName {
    match name.parse() {
        Ok(name) => name,
        Err(error) => unreachable!("{name}: {error}"),
    }
}

/// The address of a port's NIC, the same for the same names; `attempt` counts up when it is somebody else's. The prefix is QEMU's
/// with the bit for local administration, as VMMs use it.
pub(crate) fn mac(network: &Name, port: &Name, attempt: u32) -> Mac {
    let hash = hash(&[network.as_str(), "/", port.as_str(), &attempt.to_string()]);
    let [.., a, b, c] = hash.to_be_bytes();
    Mac([0x52, 0x54, 0x00, a, b, c])
}

/// FNV-1a, the same in every run, its upper half folded into the lower.
fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ hash >> 32
}
