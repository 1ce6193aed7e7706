//! The laboratory of the whole-program tests and of `make demo`: a real switch process, real guests, foreign drivers.
//!
//! Everything starts from a [`Lab`], which holds the machine for itself, lends short socket paths and keeps the logs. What is started
//! from it (switches, guests, namespaces, DPDK processes) ends when its value is dropped, also on panic; if the test process itself is
//! killed, the kernel ends what it started.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod agent;
mod archive;
pub mod audit;
pub mod crossing;
pub mod daemon;
pub mod dhcp;
pub mod doctor;
pub mod dump;
pub mod emulator;
mod endpoint;
mod gate;
pub mod guest;
pub mod hostile;
pub mod house;
pub mod iperf;
pub mod lab;
mod lines;
pub mod machine;
pub mod migration;
pub mod mock;
pub mod names;
mod needs;
mod netns;
mod nic;
pub mod ovs;
pub mod pair;
pub mod pcap;
pub mod picture;
pub mod pings;
mod process;
pub mod proxy;
pub mod qemu;
pub mod qmp;
mod refusal;
pub mod screen;
pub mod stream;
pub mod switch;
pub mod testpmd;

pub use daemon::Daemon;
pub use endpoint::Endpoint;
pub use guest::{Guest, Nic};
pub use lab::Lab;
pub use needs::Need;
pub use netns::Netns;
pub use pair::Pair;
pub use process::Process;
pub use switch::Switch;
