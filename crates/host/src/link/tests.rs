use super::*;
use crate::nft;
use crate::packet::{LONGEST, PacketSocket};
use crate::ready;
use crate::tap;

/// Runs in a network namespace of its own; `None` where there is no right to make one.
fn alone<T: Send + 'static>(work: impl AsyncFnOnce(Netlink) -> T + Send + 'static) -> Option<T> {
    let thread = std::thread::spawn(|| {
        // SAFETY: it takes no pointers; only this thread, which starts no other, leaves its namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            eprintln!("SKIPPED: link test: no network namespace of its own");
            return None;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        Some(runtime.block_on(async { work(Netlink::open().unwrap()).await }))
    });
    thread.join().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn an_interface_becomes_what_it_shall_be_and_stays_so() {
    alone(async |netlink| {
        assert_eq!(netlink.find("rw-test").await.unwrap(), None);
        assert!(matches!(
            netlink.set_up("rw-test").await,
            Err(LinkError::Missing(_))
        ));
        tap::create_persistent("rw-test", false, None).unwrap();
        for wanted in [
            vec![net("10.7.0.1/24"), net("fd00::1/64")],
            vec![net("10.8.0.1/24")],
            vec![],
        ] {
            for _ in 0..2 {
                netlink.set_mtu("rw-test", 1400).await.unwrap();
                netlink
                    .set_mac("rw-test", [2, 0, 0, 0, 0, 7])
                    .await
                    .unwrap();
                netlink.set_up("rw-test").await.unwrap();
                netlink.set_addresses("rw-test", &wanted).await.unwrap();
            }
            let link = netlink.find("rw-test").await.unwrap().unwrap();
            let global =
                |a: &&IpNet| !matches!(a.addr(), IpAddr::V6(v6) if v6.is_unicast_link_local());
            let found: Vec<&IpNet> = link.addresses.iter().filter(global).collect();
            assert_eq!(found, wanted.iter().collect::<Vec<_>>());
            assert_eq!(
                (link.mtu, link.up, link.mac),
                (1400, true, Some([2, 0, 0, 0, 0, 7]))
            );
        }
        tap::delete("rw-test").unwrap();
        assert_eq!(netlink.find("rw-test").await.unwrap(), None);
    });
}

#[test]
fn routes_are_listed_without_ours() {
    alone(async |netlink| {
        for (name, address) in [("rw-a", "10.7.0.1/24"), ("other", "10.8.0.1/16")] {
            tap::create_persistent(name, false, None).unwrap();
            netlink.set_up(name).await.unwrap();
            netlink.set_addresses(name, &[net(address)]).await.unwrap();
        }
        let ours = |name: &str| name.starts_with("rw-");
        assert_eq!(
            netlink.routes(ours).await.unwrap(),
            ["10.8.0.0/16".parse().unwrap()]
        );
        assert_eq!(netlink.routes(|_| false).await.unwrap().len(), 2);
    });
}

#[test]
fn a_table_is_loaded_whole_or_not_at_all() {
    alone(async |_| {
        if nft::version().is_none() {
            eprintln!("SKIPPED: nft test: nft is not installed");
            return;
        }
        nft::load("add table inet ringway\n").unwrap();
        assert!(nft::has_table("inet ringway").unwrap());
        let error = nft::load("delete table inet ringway\nadd nonsense\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("nonsense"), "{error}");
        assert!(
            nft::has_table("inet ringway").unwrap(),
            "half of it was done"
        );
        nft::load("delete table inet ringway\n").unwrap();
        assert!(!nft::has_table("inet ringway").unwrap());
    });
}

#[test]
fn a_changed_ruleset_is_told() {
    alone(async |_| {
        if nft::version().is_none() {
            eprintln!("SKIPPED: nft test: nft is not installed");
            return;
        }
        let changes = ready::watch(nft::changes().unwrap()).unwrap();
        nft::load("add table inet ringway\n").unwrap();
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), changes.readable());
        assert!(told.await.unwrap().is_ok());
    });
}

#[test]
fn dhcp_and_arp_come_whole_and_nothing_else() {
    alone(async |netlink| {
        tap::create_persistent("rw-test", false, None).unwrap();
        let guest = tap::open("rw-test", 1).unwrap();
        netlink.set_up("rw-test").await.unwrap();
        let socket = PacketSocket::open("rw-test").unwrap();
        let socket = ready::watch_packets(socket).unwrap();
        let frame = |kind: u16, at: &[(usize, u8)]| {
            let mut frame = vec![0u8; 60];
            frame[..6].fill(0xff);
            frame[6] = 2;
            frame[12..14].copy_from_slice(&kind.to_be_bytes());
            frame[14] = 0x45;
            at.iter().for_each(|&(place, byte)| frame[place] = byte);
            frame
        };
        let send = |frame: &[u8]| {
            let with_header = [&[0; 12], frame].concat();
            rustix::io::write(&guest.queues[0], &with_header).unwrap();
        };
        let dhcp = frame(0x0800, &[(23, 17), (37, 67)]);
        let arp = [1, 2].map(|operation| frame(0x0806, &[(21, operation)]));
        for other in [
            frame(0x0800, &[(23, 17), (37, 68)]),
            frame(0x0800, &[(23, 6), (37, 67)]),
            frame(0x0800, &[(23, 17), (37, 67), (21, 1)]),
            frame(0x0835, &[(21, 1)]),
            frame(0x86dd, &[(23, 17), (37, 67)]),
        ] {
            send(&other);
        }
        send(&dhcp);
        arp.iter().for_each(|frame| send(frame));
        socket.get_ref().send(&dhcp).unwrap();
        for expected in [&dhcp, &arp[0], &arp[1]] {
            let mut buffer = [0; LONGEST];
            let received = loop {
                let limit = std::time::Duration::from_secs(10);
                let ready = tokio::time::timeout(limit, socket.readable()).await;
                let mut ready = ready.unwrap().unwrap();
                if let Ok(received) = ready.try_io(|socket| socket.get_ref().receive(&mut buffer)) {
                    break received.unwrap();
                }
            };
            assert_eq!(&buffer[..received.len], expected);
            assert!(!received.partial_checksum);
        }
        // What we sent ourselves is not heard.
        let mut buffer = [0; LONGEST];
        let error = socket.get_ref().receive(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    });
}
