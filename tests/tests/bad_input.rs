//! What cannot be meant or cannot be done: one sentence that names the value and the way out, exit code 2 or 1, and nothing left
//! behind.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
};

use anyhow::{Result, ensure};
use ringway_tests::{Lab, Need, Netns};
use rustix::process::Signal;

#[test]
fn command_lines_that_cannot_be_meant() -> Result<()> {
    let Some(lab) = Lab::with("bad-usage", &[])? else {
        return Ok(());
    };
    let long = format!("/tmp/{}", "x".repeat(110));
    let long_port = format!("vhost-user,path={long}");
    let cases: &[(&[&str], &[&str])] = &[
        (&["swich"], &["'swich'", "switch"]),
        (&["switch", "--prot", "sink"], &["'--prot'", "--port"]),
        (&["switch"], &["--port", "--help"]),
        (
            &["switch", "--port", "sink", "--sandbox", "perhaps"],
            &["'perhaps'", "--sandbox", "on, off"],
        ),
        (
            &["switch", "--port", &long_port],
            &[&long, "115 bytes", "at most 107", "shorter"],
        ),
        (
            &["dump", &long],
            &[&long, "115 bytes", "at most 107", "shorter"],
        ),
        (
            &["switch", "--port", "vhsot,path=a"],
            &["\"vhsot\"", "vhost-user, tap"],
        ),
        (
            &["switch", "--port", "vhost-user"],
            &["path=", "for example"],
        ),
        (
            &["switch", "--port", "vhost-user,path=a,colour=red"],
            &["\"colour\"", "queues"],
        ),
        (
            &["switch", "--port", "vhost-user,path=a,queues=0"],
            &["queues=0", "from 1 to 128"],
        ),
        (
            &["switch", "--port", "vhost-user,path=a,queues=129"],
            &["queues=129", "from 1 to 128"],
        ),
        (
            &["switch", "--port", "vhost-user,path=a,queues=many"],
            &["queues=many", "from 1 to 128"],
        ),
        (
            &["switch", "--port", "vhost-user,path=a,perm=rw"],
            &["perm=rw", "0660"],
        ),
        (
            &["switch", "--port", "tap,name=much-too-long-name"],
            &["much-too-long-name", "1 to 15 bytes"],
        ),
        (
            &["switch", "--port", "sink,mac=01:00:00:00:00:00"],
            &["mac=01:00:00:00:00:00", "unicast"],
        ),
        (
            &["switch", "--port", "sink,vlan=4095"],
            &["vlan=4095", "1 to 4094"],
        ),
        (
            &["switch", "--port", "sink,vlan=1,trunk=2"],
            &["vlan=1", "trunk=2", "keep one"],
        ),
        (
            &["switch", "--port", "sink,rate=fast"],
            &["rate=fast", "100M"],
        ),
        (
            &["switch", "--port", "sink,offload=maybe"],
            &["offload=maybe", "off, csum or all"],
        ),
        (
            &["switch", "--port", "sink", "--workers", "0"],
            &["--workers 0", "from 1 to 64"],
        ),
        (
            &["switch", "--port", "sink", "--cpus", "3-1"],
            &["--cpus 3-1", "2-5"],
        ),
        (
            &["switch", "--port", "sink", "--poll", "rarely"],
            &["rarely", "adaptive"],
        ),
        (
            &["switch", "--port", "sink", "--stats-interval", "0"],
            &["--stats-interval 0", "0.5"],
        ),
        (&["dump"], &["PATH", "--help"]),
        (&["dump", "a", "--count", "0"], &["--count 0", "from 1"]),
    ];
    for (arguments, parts) in cases {
        lab.attempt(arguments).refused()?.says(2, parts)?;
    }
    lab.report(&format!(
        "{} command lines refused with one sentence each",
        cases.len()
    ));
    Ok(())
}

#[test]
fn sockets_that_cannot_be_made() -> Result<()> {
    let Some(lab) = Lab::with("bad-sockets", &[])? else {
        return Ok(());
    };
    let first = lab.path("first");
    let refused = |path: &Path, unprivileged: bool, parts: &[&str]| -> Result<()> {
        let name = path.display().to_string();
        let parts = [&[name.as_str()], parts].concat();
        let mut ports = vec!["switch".to_owned()];
        if !unprivileged {
            // What was made before the failure must go as well.
            ports.extend([
                "--port".into(),
                format!("vhost-user,path={}", first.display()),
            ]);
        }
        ports.extend(["--port".into(), format!("vhost-user,path={name}")]);
        for arguments in [ports, vec!["dump".to_owned(), name.clone()]] {
            let attempt = lab.attempt(&arguments);
            let attempt = if unprivileged {
                attempt.unprivileged()
            } else {
                attempt
            };
            attempt.refused()?.says(1, &parts)?;
            ensure!(
                !first.exists(),
                "{arguments:?} left {} behind",
                first.display()
            );
        }
        Ok(())
    };

    refused(
        &lab.path("no/socket"),
        false,
        &["does not exist", "mkdir -p"],
    )?;
    refused(Path::new("/proc/socket"), false, &["choose"])?;

    let closed = lab.path("closed");
    fs::create_dir(&closed)?;
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555))?;
    refused(&closed.join("socket"), true, &["no right", "may write to"])?;
    ensure!(fs::read_dir(&closed)?.next().is_none());

    let precious = lab.path("precious");
    fs::write(&precious, "text")?;
    refused(&precious, false, &["is no socket", "another path"])?;
    ensure!(fs::read(&precious)? == b"text");

    let used = lab.path("used");
    let listener = UnixListener::bind(&used)?;
    refused(&used, false, &["in use", "another path"])?;
    ensure!(used.exists(), "somebody else's socket is gone");
    drop(listener);

    let twice = format!("vhost-user,path={}", first.display());
    lab.attempt(&["switch", "--port", &twice, "--port", &twice])
        .refused()?
        .says(1, &[&first.display().to_string(), "in use"])?;
    ensure!(!first.exists());

    let group = format!("{twice},group=no-such-group");
    lab.attempt(&["switch", "--port", &group])
        .refused()?
        .says(1, &["no-such-group", "getent group"])?;
    ensure!(!first.exists());
    Ok(())
}

#[test]
fn files_names_and_processors_that_are_not_there() -> Result<()> {
    let Some(lab) = Lab::with("bad-places", &[])? else {
        return Ok(());
    };
    let socket = lab.path("socket");
    let port = format!("vhost-user,path={}", socket.display());
    for file in [lab.path("no/file.pcap"), lab.path("")] {
        let name = file.display().to_string();
        let capture = format!("pcap,path={name}");
        let socket_name = socket.display().to_string();
        for arguments in [
            ["switch", "--port", &port, "--port", &capture],
            ["dump", &socket_name, "--pcap", &name, "-v"],
        ] {
            lab.attempt(&arguments)
                .refused()?
                .says(1, &[&name, "cannot write", "may write to"])?;
            ensure!(!socket.exists(), "{arguments:?} left its socket behind");
        }
    }
    lab.attempt(&["switch", "--port", &port, "--cpus", "4000"])
        .refused()?
        .says(1, &["CPU 4000", "nproc"])?;
    ensure!(!socket.exists());
    lab.attempt(&[
        "switch",
        "--port",
        &format!("{port},name=x"),
        "--port",
        "sink,name=x",
    ])
    .refused()?
    .says(1, &["port x already", "another name="])?;
    ensure!(!socket.exists());
    Ok(())
}

#[test]
fn taps_that_cannot_be_used() -> Result<()> {
    let Some(lab) = Lab::with("bad-taps", &[Need::Namespaces])? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    netns.tap("single0", 1, "10.0.0.1/24")?;
    netns.sh("ip link add veth0 type veth peer name veth1 && ip tuntap add dev tun0 mode tun")?;
    let socket = lab.path("socket");
    let before = netns.sh("ip -o link | wc -l")?;
    let attempt = |port: &str| {
        let first = format!("vhost-user,path={}", socket.display());
        lab.attempt(&["switch", "--port", &first, "--port", port])
            .within(&netns)
            .refused()
    };
    attempt("tap,name=missing0")?.says(
        1,
        &[
            "missing0",
            "does not exist",
            "ip tuntap add dev missing0 mode tap",
        ],
    )?;
    attempt("tap,name=missing0,queues=2")?
        .says(1, &["missing0", "does not exist", "multi_queue"])?;
    attempt("tap,name=single0,queues=2")?.says(
        1,
        &[
            "single0",
            "single queue",
            "queues=2",
            "use queues=1",
            "multi_queue",
        ],
    )?;
    attempt("tap,name=veth0")?.says(1, &["veth0", "no tap"])?;
    attempt("tap,name=tun0")?.says(1, &["tun0", "tun interface", "mode tap"])?;

    let mut holder = lab
        .switch()
        .port("tap,name=single0")
        .within(&netns)
        .start()?;
    attempt("tap,name=single0")?.says(
        1,
        &[
            "single0",
            "in use",
            &holder.id().to_string(),
            "stop that process",
        ],
    )?;
    // The one that was there first goes on.
    ensure!(holder.statistics()?.port("single0")?.connected);
    holder.stop()?;
    ensure!(!socket.exists(), "a socket stayed");
    ensure!(
        netns.sh("ip -o link | wc -l")? == before,
        "an interface came or went"
    );
    Ok(())
}

#[test]
fn a_tap_that_belongs_to_somebody_else() -> Result<()> {
    let Some(lab) = Lab::with("bad-owner", &[Need::Namespaces, Need::Root])? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    netns.sh("ip tuntap add dev owned0 mode tap user 12345 && ip link set owned0 up")?;
    lab.attempt(&["switch", "--port", "tap,name=owned0"])
        .within(&netns)
        .unprivileged()
        .refused()?
        .says(1, &["owned0", "belongs to", "run as that user"])
}

#[test]
fn signals_leave_no_socket_and_a_kill_is_recovered_from() -> Result<()> {
    let Some(lab) = Lab::with("signals", &[])? else {
        return Ok(());
    };
    let sockets = ["a", "b", "control"].map(|name| lab.path(name));
    let start = || {
        lab.switch()
            .vhost_user("a", 1)
            .vhost_user("b", 2)
            .arguments(&["--control", &sockets[2].display().to_string()])
            .start()
    };
    for signal in [Signal::TERM, Signal::INT] {
        let switch = start()?;
        ensure!(sockets.iter().all(|path| path.exists()));
        switch.end_by(signal)?;
        ensure!(
            !sockets.iter().any(|path| path.exists()),
            "{signal:?} left a socket"
        );
    }
    start()?.kill();
    ensure!(
        sockets.iter().all(|path| path.exists()),
        "a killed process cleans nothing up"
    );
    let mut again = start()?;
    again.statistics()?.check()?;
    again.stop()?;
    ensure!(!sockets.iter().any(|path| path.exists()));
    Ok(())
}
