//! Kernel verbs: taps, links and their addresses, routes, nftables, packet sockets, vhost-net.

#![warn(missing_docs)]

pub mod conntrack;
pub mod ethtool;
pub mod link;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod ready;
pub mod survey;
pub mod tap;
pub mod vhost_net;
