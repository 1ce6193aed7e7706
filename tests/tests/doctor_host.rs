//! `ringway doctor` and what the host has to offer: device nodes in a /dev of its own, limits, and, in a guest where everything may
//! be changed, modules, huge pages and passthrough.

use std::{path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use ringway_tests::{
    Endpoint, Guest, Lab, Need, Netns,
    doctor::{self, Doctor, Finding, bridge, command, name, tap_nic},
    guest::Job,
    switch::binary,
};

const NEEDS: [Need; 5] = [
    Need::Guests,
    Need::Namespaces,
    Need::Root,
    Need::Program("setpriv"),
    Need::Program("prlimit"),
];
const LIMIT: Duration = Duration::from_secs(60);
/// A user that has no rights but to be.
const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all";

/// A tap in a bridge of its own.
fn tap(place: &dyn Endpoint, options: &str) -> Result<String> {
    doctor::tap(place, &bridge(place)?, options)
}

/// A namespace that sees a /dev of its own.
struct Devices {
    place: Netns,
    folder: PathBuf,
}

impl Devices {
    fn new(lab: &Lab) -> Result<Self> {
        let folder = lab.path("dev");
        let place = Netns::new()?;
        let at = folder.display();
        // For a user who does not reach the checkout.
        let program = binary()?;
        place.sh(&format!(
            "mkdir {at} && cd {at} && mkdir net shm && mknod -m 666 null c 1 3 && mknod -m 666 zero c 1 5 && \
             mknod -m 666 urandom c 1 9 && mknod -m 666 random c 1 8 && cp {} ringway && chmod 755 . net ringway",
            program.display()
        ))?;
        Ok(Self { place, folder })
    }

    /// Makes a device, or makes it again.
    fn device(&self, name: &str, mode: &str, numbers: &str) -> Result<()> {
        let at = self.folder.display();
        self.place.sh(&format!(
            "rm -f {at}/{name} && mknod -m {mode} {at}/{name} c {numbers}"
        ))?;
        Ok(())
    }
}

impl Endpoint for Devices {
    fn start(&self, line: &str) -> Result<Job> {
        let quoted = line.replace('\'', "'\\''");
        let at = self.folder.display();
        self.place.start(&format!(
            "exec unshare --mount sh -c 'mount --bind {at} /dev; {quoted}'"
        ))
    }

    fn serve_iperf3(&self, port: u16) -> Result<()> {
        self.place.serve_iperf3(port)
    }
}

#[test]
fn devices_that_are_not_there_or_not_for_everybody() -> Result<()> {
    let Some(lab) = Lab::with("doctor-devices", &NEEDS)? else {
        return Ok(());
    };
    let devices = Devices::new(&lab)?;
    let tap = tap(&devices.place, "user 65534")?;
    let doctor = Doctor::within(&devices).by("/dev/ringway");
    let nobody = doctor.clone().after(NOBODY);
    let line = command(&tap_nic(&tap, "", ""));

    // The driver of taps is part of this kernel or loaded: what its module's cure does is shown in a guest.
    doctor.refuses(&line, "/dev/net/tun: No such file")?;
    let line = format!("-- {line}");
    let found = doctor.finds(&line, "tun-unusable", "/dev/net/tun")?;
    ensure!(found.cure[0] == "modprobe tun", "{found:?}");
    devices.device("net/tun", "600", "10 200")?;
    doctor.is_silent(&line)?;
    let denied = "/dev/net/tun: Permission denied";
    nobody.revives(
        &tap_nic(&tap, "", ""),
        "tun-unusable",
        "/dev/net/tun",
        denied,
    )?;

    // KVM: who asks for translation gets it.
    let kvm = command("").replace("-accel tcg", "-accel kvm");
    let ask = |doctor: &Doctor<'_>| -> Result<Finding> {
        doctor.is_silent(&format!("-- {}", command("")))?;
        doctor.finds(&format!("-- {kvm}"), "kvm-unusable", "/dev/kvm")
    };
    doctor.refuses(&kvm, "Could not access KVM kernel module: No such file")?;
    let found = ask(&doctor)?;
    ensure!(found.what.contains("there is no /dev/kvm"), "{found:?}");
    devices.device("kvm", "600", "10 232")?;
    let found = ask(&nobody)?;
    ensure!(found.what.contains("may not open /dev/kvm"), "{found:?}");
    doctor.cures(&found)?;
    // Then it works, or it is said that nothing boots with it.
    let found = nobody.asks(&format!("-- {kvm}"))?;
    let boots = found
        .iter()
        .all(|it| it.fault == "kvm-unusable" && (it.what.contains("boots nothing")));
    ensure!(boots, "{found:?}");
    Ok(())
}

#[test]
fn a_machine_may_open_too_few_files() -> Result<()> {
    let Some(_lab) = Lab::with("doctor-files", &NEEDS)? else {
        return Ok(());
    };
    let place = Netns::new()?;
    let doctor = Doctor::new(&place)?;
    let (wide, narrow) = (tap(&place, "multi_queue")?, tap(&place, "")?);
    let many = tap_nic(&wide, ",queues=16", ",mq=on,vectors=34");
    let one = tap_nic(&narrow, "", "");
    let label = name("vm");
    let started = command(&format!("-name {label} {many}"));
    let line = format!("-- {started}");
    let few = doctor.clone().after("prlimit --nofile=20:20");
    few.refuses(&started, "Too many open files")?;
    let found = few.finds(&line, "files-short", &label)?;
    // What is printed is for the shell that starts it.
    let raised = format!("sh -c '{}; exec \"$@\"' --", found.line()?);
    let raised = doctor
        .clone()
        .after(&format!("prlimit --nofile=20: {raised}"));
    raised.is_silent(&line)?;
    raised.starts(&started)?;
    doctor.is_silent(&line)?;
    doctor.starts(&started)?;
    // A machine with one queue may do with less.
    let less = doctor.clone().after("prlimit --nofile=64:64");
    less.is_silent(&format!("-- {}", command(&one)))?;
    less.finds(&line, "files-short", &label)?;

    // One that runs and is about to meet its limit.
    let process = place.keep(
        "qemu",
        &format!(
            "exec {} -name {label} -monitor none",
            command(&(many.clone() + &one))
        ),
    )?;
    let pid = process.id();
    place
        .start(&format!(
            "until grep -sq iff:.*{narrow} /proc/{pid}/fdinfo/*; do sleep 0.05; done; \
         prlimit --pid {pid} --nofile=$(ls /proc/{pid}/fd | wc -l):"
        ))?
        .success(LIMIT)?;
    doctor.mends(&format!("--pid {pid}"), "files-short", &label)?;
    Ok(())
}

/// A guest with our program, and modules where `modprobe` looks for them.
fn guest(lab: &Lab, flags: &[&str], append: &str) -> Result<Guest> {
    let libraries = "/lib/x86_64-linux-gnu";
    let guest = lab
        .guest("host")
        .variant("full")
        .memory(1024)
        .further(flags)
        .append(append)
        .file(binary()?, "bin/ringway")
        .file("/usr/bin/setpriv".into(), "bin/setpriv")
        .file(
            format!("{libraries}/libgcc_s.so.1").into(),
            "lib/libgcc_s.so.1",
        )
        .file(
            format!("{libraries}/libcap-ng.so.0").into(),
            "lib/libcap-ng.so.0",
        )
        .boot()?;
    guest.sh("d=/lib/modules/$(uname -r); mkdir -p $d && ln -s /modules/*.ko $d && depmod")?;
    Ok(guest)
}

#[test]
fn modules_huge_pages_and_offloads_of_a_host() -> Result<()> {
    let Some(lab) = Lab::with("doctor-guest", &[Need::FullGuest])? else {
        return Ok(());
    };
    let host = guest(&lab, &["-device", "e1000,romfile="], "")?;
    let doctor = Doctor::within(&host);
    let nobody = doctor.clone().after(NOBODY);
    let plain = format!("-- {}", command(&tap_nic("none", "", "")));

    // Taps and vhost-net: no module, and a mode that keeps others out.
    host.sh("rmmod vhost_net; rmmod tun")?;
    doctor.mends(&plain, "tun-unusable", "/dev/net/tun")?;
    host.sh("chmod 600 /dev/net/tun")?;
    let tap = tap(&host, "user 65534")?;
    let plain = format!("-- {}", command(&tap_nic(&tap, "", "")));
    let vhost = format!("-- {}", command(&tap_nic(&tap, ",vhost=on", "")));
    doctor.is_silent(&vhost.replace("vhost=on", "vhost=off"))?;
    nobody.mends(&plain, "tun-unusable", "/dev/net/tun")?;
    doctor.is_silent(&plain)?;
    doctor.mends(&vhost, "vhost-net-unusable", "/dev/vhost-net")?;
    host.sh("chmod 600 /dev/vhost-net")?;
    doctor.is_silent(&vhost)?;
    nobody.is_silent(&plain)?;
    nobody.mends(&vhost, "vhost-net-unusable", "/dev/vhost-net")?;

    // Huge pages: enough for one machine's memory, not for another's.
    host.sh("mkdir /tmp/huge && mount -t hugetlbfs none /tmp/huge")?;
    let (well, sick) = (name("m"), name("m"));
    for kind in [
        "memory-backend-memfd,hugetlb=on",
        "memory-backend-file,mem-path=/tmp/huge",
    ] {
        host.sh("echo 4 >/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")?;
        let object = |id: &str, size: &str| format!("-object {kind},id={id},size={size},share=on ");
        let small = format!("-- {}", command(&object(&well, "8M")));
        let both = format!("{small} {}", object(&sick, "33M"));
        // What QEMU would do with them.
        let take = "cd /tmp/huge && fallocate -l 8M well && fallocate -l 34M sick";
        let leave = "rm -f /tmp/huge/well /tmp/huge/sick";
        ensure!(host.run(take)?.status != 0);
        host.sh(&format!("test -s /tmp/huge/well; {leave}"))?;
        doctor.is_silent(&small)?;
        doctor.mends(&both, "huge-pages-short", &sick)?;
        host.sh(&format!("{take} && {leave}"))?;
    }

    // A NIC that leaves to the CPU what it could do itself.
    let bridge = bridge(&host)?;
    let port = doctor::tap(&host, &bridge, "")?;
    host.sh(&format!(
        "ip link set eth0 up; ip link set eth0 master {bridge}"
    ))?;
    let line = format!("-- {}", command(&tap_nic(&port, "", "")));
    doctor.is_silent(&line)?;
    host.sh("ethtool -K eth0 gro off tso off")?;
    let found = doctor.mends(&line, "offload-off", "eth0")?;
    ensure!(found.what.contains("gro"), "{found:?}");

    // Open files, in a shell and for what that starts; whoever may raise the limit does.
    let port = doctor::tap(&host, &bridge, "multi_queue")?;
    let many = tap_nic(&port, ",queues=16", ",mq=on,vectors=34");
    let label = name("vm");
    let line = format!("-- {}", command(&format!("-name {label} {many}")));
    let limited = |then: &str| {
        let shell = format!("sh -c 'ulimit -n 20; {then} exec \"$@\"' --");
        doctor.clone().after(&shell)
    };
    let found = limited("").finds(&line, "files-short", &label)?;
    limited(&format!("{};", found.cure[0])).is_silent(&line)?;

    // There is no KVM in it, and no IOMMU.
    let kvm = command("").replace("-accel tcg", "-accel kvm");
    doctor.finds(&format!("-- {kvm}"), "kvm-unusable", "/dev/kvm")?;
    let address = host.sh("basename $(readlink /sys/class/net/eth0/device)")?;
    let address = address.trim();
    let pass = format!("-- {} -device vfio-pci,host={address}", command(""));
    doctor.finds(&pass, "iommu-off", address)?;
    Ok(())
}

#[test]
fn devices_are_passed_through_with_all_of_their_group() -> Result<()> {
    let Some(lab) = Lab::with("doctor-vfio", &[Need::FullGuest])? else {
        return Ok(());
    };
    let flags = [
        "-device",
        "intel-iommu,caching-mode=on",
        "-device",
        "pcie-root-port,id=alone,slot=1",
        "-device",
        "igb,bus=alone,romfile=",
        "-device",
        "pcie-pci-bridge,id=shared",
        "-device",
        "e1000,bus=shared,addr=1,romfile=",
        "-device",
        "e1000,bus=shared,addr=2,romfile=",
    ];
    let host = guest(&lab, &flags, "intel_iommu=on")?;
    let doctor = Doctor::within(&host);
    let of = |driver: &str| -> Result<Vec<String>> {
        let found = host.sh(&format!("ls /sys/bus/pci/drivers/{driver} | grep :"))?;
        Ok(found.lines().map(str::to_owned).collect())
    };
    let line = |address: &str| format!("-- {} -device vfio-pci,host={address}", command(""));
    let alone = of("igb")?.concat();
    doctor.mends(&line(&alone), "vfio-unbound", &alone)?;
    let group =
        format!("/dev/vfio/$(basename $(readlink /sys/bus/pci/devices/{alone}/iommu_group))");
    host.sh(&format!("test -c {group}"))?;

    let pair = of("e1000")?;
    let [sick, other] = pair.as_slice() else {
        anyhow::bail!("not two of e1000: {pair:?}");
    };
    // Both at once; then the one, of which the other is still the host's.
    let found = doctor.asks(&line(sick))?;
    let named: Vec<&str> = found.iter().map(|it| it.fault.as_str()).collect();
    ensure!(named == ["vfio-unbound", "vfio-group"], "{found:?}");
    doctor.cures(&found[0])?;
    let found = doctor.mends(&line(sick), "vfio-group", sick)?;
    ensure!(found.what.contains(other), "{found:?}");
    // The short form of an address is the same device.
    doctor.is_silent(&line(sick.trim_start_matches("0000:")))?;
    doctor.is_silent(&line(&alone))?;
    doctor.finds(&line("0000:0f:1f.7"), "vfio-unbound", "0000:0f:1f.7")?;
    Ok(())
}
