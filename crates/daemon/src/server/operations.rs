//! What the API asks of the daemon, apart from the daemon: tests of the server have another one.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use ringway_api::v1::{
    Addresses, Applied, CaptureRequest, DaemonInfo, Document, Failure, Forward, ForwardSpec, Lease,
    Name, NetworkInfo, NetworkSpec, PortInfo, PortPatch, PortRequest, StaticLease, Stats,
};

use crate::Daemon;

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)*) => {
        /// Everything that can be asked of a daemon; clones are the same daemon.
        pub trait Operations: Clone + Send + Sync + 'static {
            $($(#[$doc])* fn $name(
                &self,
                $($argument: $kind),*
            ) -> impl Future<Output = Result<$answer, Failure>> + Send;)*
        }

        impl Operations for Daemon {
            $(async fn $name(&self, $($argument: $kind),*) -> Result<$answer, Failure> {
                self.$name($($argument),*).await
            })*
        }
    };
}

operations! {
    /// The daemon and its switch.
    info() -> DaemonInfo;
    /// All networks.
    networks() -> Vec<NetworkInfo>;
    /// One network.
    network(name: &Name) -> NetworkInfo;
    /// Makes a network.
    create_network(spec: NetworkSpec) -> NetworkInfo;
    /// Deletes a network; with its ports if `force`.
    delete_network(name: &Name, force: bool) -> ();
    /// Makes networks as a document has them, or says what would be done.
    apply(document: Document, dry_run: bool) -> Applied;
    /// Ports, of one network or all.
    ports(network: Option<&Name>) -> Vec<PortInfo>;
    /// One port.
    port(network: &Name, port: &Name) -> PortInfo;
    /// Makes a port.
    create_port(network: &Name, request: PortRequest) -> PortInfo;
    /// Changes a port.
    patch_port(network: &Name, port: &Name, patch: PortPatch) -> PortInfo;
    /// Deletes a port.
    delete_port(network: &Name, port: &Name) -> ();
    /// Leases, of one network or all.
    leases(network: Option<&Name>) -> Vec<Lease>;
    /// Leases of a name.
    resolve(name: &str) -> Vec<Lease>;
    /// Binds an address to a client.
    bind(network: &Name, lease: StaticLease) -> Lease;
    /// Undoes a binding.
    unbind(network: &Name, address: Ipv4Addr) -> ();
    /// Forwards, of one network or all.
    forwards(network: Option<&Name>) -> Vec<Forward>;
    /// Makes a forward.
    add_forward(network: &Name, spec: ForwardSpec) -> Forward;
    /// Deletes a forward.
    delete_forward(network: &Name, id: u64) -> ();
    /// What was counted.
    stats() -> Stats;
    /// What was learned, at one port of the switch or all.
    addresses(port: Option<&str>) -> Addresses;
    /// The reading end of a pipe into which what crosses a port is written, until it is closed.
    capture(request: CaptureRequest) -> OwnedFd;
}
