//! What does not work with which QEMU: refused with the reason before it crashes or stays silent.

use super::{Qemu, Version};
use crate::{Accel, Backend, Machine, Model};

/// Why this machine is not given to this QEMU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// 7.2 ends with a segmentation fault when the guest's driver starts.
    #[error(
        "QEMU {0} crashes with vhost-user NICs (with MSI-X) where there is no KVM: install QEMU 8 or newer (Debian 12: \
         qemu-system-x86 of bookworm-backports), name another with --qemu, or take path=tap"
    )]
    VhostUserUnderTcg(Version),
    /// It came with 8.0.
    #[error(
        "QEMU {0} has no igb: it came with 8.0; take model=e1000e, or name another QEMU with --qemu"
    )]
    NoIgb(Version),
}

/// Whether `qemu` can run `machine` with `accel`.
pub fn check(qemu: &Qemu, accel: Accel, machine: &Machine) -> Result<(), Fault> {
    let vhost_user = |backend: &Backend| matches!(backend, Backend::VhostUser { .. });
    let old = qemu.version < Version(8, 0);
    if old && accel == Accel::Tcg && machine.nics.iter().any(|nic| vhost_user(&nic.backend)) {
        return Err(Fault::VhostUserUnderTcg(qemu.version));
    }
    if old && machine.nics.iter().any(|nic| nic.model == Model::Igb) {
        return Err(Fault::NoIgb(qemu.version));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::example;

    fn qemu(version: Version) -> Qemu {
        Qemu {
            program: "/usr/bin/qemu-system-x86_64".into(),
            version,
        }
    }

    #[test]
    fn the_qemu_that_crashes_is_refused_only_where_it_crashes() {
        let machine = example();
        let judge = |version, accel| check(&qemu(version), accel, &machine);
        let refused = judge(Version(7, 2), Accel::Tcg).unwrap_err().to_string();
        assert!(refused.contains("7.2") && refused.contains("bookworm-backports"));
        assert_eq!(judge(Version(7, 2), Accel::Kvm), Ok(()));
        assert_eq!(judge(Version(10, 0), Accel::Tcg), Ok(()));
        let mut without = machine.clone();
        without.nics.clear();
        assert_eq!(check(&qemu(Version(7, 2)), Accel::Tcg, &without), Ok(()));
    }

    #[test]
    fn a_card_that_an_old_qemu_lacks_is_refused() {
        let mut machine = example();
        machine.nics[0].model = Model::Igb;
        machine.nics[0].backend = Backend::Descriptors {
            name: "rt-web".parse().unwrap(),
            queues: vec![3],
            vhost: Vec::new(),
        };
        let judge = |version| check(&qemu(version), Accel::Tcg, &machine);
        assert_eq!(judge(Version(7, 2)), Err(Fault::NoIgb(Version(7, 2))));
        assert_eq!(judge(Version(8, 0)), Ok(()));
    }
}
