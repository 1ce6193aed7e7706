//! A daemon without networks.

use std::{
    io::PipeWriter,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

use ringway_api::v1::{
    Addresses, Applied, Binding, CaptureRequest, Code, DaemonInfo, Document, Failure, Forward,
    ForwardSpec, Lease, Name, NetworkInfo, NetworkSpec, PortInfo, PortPatch, PortRequest,
    StaticLease, Stats,
};
use tokio::sync::Notify;

use super::super::Operations;

/// Writes down what it is asked. A network called `slow` is made when [`go_on`](Self::go_on) is called, one called `panic` breaks
/// it, and there is none called `gone`.
#[derive(Clone, Default)]
pub(super) struct Double {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<String>>,
    begun: Notify,
    go_on: Notify,
    captured: Mutex<Option<PipeWriter>>,
}

type Answer<T> = Result<T, Failure>;

impl Double {
    pub(super) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(super) async fn begun(&self) {
        self.shared.begun.notified().await;
    }

    /// Where what is captured is written.
    pub(super) fn captured(&self) -> PipeWriter {
        self.shared.captured.lock().unwrap().take().unwrap()
    }

    pub(super) fn go_on(&self) {
        self.shared.go_on.notify_one();
    }

    fn note(&self, what: String) {
        self.shared.asked.lock().unwrap().push(what);
    }
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn network_info(spec: NetworkSpec) -> NetworkInfo {
    NetworkInfo {
        spec,
        gateway: None,
        interface: "rw-lan".parse().unwrap(),
        vlan: 1,
        ports: 0,
        leases: 0,
        free: None,
    }
}

fn port_info(network: &Name, name: &Name) -> PortInfo {
    PortInfo {
        network: network.clone(),
        name: name.clone(),
        path: Default::default(),
        socket: Some("/run/a.sock".into()),
        tap: None,
        mac: "02:00:00:00:00:01".parse().unwrap(),
        address: None,
        queues: 1,
        rate: None,
        connected: Some(false),
    }
}

fn lease(network: &Name, address: Ipv4Addr) -> Lease {
    Lease {
        network: network.clone(),
        address,
        mac: None,
        client_id: None,
        name: None,
        binding: Binding::Static,
        expires: None,
    }
}

impl Operations for Double {
    async fn info(&self) -> Answer<DaemonInfo> {
        self.note("info".into());
        Ok(DaemonInfo {
            version: "0".into(),
            pid: 1,
            switch_pid: None,
            switch_restarts: 0,
            warnings: Vec::new(),
        })
    }

    async fn networks(&self) -> Answer<Vec<NetworkInfo>> {
        self.note("networks".into());
        Ok(Vec::new())
    }

    async fn network(&self, name: &Name) -> Answer<NetworkInfo> {
        self.note(format!("network {name}"));
        if name.as_str() == "gone" {
            let message = "there is no network gone: `ringway net list` shows them";
            return Err(Failure::new(Code::NotFound, message));
        }
        let spec = serde_json::json!({ "name": name });
        Ok(network_info(serde_json::from_value(spec).unwrap()))
    }

    async fn create_network(&self, spec: NetworkSpec) -> Answer<NetworkInfo> {
        self.note(format!("create_network {}", spec.name));
        assert_ne!(spec.name.as_str(), "panic", "as the test wants it");
        if spec.name.as_str() == "slow" {
            self.shared.begun.notify_one();
            self.shared.go_on.notified().await;
            self.note("made slow".into());
        }
        Ok(network_info(spec))
    }

    async fn delete_network(&self, name: &Name, force: bool) -> Answer<()> {
        self.note(format!("delete_network {name} {force}"));
        Ok(())
    }

    async fn apply(&self, document: Document, dry_run: bool) -> Answer<Applied> {
        self.note(format!("apply {} {dry_run}", document.networks.len()));
        Ok(Applied::default())
    }

    async fn ports(&self, network: Option<&Name>) -> Answer<Vec<PortInfo>> {
        self.note(format!("ports {network:?}"));
        Ok(Vec::new())
    }

    async fn port(&self, network: &Name, port: &Name) -> Answer<PortInfo> {
        self.note(format!("port {network} {port}"));
        Ok(port_info(network, port))
    }

    async fn create_port(&self, network: &Name, request: PortRequest) -> Answer<PortInfo> {
        self.note(format!("create_port {network} {}", request.name));
        Ok(port_info(network, &request.name))
    }

    async fn patch_port(&self, network: &Name, port: &Name, patch: PortPatch) -> Answer<PortInfo> {
        self.note(format!("patch_port {network} {port} {:?}", patch.rate));
        Ok(port_info(network, port))
    }

    async fn delete_port(&self, network: &Name, port: &Name) -> Answer<()> {
        self.note(format!("delete_port {network} {port}"));
        Ok(())
    }

    async fn leases(&self, network: Option<&Name>) -> Answer<Vec<Lease>> {
        self.note(format!("leases {network:?}"));
        Ok(Vec::new())
    }

    async fn resolve(&self, name: &str) -> Answer<Vec<Lease>> {
        self.note(format!("resolve {name}"));
        Ok(Vec::new())
    }

    async fn bind(&self, network: &Name, bound: StaticLease) -> Answer<Lease> {
        self.note(format!("bind {network} {}", bound.address));
        Ok(lease(network, bound.address))
    }

    async fn unbind(&self, network: &Name, address: Ipv4Addr) -> Answer<()> {
        self.note(format!("unbind {network} {address}"));
        Ok(())
    }

    async fn forwards(&self, network: Option<&Name>) -> Answer<Vec<Forward>> {
        self.note(format!("forwards {network:?}"));
        Ok(Vec::new())
    }

    async fn add_forward(&self, network: &Name, spec: ForwardSpec) -> Answer<Forward> {
        self.note(format!("add_forward {network} {}", spec.ports));
        Ok(Forward {
            id: 1,
            network: network.clone(),
            spec,
        })
    }

    async fn delete_forward(&self, network: &Name, id: u64) -> Answer<()> {
        self.note(format!("delete_forward {network} {id}"));
        Ok(())
    }

    async fn addresses(&self, port: Option<&str>) -> Answer<Addresses> {
        self.note(format!("addresses {port:?}"));
        Ok(Addresses {
            addresses: Vec::new(),
            learned: 0,
        })
    }

    async fn capture(&self, request: CaptureRequest) -> Answer<OwnedFd> {
        self.note(format!("capture {}", request.port));
        if request.port == "gone" {
            return Err(Failure::new(Code::NotFound, "there is no port gone"));
        }
        let (reader, writer) = std::io::pipe().unwrap();
        *self.shared.captured.lock().unwrap() = Some(writer);
        Ok(reader.into())
    }

    async fn stats(&self) -> Answer<Stats> {
        self.note("stats".into());
        Ok(Stats {
            switch: None,
            services: Default::default(),
        })
    }
}
