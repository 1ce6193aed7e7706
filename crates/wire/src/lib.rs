//! Header formats over bytes.
//!
//! Everything here works on private bytes, never on memory shared with a guest, and takes bytes
//! from anybody: no input panics, a header that is not whole is an error.
//!
//! - One header each: [`eth`], [`vlan`], [`arp`], [`ipv4`], [`ipv6`], [`tcp`], [`udp`], [`icmpv6`]
//!   and the virtio-net header, [`vnet_hdr`]. `new_checked` makes a view of bytes that are long
//!   enough; its accessors then cannot fail. Numbers are in host order, addresses in `std::net`'s
//!   types.
//! - Across headers: [`layers`] finds them in the first bytes of a frame and tells a header that is
//!   not there from one that cannot be seen; [`flow`] hashes a flow to choose a queue.
//! - [`checksum`]: sums in pieces, pseudo headers, incremental updates.
//! - [`build`]: frames from fields, for tests and for ports that generate traffic.
//!
//! ```
//! use ringway_wire::layers::dissect;
//!
//! let announce = ringway_wire::arp::rarp_announce("52:54:00:12:34:56".parse()?);
//! let layers = dissect(&announce, announce.len());
//! assert_eq!(layers.ether_type, ringway_wire::EtherType::RARP);
//! assert!(layers.network.present().is_none());
//! # Ok::<(), ringway_wire::ParseMacError>(())
//! ```

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
