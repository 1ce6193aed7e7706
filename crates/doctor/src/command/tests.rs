use super::*;

fn command(line: &str) -> Command {
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    Command::parse(&words)
}

#[test]
fn both_halves_of_a_nic_are_found() {
    let command = command(
        "qemu-system-x86_64 -M q35,memory-backend=mem -object memory-backend-memfd,id=mem,size=1G -smp 4 -enable-kvm \
         -chardev socket,id=c0,path=/run/a,,b.sock,server,nowait -netdev vhost-user,id=n0,chardev=c0,queues=4 \
         -device virtio-net-pci,netdev=n0,mq=on,vectors=10 -netdev tap,id=n1,fds=3:4,vhost=on -nographic disk.img",
    );
    assert_eq!(command.cpus(), 4);
    assert_eq!(command.accelerators(), ["kvm"]);
    assert!(command.memory_is_shared());
    let [user, tap] = command.nics().try_into().unwrap();
    assert_eq!(
        (user.backend(), user.model()),
        ("vhost-user", "virtio-net-pci")
    );
    assert_eq!(user.socket().unwrap(), Path::new("/run/a,b.sock"));
    assert!(user.listens());
    assert_eq!((user.queues(), tap.queues()), (4, 2));
    assert_eq!(tap.descriptors(), [3, 4]);
    assert!(tap.vhost() && tap.device.is_none());
}

#[test]
fn json_as_libvirt_writes_it_is_the_same() {
    let words = [
        "/usr/bin/qemu-system-x86_64",
        "-machine",
        "pc-q35-7.2,accel=kvm,memory-backend=pc.ram",
        "-object",
        r#"{"qom-type":"memory-backend-ram","id":"pc.ram","size":536870912}"#,
        "-smp",
        "2,sockets=2,cores=1",
        "-netdev",
        r#"{"type":"tap","fds":"30:31","vhost":true,"vhostfds":"32:33","id":"hostnet0"}"#,
        "-device",
        r#"{"driver":"virtio-net-pci","mq":true,"vectors":6,"netdev":"hostnet0","id":"net0","mac":"52:54:00:00:00:01"}"#,
    ];
    let command = Command::parse(&words.map(str::to_owned));
    assert!(!command.memory_is_shared());
    assert_eq!(command.cpus(), 2);
    let [nic] = command.nics().try_into().unwrap();
    assert_eq!((nic.backend(), nic.model()), ("tap", "virtio-net-pci"));
    assert!(nic.vhost() && nic.device.as_ref().unwrap().is_on("mq", false));
    assert_eq!(nic.descriptors(), [30, 31]);
}

#[test]
fn what_is_cut_off_or_senseless_is_read_as_far_as_it_goes() {
    for line in [
        "",
        "-",
        "qemu -netdev",
        "qemu -netdev {",
        "qemu -device ,,,=,",
        "qemu -smp -m -netdev tap",
    ] {
        let command = command(line);
        assert!(command.nics().len() <= 1, "{line}");
        assert_eq!(command.cpus(), 1, "{line}");
    }
}
