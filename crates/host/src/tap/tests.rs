use std::{
    io::Write,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::*;

/// Runs the test in a network namespace of its own, on a thread that ends with it. Without the right to make one, says so and
/// passes.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let finished = thread::spawn(|| {
        // SAFETY: changes only which network namespace this thread uses; no memory is involved.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let error = io::Error::last_os_error();
            // Past the test harness's capture, so that it is seen and can be counted.
            let _ = writeln!(
                io::stderr(),
                "SKIPPED: tap test: no network namespace of its own ({error})"
            );
            return;
        }
        test();
    });
    if let Err(panic) = finished.join() {
        std::panic::resume_unwind(panic);
    }
}

/// As a user without any right, on this thread only.
fn as_nobody<T: Send + 'static>(action: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(|| {
        // SAFETY: the system call changes the user of this thread alone (the library function would change all); no memory is
        // involved.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
        assert_eq!(done, 0);
        action()
    })
    .join()
    .unwrap()
}

fn refusal(name: &str, queues: u16) -> String {
    open(name, queues).expect_err(name).to_string()
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "ip {arguments}"
    );
}

#[test]
fn a_single_queue_tap_opens_with_its_properties() {
    in_namespace(|| {
        create_persistent("tap0", false, None).unwrap();
        let tap = open("tap0", 1).unwrap();
        assert_eq!(
            (
                tap.name.as_str(),
                tap.queues.len(),
                tap.mtu,
                tap.multi_queue
            ),
            ("tap0", 1, 1500, false)
        );
        assert_eq!(tap.mac[0] & 1, 0);
        for queue in &tap.queues {
            assert!(
                rustix::fs::fcntl_getfl(queue)
                    .unwrap()
                    .contains(OFlags::NONBLOCK)
            );
            assert!(
                rustix::io::fcntl_getfd(queue)
                    .unwrap()
                    .contains(rustix::io::FdFlags::CLOEXEC)
            );
        }
        drop(tap);
        delete("tap0").unwrap();
        assert!(matches!(delete("tap0"), Err(TapError::Missing { .. })));
    });
}

#[test]
fn a_multi_queue_tap_opens_with_one_queue_and_with_many() {
    in_namespace(|| {
        create_persistent("tap0", true, None).unwrap();
        let one = open("tap0", 1).unwrap();
        assert!(one.multi_queue);
        let rest = open("tap0", 255).unwrap();
        assert_eq!(rest.queues.len(), 255);
        drop(one);
        assert_eq!(
            refusal("tap0", 2),
            "tap tap0 gave only 1 of 2 queues, the rest of its 256 are in use: use queues=1 or stop the other program"
        );
        let queue = rest.queues[0].as_fd();
        set_queue(queue, false).unwrap();
        assert!(set_queue(queue, false).is_err(), "detached already");
        set_queue(queue, true).unwrap();
        drop(rest);
        delete("tap0").unwrap();
    });
}

#[test]
fn frames_cross_with_a_header_of_twelve_bytes() {
    in_namespace(|| {
        create_persistent("tap0", false, None).unwrap();
        let tap = open("tap0", 1).unwrap();
        let queue = &tap.queues[0];
        let mut frame = [0; 12 + 60];
        frame[12..18].fill(0xff);
        assert_eq!(
            rustix::io::write(queue, &frame),
            Err(Errno::IO),
            "the link is down"
        );
        assert_eq!(
            check_up("tap0").unwrap_err().to_string(),
            "tap tap0 is down and carries nothing: set it up as root with `ip link set dev tap0 up`"
        );
        set_up("tap0", true).unwrap();
        check_up("tap0").unwrap();
        assert_eq!(rustix::io::write(queue, &frame), Ok(72));
        // The kernel's own neighbour and multicast messages for the new link come out, each after its 12 bytes.
        let mut buffer = [0; 2048];
        rustix::event::poll(
            &mut [rustix::event::PollFd::new(
                queue,
                rustix::event::PollFlags::IN,
            )],
            None,
        )
        .unwrap();
        let length = rustix::io::read(queue, &mut buffer).unwrap();
        assert!(
            length > 12 + 14 && buffer[12..14] == [0x33, 0x33],
            "{:?}",
            &buffer[..length]
        );
        set_up("tap0", false).unwrap();
        assert!(!is_up("tap0").unwrap());
    });
}

#[test]
fn offloads_are_set_as_far_as_the_kernel_allows() {
    in_namespace(|| {
        create_persistent("tap0", false, None).unwrap();
        let tap = open("tap0", 1).unwrap();
        let queue = tap.queues[0].as_fd();
        assert!(
            ioctl::set_offload(queue, libc::TUN_F_TSO4).is_err(),
            "TSO without checksums is the kernel's EINVAL"
        );
        assert!(
            ioctl::set_offload(queue, libc::TUN_F_CSUM | libc::TUN_F_USO4).is_err(),
            "so is USO4 without USO6"
        );
        let set = set_offload(queue, Offloads::ALL).unwrap();
        assert_eq!(Offloads { uso: true, ..set }, Offloads::ALL);
        let every = [false, true];
        for bits in 0..32 {
            let on = |bit: usize| every[(bits >> bit) & 1];
            let wanted = Offloads {
                csum: on(0),
                tso4: on(1),
                tso6: on(2),
                ecn: on(3),
                uso: on(4),
            };
            let set = set_offload(queue, wanted).unwrap();
            assert_eq!(
                Offloads {
                    uso: wanted.possible().uso,
                    ..set
                },
                wanted.possible()
            );
        }
    });
}

#[test]
fn a_missing_tap_is_named_with_the_command_that_makes_it_and_none_is_made() {
    in_namespace(|| {
        assert_eq!(
            refusal("tap7", 1),
            "tap tap7 does not exist: create it as root with `ip tuntap add dev tap7 mode tap && ip link set dev tap7 up`"
        );
        assert!(refusal("tap7", 4).contains("`ip tuntap add dev tap7 mode tap multi_queue && "));
        let error = as_nobody(|| {
            // The namespace is the one of the thread that started this one.
            refusal("tap7", 1)
        });
        assert!(error.contains("mode tap user 65534 && "), "{error}");
        assert!(Links::new().unwrap().index("tap7").is_err());
        assert!(matches!(is_up("tap7"), Err(TapError::Missing { .. })));
        assert!(matches!(
            set_up("tap7", true),
            Err(TapError::Missing { .. })
        ));
    });
}

#[test]
fn the_commands_in_the_errors_do_what_they_say() {
    in_namespace(|| {
        for (prepare, queues) in [
            (None, 1),
            (None, 4),
            (Some("tuntap add dev t0 mode tun"), 1),
            (Some("tuntap add dev t0 mode tap"), 4),
        ] {
            if let Some(prepare) = prepare {
                ip(prepare);
            }
            let error = refusal("t0", queues);
            let command = error.split('`').nth(1).unwrap_or_else(|| panic!("{error}"));
            assert!(
                Command::new("sh")
                    .args(["-ec", command])
                    .status()
                    .unwrap()
                    .success(),
                "{command}"
            );
            assert_eq!(
                open("t0", queues).unwrap().queues.len(),
                usize::from(queues)
            );
            check_up("t0").unwrap();
            delete("t0").unwrap();
        }
    });
}

#[test]
fn a_single_queue_tap_refuses_more_queues_and_a_second_opener() {
    in_namespace(|| {
        create_persistent("single0", false, None).unwrap();
        assert_eq!(
            refusal("single0", 2),
            "tap single0 has a single queue but queues=2 is asked for: use queues=1, or create it anew as root with \
             `ip link delete single0 && ip tuntap add dev single0 mode tap multi_queue && ip link set dev single0 up`"
        );
        let tap = open("single0", 1).unwrap();
        let error = refusal("single0", 1);
        let own = format!("tap single0 is in use by process {} (", std::process::id());
        assert!(error.starts_with(&own), "{error}");
        assert!(
            error.ends_with(") and has a single queue: stop that process or use another tap"),
            "{error}"
        );
        drop(tap);
        open("single0", 1).unwrap();
    });
}

#[test]
fn a_tap_of_another_user_is_refused_and_one_without_owner_is_not() {
    in_namespace(|| {
        create_persistent("tap0", false, Some(4711)).unwrap();
        create_persistent("tap1", false, None).unwrap();
        let error = as_nobody(|| refusal("tap0", 1));
        assert_eq!(
            error,
            "tap tap0 belongs to another user: run as that user, or give it to yourself as root with \
             `ip link delete tap0 && ip tuntap add dev tap0 mode tap user 65534 && ip link set dev tap0 up`"
        );
        if rustix::fs::access("/dev/net/tun", rustix::fs::Access::WRITE_OK).is_ok() {
            let queues = as_nobody(|| open("tap1", 1).map(|tap| tap.queues.len()));
            assert!(
                matches!(queues, Ok(1) | Err(TapError::TunDenied)),
                "{queues:?}"
            );
        }
        let error = as_nobody(|| create_persistent("tap2", false, None).unwrap_err());
        assert!(
            matches!(error, TapError::CreateDenied { .. } | TapError::TunDenied),
            "{error}"
        );
    });
}

#[test]
fn interfaces_that_are_no_taps_are_refused() {
    in_namespace(|| {
        ip("tuntap add dev tun0 mode tun");
        assert_eq!(
            refusal("tun0", 1),
            "tun0 is a tun interface, which carries no Ethernet frames: replace it as root by a tap with \
             `ip link delete tun0 && ip tuntap add dev tun0 mode tap && ip link set dev tun0 up`"
        );
        ip("link add veth0 type veth peer name veth1");
        let error = refusal("veth0", 1);
        assert!(
            error.starts_with("veth0 is no tap but an interface of driver veth: "),
            "{error}"
        );
        let error = refusal("lo", 1);
        assert!(
            error.starts_with("lo is no tap but an interface of driver "),
            "{error}"
        );
        assert!(matches!(delete("veth0"), Err(TapError::OtherDevice { .. })));
        assert_eq!(
            create_persistent("veth0", false, None)
                .unwrap_err()
                .to_string(),
            "interface veth0 exists already: choose another name or remove it as root with `ip link delete veth0`"
        );
    });
}

#[test]
fn names_and_counts_that_no_tap_can_have_are_refused_before_the_kernel_is_asked() {
    assert_eq!(
        refusal("sixteen-bytes-xx", 1),
        "tap name \"sixteen-bytes-xx\" has 16 bytes: an interface name has 1 to 15, choose another"
    );
    assert_eq!(
        refusal("", 1),
        "tap name \"\" has 0 bytes: an interface name has 1 to 15, choose another"
    );
    assert_eq!(
        refusal("tap%d", 1),
        "tap name \"tap%d\" is not possible: an interface name has no space, '/', ':' or '%', choose another"
    );
    assert_eq!(
        refusal("tap0", 0),
        "tap tap0 cannot have 0 queues: ask for 1 to 256"
    );
    assert_eq!(
        refusal("tap0", 257),
        "tap tap0 cannot have 257 queues: ask for 1 to 256"
    );
}

#[test]
fn nothing_stays_open_after_a_refusal() {
    in_namespace(|| {
        create_persistent("tap0", true, None).unwrap();
        let held = open("tap0", 250).unwrap();
        assert!(matches!(
            open("tap0", 10),
            Err(TapError::QueuesTaken { opened: 6, .. })
        ));
        // All six are free again, as soon as no child that another test is just starting has them.
        let end = Instant::now() + Duration::from_secs(10);
        let opened = loop {
            match open("tap0", 6) {
                Err(TapError::QueuesTaken { .. }) if Instant::now() < end => thread::yield_now(),
                result => break result,
            }
        };
        assert_eq!(opened.unwrap().queues.len(), 6);
        drop(held);
    });
}
