//! Header formats over bytes.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod arp;
pub mod build;
mod bytes;
pub mod checksum;
pub mod eth;
pub mod flow;
pub mod icmpv6;
pub mod ipv4;
pub mod ipv6;
pub mod layers;
mod mac;
pub mod tcp;
pub mod udp;
pub mod vlan;
pub mod vnet_hdr;

pub use eth::EtherType;
pub use mac::{MacAddress, ParseMacError};
pub use vnet_hdr::VnetHeader;

/// A header does not fit into the bytes it was looked for in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{header} header needs {needed} bytes, {have} are there")]
pub struct Truncated {
    /// Name of the header that was looked for.
    pub header: &'static str,
    /// Bytes it needs.
    pub needed: usize,
    /// Bytes that were there.
    pub have: usize,
}

impl Truncated {
    /// `Ok` if `have` bytes hold the `needed` ones.
    #[inline]
    fn check(header: &'static str, needed: usize, have: usize) -> Result<(), Self> {
        if have < needed {
            return Err(Self {
                header,
                needed,
                have,
            });
        }
        Ok(())
    }
}
