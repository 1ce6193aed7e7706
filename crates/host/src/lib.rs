//! Kernel verbs: taps, links and their addresses, routes, nftables.

#![warn(missing_docs)]

pub mod link;
pub mod nft;
pub mod tap;
