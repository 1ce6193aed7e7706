//! The QEMU options that connect a virtual machine to a vhost-user port.

use ringway_api::{
    port_spec::{Mac, Mode, PortKind, PortSpec, VhostUser},
    v1::{PortInfo, PortPath},
};

/// One line to paste, or nothing for a port that no virtual machine connects to. `index` keeps the ids of several NICs apart.
///
/// Guest memory must be shared with the switch, so its size stands twice; 1 GiB is only an example. Without its own mac= every
/// QEMU would have the same address.
pub(crate) fn qemu_options(index: usize, spec: &PortSpec) -> Option<String> {
    let PortKind::VhostUser(port) = &spec.kind else {
        return None;
    };
    let path = port.path.display().to_string().replace(',', ",,");
    let connect = match port.mode {
        Mode::Server => "reconnect=1",
        Mode::Client => "server=on,wait=off",
    };
    let mac = spec.mac.unwrap_or_else(|| address_for(&path));
    let (netdev, device) = queue_options(port.queues);
    let chardev = quoted(&format!("socket,id=c{index},path={path},{connect}"));
    Some(format!(
        "-m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem -chardev {chardev} \
         -netdev vhost-user,id=n{index},chardev=c{index}{netdev} -device virtio-net-pci,netdev=n{index},mac={mac}{device}"
    ))
}

/// The command that starts a virtual machine at a network's port, without its disk. The queues of a macvtap are opened by the shell.
pub(super) fn qemu_command(port: &PortInfo) -> Option<String> {
    let options = match (port.path, &port.socket, &port.tap) {
        (PortPath::VhostUser, Some(socket), _) => {
            let mut spec = PortSpec::new(PortKind::VhostUser(VhostUser {
                path: socket.clone(),
                mode: Mode::Server,
                queues: port.queues,
                group: None,
                permissions: VhostUser::PERMISSIONS,
            }));
            spec.mac = Some(port.mac);
            qemu_options(0, &spec)?
        }
        (PortPath::Tap | PortPath::VhostNet, _, Some(tap)) => {
            let vhost = match port.path {
                PortPath::VhostNet => ",vhost=on",
                _ => "",
            };
            let (netdev, device) = queue_options(port.queues);
            let name = quoted(tap.as_str());
            format!(
                "-m 1G -netdev tap,id=n0,ifname={name},script=no,downscript=no{vhost}{netdev} \
                 -device virtio-net-pci,netdev=n0,mac={}{device}",
                port.mac
            )
        }
        (PortPath::Macvtap, _, Some(tap)) => {
            let fds: Vec<String> = (0..port.queues).map(|n| (10 + n).to_string()).collect();
            let open: Vec<String> = fds
                .iter()
                .map(|fd| format!("{fd}<>/dev/tap$(cat /sys/class/net/{tap}/ifindex)"))
                .collect();
            let (_, device) = queue_options(port.queues);
            format!(
                "-m 1G -netdev tap,id=n0,fds={} -device virtio-net-pci,netdev=n0,mac={}{device} {}",
                fds.join(":"),
                port.mac,
                open.join(" ")
            )
        }
        _ => return None,
    };
    Some(format!("qemu-system-x86_64 -M q35 {options}"))
}

/// For the network back-end and for the device.
fn queue_options(pairs: u16) -> (String, String) {
    match pairs {
        1 => (String::new(), String::new()),
        // One interrupt vector per ring, one for the control queue, one for configuration changes.
        pairs => (
            format!(",queues={pairs}"),
            format!(",mq=on,vectors={}", 2 * u32::from(pairs) + 2),
        ),
    }
}

/// A locally administered address that stays the same for the same socket (FNV-1a of its path).
fn address_for(path: &str) -> Mac {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let [.., a, b, c, d, e] = path.bytes().fold(0xcbf2_9ce4_8422_2325, step).to_be_bytes();
    Mac([0x02, a, b, c, d, e])
}

/// Words of a command line, to be pasted into a shell.
pub(crate) fn shell_line(words: &[String]) -> String {
    let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
    format!("{}\n", words.join(" "))
}

/// As one word for a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(index: usize, spec: &str) -> String {
        qemu_options(index, &spec.parse().unwrap()).unwrap()
    }

    #[test]
    fn one_queue_pair_needs_no_multi_queue_options() {
        assert_eq!(
            options(0, "vhost-user,path=/run/a.sock,mac=02:00:00:00:00:01"),
            "-m 1G -object memory-backend-memfd,id=mem,size=1G,share=on -machine memory-backend=mem \
             -chardev socket,id=c0,path=/run/a.sock,reconnect=1 -netdev vhost-user,id=n0,chardev=c0 \
             -device virtio-net-pci,netdev=n0,mac=02:00:00:00:00:01"
        );
    }

    #[test]
    fn n_queue_pairs_need_2n_plus_2_vectors() {
        let line = options(3, "vhost-user,path=/run/a.sock,queues=8");
        assert!(
            line.contains(" -netdev vhost-user,id=n3,chardev=c3,queues=8 "),
            "{line}"
        );
        assert!(line.ends_with(",mq=on,vectors=18"), "{line}");
    }

    #[test]
    fn in_client_mode_qemu_listens() {
        let line = options(0, "vhost-user,path=/run/a.sock,mode=client");
        assert!(
            line.contains("path=/run/a.sock,server=on,wait=off "),
            "{line}"
        );
    }

    #[test]
    fn each_socket_has_an_address_of_its_own_that_stays() {
        let mac = |path: &str| {
            options(0, &format!("vhost-user,path={path}"))
                .split("mac=")
                .nth(1)
                .map(str::to_owned)
        };
        assert_eq!(mac("/run/a.sock"), mac("/run/a.sock"));
        assert_ne!(mac("/run/a.sock"), mac("/run/b.sock"));
        assert!(
            mac("/run/a.sock")
                .unwrap()
                .parse::<Mac>()
                .unwrap()
                .is_unicast()
        );
    }

    #[test]
    fn paths_survive_qemu_and_the_shell() {
        let line = options(0, "vhost-user,path=/run/it's a,,b.sock");
        assert!(
            line.contains(r"-chardev 'socket,id=c0,path=/run/it'\''s a,,b.sock,reconnect=1' "),
            "{line}"
        );
    }

    #[test]
    fn words_stay_words_in_a_shell() {
        let words = ["-append", "a b", "", "it's", "a,b=c"].map(str::to_owned);
        assert_eq!(shell_line(&words), "-append 'a b' '' 'it'\\''s' a,b=c\n");
    }

    #[test]
    fn ports_without_a_guest_have_no_line() {
        assert_eq!(qemu_options(0, &"sink".parse().unwrap()), None);
    }
}
