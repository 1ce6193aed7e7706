//! Ports of networks.

use ringway_api::v1::{PortInfo, PortPath};

use super::{
    fields,
    qemu::qemu_command,
    table::{Align, Table, cell},
};

/// One line each.
pub(crate) fn ports(ports: &[PortInfo]) -> String {
    let mut table = Table::new([
        ("NETWORK", Align::Left),
        ("NAME", Align::Left),
        ("PATH", Align::Left),
        ("MAC", Align::Left),
        ("ADDRESS", Align::Left),
        ("QUEUES", Align::Right),
        ("RATE", Align::Right),
        ("CONNECTED", Align::Left),
    ]);
    for port in ports {
        table.row([
            port.network.to_string(),
            port.name.to_string(),
            path(port.path).into(),
            port.mac.to_string(),
            cell(&port.address),
            port.queues.to_string(),
            cell(&port.rate),
            connected(port),
        ]);
    }
    table.to_string()
}

/// All about one.
pub(crate) fn port(port: &PortInfo) -> String {
    let mut lines = vec![
        ("network", port.network.to_string()),
        ("name", port.name.to_string()),
        ("path", path(port.path).into()),
        ("mac", port.mac.to_string()),
        ("address", cell(&port.address)),
        ("queues", port.queues.to_string()),
        ("rate", cell(&port.rate)),
        ("connected", connected(port)),
    ];
    if let Some(socket) = &port.socket {
        lines.push(("socket", socket.display().to_string()));
    }
    if let Some(tap) = &port.tap {
        lines.push(("tap", tap.to_string()));
    }
    if let Some(command) = qemu_command(port) {
        lines.push(("qemu", command));
    }
    fields(&lines)
}

/// What was made, and how a virtual machine is started at it.
pub(crate) fn port_created(port: &PortInfo) -> String {
    let place = match (&port.socket, &port.tap) {
        (Some(socket), _) => socket.display().to_string(),
        (None, Some(tap)) => format!("tap {tap}"),
        (None, None) => path(port.path).into(),
    };
    let address = port.address.map(|address| format!(", {address}"));
    let limit = match port.path {
        PortPath::Macvtap => {
            "the host itself is not reached from a macvtap, nor are its addresses from there; everything else on that network is\n"
        }
        _ => "",
    };
    let command = qemu_command(port).map(|command| {
        format!(
            "start a virtual machine at it, with your own disk and, where there is KVM, -accel kvm:\n  {command} -drive file=DISK,if=virtio\n"
        )
    });
    format!(
        "port {} of network {} is at {place} ({}{})\n{limit}{}",
        port.name,
        port.network,
        port.mac,
        address.unwrap_or_default(),
        command.unwrap_or_default()
    )
}

fn path(path: PortPath) -> &'static str {
    match path {
        PortPath::VhostUser => "vhost-user",
        PortPath::Tap => "tap",
        PortPath::VhostNet => "vhost-net",
        PortPath::Macvtap => "macvtap",
    }
}

fn connected(port: &PortInfo) -> String {
    match port.connected {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    }
    .into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn web(path: &str, socket: Option<&str>, tap: Option<&str>) -> PortInfo {
        serde_json::from_value(json!({
            "network": "lan", "name": "web", "path": path, "socket": socket, "tap": tap,
            "mac": "02:00:00:00:00:01", "address": "10.9.0.10", "queues": 2, "rate": "100M", "connected": true
        }))
        .unwrap()
    }

    #[test]
    fn a_list_has_a_line_each() {
        assert_eq!(
            ports(&[web("vhost-user", Some("/run/a"), None)]),
            "NETWORK  NAME  PATH        MAC                ADDRESS    QUEUES  RATE  CONNECTED\n\
             lan      web   vhost-user  02:00:00:00:00:01  10.9.0.10       2  100M  yes\n"
        );
    }

    #[test]
    fn a_new_port_says_where_it_is_and_what_to_paste() {
        let text = port_created(&web("vhost-user", Some("/run/a"), None));
        let first = "port web of network lan is at /run/a (02:00:00:00:00:01, 10.9.0.10)\n";
        assert!(text.starts_with(first), "{text}");
        for part in [
            "path=/run/a,reconnect=1 ",
            "mac=02:00:00:00:00:01,mq=on,vectors=6",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let text = port_created(&web("vhost-net", None, Some("rw-web")));
        assert!(text.contains(" is at tap rw-web ("), "{text}");
        assert!(
            text.contains(
                "-netdev tap,id=n0,ifname=rw-web,script=no,downscript=no,vhost=on,queues=2 "
            ),
            "{text}"
        );
        let text = port_created(&web("macvtap", None, Some("rw-web")));
        assert!(text.contains("host itself is not reached"), "{text}");
        assert!(
            text.contains("-netdev tap,id=n0,fds=10:11 -device virtio-net-pci,")
                && text.contains("10<>/dev/tap$(cat /sys/class/net/rw-web/ifindex) 11<>"),
            "{text}"
        );
    }
}
