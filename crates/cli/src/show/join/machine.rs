//! The machine itself: its name, its threads, its guest.

use ringway_doctor::{command::Command, facts::Machine};

use super::{
    super::{
        path::{Kind, Stage},
        world::World,
    },
    SHOWN,
};
use crate::live::{Role, ThreadRates};

/// A machine in its world.
#[derive(Clone, Copy)]
pub(super) struct Vm<'a> {
    pub(super) world: &'a World,
    pub(super) machine: &'a Machine,
}

impl<'a> Vm<'a> {
    pub(super) fn name(&self) -> &'a str {
        let pid = self.machine.pid.unwrap_or_default();
        self.world.names.get(&pid).unwrap_or(&self.machine.name)
    }

    pub(super) fn threads(&self, role: Role) -> impl Iterator<Item = &'a ThreadRates> + use<'a> {
        let name = format!("vhost-{}", self.machine.pid.unwrap_or_default());
        let pid = self.machine.pid;
        self.world.rates.threads.iter().filter(move |thread| {
            thread.role == role
                && match role {
                    Role::Vhost => thread.name == name || Some(thread.process) == pid,
                    _ => Some(thread.process) == pid,
                }
        })
    }

    /// With the virtual CPUs that do most.
    pub(super) fn guest(&self) -> Stage {
        let cpus = Command::parse(&self.machine.command).cpus();
        let mut vcpus: Vec<&ThreadRates> = self.threads(Role::Vcpu).collect();
        let count = match cpus {
            1 => "1 virtual CPU".to_owned(),
            cpus => format!("{cpus} virtual CPUs"),
        };
        let busy = |thread: &ThreadRates| thread.percent.unwrap_or_default();
        vcpus.sort_by(|a, b| busy(b).total_cmp(&busy(a)));
        let stage = Stage::new(Kind::Guest, format!("guest {}", self.name()));
        let more = vcpus.len().saturating_sub(SHOWN);
        let stage = match vcpus.is_empty() {
            true => stage.detail(format!("{count}, threads without names")),
            false => stage.detail(count).threads(vcpus.into_iter().take(SHOWN)),
        };
        match more {
            0 => stage,
            more => stage.detail(format!("and {more} that do less")),
        }
    }
}
