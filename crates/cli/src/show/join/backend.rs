//! Behind the device: who moves frames, and where to.

use super::{
    super::path::{Arrow, Kind, Stage},
    Way, outside,
};
use crate::live::{PortRates, Role, ThreadRates};

impl Way<'_> {
    /// Who moves frames between the guest's memory and the segment.
    pub(super) fn data_plane(&self, rates: Option<&PortRates>) -> Stage {
        match self.nic.backend() {
            "vhost-user" => match rates.filter(|rates| rates.kind == "vhost-user") {
                Some(rates) => outside::workers(self.world, rates),
                None => Stage::new(Kind::DataPlane, "vhost-user back-end")
                    .detail("not a switch that was asked"),
            },
            _ if self.nic.vhost() => {
                let stage = Stage::new(Kind::DataPlane, "vhost-net of the kernel");
                let threads: Vec<&ThreadRates> = self.vm.threads(Role::Vhost).collect();
                match threads.is_empty() {
                    true => stage.detail("no thread of it is to be seen"),
                    false => stage.threads(threads),
                }
            }
            _ => {
                Stage::new(Kind::DataPlane, "QEMU's main loop").threads(self.vm.threads(Role::Main))
            }
        }
    }

    /// The switch, bridge or whatever it is, and what is beyond.
    pub(super) fn segment(&self) -> (Stage, Option<(Arrow, Stage)>) {
        match self.nic.backend() {
            "vhost-user" => match self.known() {
                Some(known) => outside::switch(self.world, known),
                None => {
                    let path = self.nic.socket().map(|path| path.display().to_string());
                    let stage = Stage::new(Kind::Segment, "unknown switch");
                    (stage.details(path), None)
                }
            },
            "user" => {
                let net = self.nic.netdev.get("net").unwrap_or("10.0.2.0/24");
                let stage = Stage::new(Kind::Segment, "network within QEMU").detail(net);
                let out = Stage::new(Kind::Uplink, "sockets of the host")
                    .detail("connections of QEMU's user");
                (stage, Some((Arrow::default(), out)))
            }
            "tap" => match self.tap() {
                Some(tap) => outside::link(&self.place(), &tap),
                None => {
                    let stage = Stage::new(Kind::Segment, "tap");
                    (stage.detail("which one, root can see"), None)
                }
            },
            other => (Stage::new(Kind::Segment, format!("netdev {other}")), None),
        }
    }
}
