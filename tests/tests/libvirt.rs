//! A libvirt of Debian's starts the domain that `ringway vm args --libvirt` prints.

use std::fs;

use anyhow::{Context, Result, ensure};
use ringway_tests::{Daemon, Endpoint, Lab, Need, Netns, qemu};
use serde_json::Value;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

/// Runs libvirtd in a mount namespace where its directories are empty and its user exists, starts the domain, waits for the guest's
/// address, prints QEMU's command line and the daemon's statistics, and ends everything.
const SCRIPT: &str = r#"set -eu
for folder in /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p $folder
    mount -t tmpfs tmpfs $folder
done
for file in passwd group; do
    cp /etc/$file /run/libvirt/$file
    mount --bind /run/libvirt/$file /etc/$file
done
grep -q libvirt-qemu /etc/passwd || echo 'libvirt-qemu:x:64055:64055::/:/bin/false' >>/etc/passwd
grep -q libvirt-qemu /etc/group || echo 'libvirt-qemu:x:64055:' >>/etc/group
cat >/etc/libvirt/qemu.conf <<CONF
security_driver = "none"
user = "root"
group = "root"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
CONF
echo 'auth_unix_rw = "none"' >/etc/libvirt/libvirtd.conf
libvirtd >"$LAB/libvirtd" 2>&1 &
libvirtd=$!
end() {
    virsh -q -c qemu:///system destroy web >/dev/null 2>&1 || true
    kill $libvirtd
    wait $libvirtd || true
}
trap end EXIT
until [ -S /run/libvirt/libvirt-sock ]; do kill -0 $libvirtd; sleep 0.1; done
virsh -q -c qemu:///system create "$LAB/web.xml" >/dev/null
tr '\0' '\n' </proc/$(cat /run/libvirt/qemu/web.pid)/cmdline | grep '"driver":"virtio-net-pci"'
until "$RINGWAY" lease list --json | grep -q '"address"'; do sleep 0.1; done
"$RINGWAY" port show default web --json
"$RINGWAY" stats --json
"#;

#[test]
fn libvirt_starts_the_domain_and_the_guest_has_two_queues_and_an_address() -> Result<()> {
    let needs = [
        Need::Root,
        Need::Guests,
        Need::Namespaces,
        Need::Program("nft"),
        Need::Program("libvirtd"),
        Need::Program("virsh"),
    ];
    let Some(lab) = Lab::with("libvirt", &needs)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    let daemon = Daemon::start(&lab, &netns)?;
    let [kernel, initramfs] = qemu::image("cloud")?;
    let xml = daemon.ringway(&format!(
        "vm args --libvirt --name web --net default,queues=2 --cpus 2 --memory 384M --kernel {} --initrd {} \
         --append 'console=ttyS0 panic=-1 mitigations=off tsc=reliable no_timer_check nokaslr ringway.dhcp=eth0'",
        kernel.display(),
        initramfs.display()
    ))?;
    // The test guest powers down without a port for its agent.
    let agent = "<channel type='null'><target type='virtio' name='agent'/></channel>\n</devices>";
    fs::write(lab.path("web.xml"), xml.replace("</devices>", agent))?;
    let script = lab.path("script");
    fs::write(&script, SCRIPT)?;
    let printed = netns
        .start(&format!(
            "LAB={} RINGWAY={} RINGWAY_SOCKET={} unshare --mount sh {}",
            lab.path("").display(),
            ringway_tests::switch::binary()?.display(),
            daemon.socket(),
            script.display()
        ))?
        .success(LIMIT)
        .with_context(|| fs::read_to_string(lab.path("libvirtd")).unwrap_or_default())?;
    let mut lines = printed.lines().map(serde_json::from_str::<Value>);
    let mut next = || -> Result<Value> { Ok(lines.next().context("a line is missing")??) };
    let device = next()?;
    ensure!(device["mq"] == true && device["vectors"] == 6, "{device}");
    let port = next()?;
    ensure!(
        port["address"].is_string() && port["connected"] == true,
        "{port}"
    );
    let stats = next()?;
    let ports = stats["switch"]["ports"].as_array().context("no ports")?;
    let port = ports.iter().find(|port| {
        let queues = port["queues"].as_array().map(Vec::as_slice);
        // A pair that the guest has enabled is served.
        port["kind"] == "vhost-user"
            && matches!(queues, Some([a, b]) if a["worker"].is_u64() && b["worker"].is_u64())
    });
    ensure!(port.is_some(), "no port with two queues in use: {stats}");
    Ok(())
}
