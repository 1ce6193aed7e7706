use super::*;
use crate::nft;
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
