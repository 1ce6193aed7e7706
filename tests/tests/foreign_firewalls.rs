//! Beside other firewalls: what Docker's would drop is told with the way out, and passes on request.

use std::os::fd::OwnedFd;

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Daemon, Lab, Need, Netns,
    house::{House, Member, OUTSIDE, ask, run, serve},
};

const LEAVE: &str = "default_network = false";
const OPEN: &str = "default_network = false\nforeign_firewall = 'open'";
const NEEDS: [Need; 5] = [
    Need::Root,
    Need::Namespaces,
    Need::Program("nft"),
    Need::Program("dig"),
    Need::Program("socat"),
];

/// As Docker's daemon leaves it with iptables-nft.
const DOCKER: &str = "
table ip filter {
	chain DOCKER-USER {
		counter return
	}
	chain FORWARD {
		type filter hook forward priority filter; policy drop;
		counter jump DOCKER-USER
		iifname \"docker0\" counter accept
	}
}";

/// As firewalld and others do it: what was not accepted is rejected at the end.
const STRICT: &str = "
table inet strict {
	chain incoming {
		type filter hook input priority filter; policy accept;
		iifname \"lo\" accept
		ct state established accept
		reject with icmpx admin-prohibited
	}
}";

fn tap(name: &str) -> Result<Vec<OwnedFd>> {
    ringway_host::tap::create_persistent(name, false, None)?;
    Ok(ringway_host::tap::open(name, 1)?.queues)
}

fn load(lab: &Lab, netns: &Netns, text: &str) -> Result<()> {
    let file = lab.path("foreign.nft");
    std::fs::write(&file, text)?;
    netns.sh(&format!("nft -f {}", file.display())).map(drop)
}

/// What is in the chain besides counters.
fn chain(netns: &Netns, name: &str) -> Result<String> {
    netns.sh(&format!("nft -s list chain ip filter {name}"))
}

#[test]
fn dockers_policy_is_told_of_with_the_way_out_which_is_one() -> Result<()> {
    let Some(lab) = Lab::with("foreign-told", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    let mut daemon = Daemon::configured(&lab, &house.host, LEAVE)?;
    daemon.ringway("net create lan")?;
    ensure!(daemon.json("info")?["warnings"] == serde_json::json!([]));
    load(&lab, &house.host, DOCKER)?;
    // When it comes, at every start, at every question, and with every network.
    let tells = |line: &str| {
        line.contains("another firewall drops") && line.contains("DOCKER-USER -i rw-lan")
    };
    daemon.await_message("what Docker drops", tells)?;
    daemon.start_again()?;
    daemon.await_message("what Docker drops", tells)?;
    let info = daemon.ringway("info")?;
    ensure!(info.contains("warning: ") && tells(&info), "{info}");
    let made = daemon.ringway("net create dmz 2>&1")?;
    ensure!(
        made.contains("-I DOCKER-USER -i rw-dmz") && !made.contains("rw-lan"),
        "{made}"
    );
    daemon
        .ringway("net create quiet --kind isolated --no-dns 2>&1")
        .and_then(|made| {
            ensure!(!made.contains("warning"), "{made}");
            Ok(())
        })?;

    let guest = Member::settled(&daemon, "lan", "guest0", 10, tap)?;
    let _server = serve(&house.outside, "TCP", 80, "outside")?;
    let to = format!("{OUTSIDE}:80");
    let lost = ask(&guest.place, "TCP", &to);
    ensure!(lost.is_err(), "nothing was dropped: {lost:?}");
    // What it says, as nft writes it.
    house.host.sh(
        "nft insert rule ip filter DOCKER-USER iifname rw-lan counter accept && \
         nft insert rule ip filter DOCKER-USER oifname rw-lan counter accept",
    )?;
    ask(&guest.place, "TCP", &to)?;
    let info = daemon.ringway("info")?;
    ensure!(
        !info.contains("rw-lan") && info.contains("rw-dmz"),
        "{info}"
    );
    // An input chain that rejects concerns names.
    load(&lab, &house.host, STRICT)?;
    let info = daemon.ringway("info")?;
    ensure!(
        info.contains("asks the host for names from rw-lan (chain incoming of table inet strict"),
        "{info}"
    );
    let asked = run(
        &guest.place,
        "dig +timeout=1 +tries=1 @192.168.100.1 gateway.lan.ringway",
    );
    ensure!(asked.is_err(), "names went through: {asked:?}");
    house
        .host
        .sh("nft insert rule inet strict incoming iifname rw-lan accept")?;
    run(
        &guest.place,
        "dig +timeout=2 @192.168.100.1 gateway.lan.ringway",
    )?;
    ensure!(!daemon.ringway("info")?.contains("rw-lan"));
    Ok(())
}

#[test]
fn on_request_it_is_opened_kept_open_and_closed_again() -> Result<()> {
    let Some(lab) = Lab::with("foreign-open", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    load(&lab, &house.host, DOCKER)?;
    let before = house.host.sh("nft -s list ruleset")?;
    let mut daemon = Daemon::configured(&lab, &house.host, OPEN)?;
    let made = daemon.ringway("net create lan 2>&1")?;
    ensure!(!made.contains("warning"), "{made}");
    let guest = Member::settled(&daemon, "lan", "guest0", 10, tap)?;
    let _server = serve(&house.outside, "TCP", 80, "outside")?;
    let _web = serve(&guest.place, "TCP", 80, "web")?;
    daemon.ringway(&format!("forward add lan 8080 {}:80", guest.address))?;
    let works = || -> Result<()> {
        ask(&guest.place, "TCP", &format!("{OUTSIDE}:80"))?;
        ask(&house.outside, "TCP", "203.0.113.1:8080")?;
        Ok(())
    };
    works()?;
    let marked = chain(&house.host, "DOCKER-USER")?;
    for side in ["iifname", "oifname"] {
        let rule = format!("{side} \"rw-lan\" counter accept comment \"ringway rw-lan\"");
        ensure!(marked.matches(&rule).count() == 1, "{marked}");
    }
    // Docker starts again and makes its chains anew.
    house.host.sh("nft flush chain ip filter DOCKER-USER && nft add rule ip filter DOCKER-USER counter return")?;
    let back = "until nft list chain ip filter DOCKER-USER | grep -q 'ringway rw-lan'; do sleep 0.05; done";
    run(&house.host, back)?;
    works()?;
    house.host.sh("nft delete table ip filter")?;
    load(&lab, &house.host, DOCKER)?;
    run(&house.host, back)?;
    works()?;
    // Another network comes and goes, another daemon comes: once is enough.
    daemon.ringway("net create dmz")?;
    ensure!(chain(&house.host, "DOCKER-USER")?.contains("ringway rw-dmz"));
    daemon.ringway("net delete dmz")?;
    daemon.start_again()?;
    ensure!(chain(&house.host, "DOCKER-USER")? == marked);

    // Switched off, and switched on again, and deleted.
    daemon.kill();
    drop(daemon);
    let mut daemon = Daemon::configured(&lab, &house.host, LEAVE)?;
    ensure!(!house.host.sh("nft list ruleset")?.contains("ringway rw-"));
    daemon.await_message("what Docker drops", |line| {
        line.contains("another firewall drops")
    })?;
    drop(daemon);
    let daemon = Daemon::configured(&lab, &house.host, OPEN)?;
    ensure!(chain(&house.host, "DOCKER-USER")? == marked);
    daemon.ringway("net delete lan --force")?;
    let after = house.host.sh("nft -s list ruleset")?;
    ensure!(after == before, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

#[test]
fn what_stands_in_our_way_is_not_ours_to_change() -> Result<()> {
    let Some(lab) = Lab::with("foreign-whole", &NEEDS)? else {
        return Ok(());
    };
    let house = House::new()?;
    // Without a chain of the owner's the base chain itself gets the rules; another table is opened, too.
    let mine = "table inet mine {\n\tchain crossing {\n\t\ttype filter hook forward priority 10; policy drop;\n\t\tip daddr 192.0.2.1 accept\n\t}\n}";
    load(&lab, &house.host, mine)?;
    let before = house.host.sh("nft -s list table inet mine")?;
    let daemon = Daemon::configured(&lab, &house.host, OPEN)?;
    daemon.ringway("net create lan")?;
    let opened = house.host.sh("nft -s list table inet mine")?;
    let without: String = opened
        .lines()
        .filter(|line| !line.contains("comment \"ringway rw-lan\""))
        .map(|line| format!("{line}\n"))
        .collect();
    ensure!(opened != before && without == before, "{opened}");
    // Its owner lets everything pass: ours are not needed, and do not stay.
    house
        .host
        .sh("nft 'chain inet mine crossing { policy accept; }'")?;
    run(
        &house.host,
        "until ! nft list table inet mine | grep -q ringway; do sleep 0.05; done",
    )?;
    daemon.ringway("net delete lan").context("delete")?;
    Ok(())
}
