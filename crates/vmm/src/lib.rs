//! One virtual machine: what it is, how QEMU, libvirt and cloud-hypervisor are told, and the QEMU process while it runs.
//!
//! It knows nothing of networks: a NIC arrives as a socket or as a tap, from whoever made that. Every form is made from one
//! [`Machine`], so what `vm args` prints is what `vm run` starts.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod accel;
pub mod cloud_hypervisor;
pub mod cpus;
pub mod disk;
pub mod folder;
pub mod libvirt;
pub mod machine;
pub mod nic;
pub mod overlay;
pub mod pin;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod seed;

pub use accel::Accel;
pub use cpus::CpuList;
pub use disk::{Disk, Format};
pub use folder::{Folder, PortOf, Record};
pub use machine::{Boot, Console, Machine};
pub use nic::{Backend, Model, Nic, NicRequest};
pub use qemu::Qemu;
pub use qmp::Qmp;
