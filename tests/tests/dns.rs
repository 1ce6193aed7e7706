//! Names of a network and of elsewhere, as `dig` asks for them from a guest, with dnsmasq as the resolver outside.

use std::{
    collections::HashSet,
    fs,
    net::UdpSocket,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use ringway_tests::{
    Endpoint, Lab, Need,
    names::{Dnsmasq, GATEWAY, OUTSIDE, Places, ask, dig, set_resolvers, ttl},
};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Namespaces,
    Need::Program("nft"),
    Need::Program("curl"),
    Need::Program("dig"),
    Need::Program("dnsmasq"),
];

/// Records besides the names of hosts.
const RECORDS: &str = "
records = [
  { name = 'www', data = { cname = 'web' } },
  { name = 'text', data = { txt = 'hello' } },
  { name = 'text', data = { aaaa = 'fd00::5' } },
  { name = 'a.deep', data = { a = '10.66.0.8' } },
  { name = 'corp.example.', data = { a = '192.0.2.7' } },
  { name = 'big', data = { txt = 'BIG0' } },
  { name = 'big', data = { txt = 'BIG1' } },
  { name = 'big', data = { txt = 'BIG2' } },
]
";
/// dnsmasq as the authority of example.org.
const EXAMPLE: &str = "--auth-zone=example.org --auth-server=ns.example.org,203.0.113.2 --auth-ttl=300 \
     --host-record=one.example.org,192.0.2.1 --host-record=two.example.org,192.0.2.2";

/// One line of the matrix: what is asked, what is said, and what is not.
type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str]);

const MATRIX: &[Case<'_>] = &[
    (
        "web.lan.ringway A",
        &[
            "status: NOERROR",
            "flags: qr aa rd ra",
            "web.lan.ringway. 10 IN A 10.66.0.9",
            "EDNS: version: 0, flags:; udp: 1232",
        ],
        &["SOA"],
    ),
    ("web A", &["web. 10 IN A 10.66.0.9"], &[]),
    ("gateway.lan.ringway A", &["IN A 10.66.0.1"], &[]),
    (
        "web.lan.ringway AAAA",
        &[
            "status: NOERROR",
            "ANSWER: 0, AUTHORITY: 1",
            "\nlan.ringway. 10 IN SOA gateway.lan.ringway. hostmaster.lan.ringway.",
        ],
        &[],
    ),
    (
        "web.lan.ringway MX",
        &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"],
        &[],
    ),
    (
        "web.lan.ringway TYPE65",
        &["status: NOERROR", "ANSWER: 0, AUTHORITY: 1"],
        &[],
    ),
    (
        "-x 10.66.0.9",
        &["9.0.66.10.in-addr.arpa. 10 IN PTR web.lan.ringway."],
        &[],
    ),
    ("-x 10.66.0.1", &["IN PTR gateway.lan.ringway."], &[]),
    (
        "-x 10.66.0.77",
        &["status: NXDOMAIN", "\n0.66.10.in-addr.arpa. 10 IN SOA"],
        &[],
    ),
    (
        "9.0.66.10.in-addr.arpa A",
        &["status: NOERROR", "ANSWER: 0"],
        &[],
    ),
    (
        "www.lan.ringway A",
        &[
            "ANSWER: 2",
            "www.lan.ringway. 10 IN CNAME web.lan.ringway.",
            "web.lan.ringway. 10 IN A 10.66.0.9",
        ],
        &[],
    ),
    (
        "www.lan.ringway CNAME",
        &["ANSWER: 1", "IN CNAME web.lan.ringway."],
        &[],
    ),
    (
        "text.lan.ringway TXT",
        &["ANSWER: 1", "IN TXT \"hello\""],
        &[],
    ),
    (
        "text.lan.ringway ANY",
        &["ANSWER: 2", "IN TXT \"hello\"", "IN AAAA fd00::5"],
        &[],
    ),
    (
        "corp.example A",
        &["flags: qr aa", "corp.example. 10 IN A 192.0.2.7"],
        &[],
    ),
    (
        "nobody.lan.ringway A",
        &["status: NXDOMAIN", "\nlan.ringway. 10 IN SOA"],
        &[],
    ),
    ("x.web.lan.ringway A", &["status: NXDOMAIN"], &[]),
    ("deep.lan.ringway A", &["status: NOERROR", "ANSWER: 0"], &[]),
    (
        "web.other.ringway A",
        &["status: NXDOMAIN", "\nringway. 10 IN SOA"],
        &[],
    ),
    ("ringway A", &["status: NOERROR", "ANSWER: 0"], &[]),
    (
        "lan.ringway SOA",
        &["ANSWER: 1", "IN SOA gateway.lan.ringway."],
        &[],
    ),
    (
        "lan.ringway NS",
        &["ANSWER: 1", "IN NS gateway.lan.ringway."],
        &[],
    ),
    ("lan.ringway A", &["status: NOERROR", "ANSWER: 0"], &[]),
    (
        "WeB.lAn.RiNgWaY A",
        &[
            ";WeB.lAn.RiNgWaY. IN A",
            "\nWeB.lAn.RiNgWaY. 10 IN A 10.66.0.9",
        ],
        &[],
    ),
    ("+tcp web.lan.ringway A", &["IN A 10.66.0.9", "(TCP)"], &[]),
    ("+noedns web.lan.ringway A", &["IN A 10.66.0.9"], &["EDNS"]),
    (
        "+dnssec web.lan.ringway A",
        &["IN A 10.66.0.9", "flags: do;"],
        &[],
    ),
    (
        "+edns=1 +noednsneg web.lan.ringway A",
        &["status: BADVERS", "EDNS: version: 0"],
        &[],
    ),
    (
        "+norecurse web.lan.ringway A",
        &["flags: qr aa ra;", "IN A 10.66.0.9"],
        &[],
    ),
    ("+norecurse one.example.org A", &["status: REFUSED"], &[]),
    ("version.bind CH TXT", &["status: REFUSED"], &[]),
    ("+tcp lan.ringway AXFR", &["Transfer failed"], &[]),
    (
        "+opcode=2 web.lan.ringway A",
        &["opcode: STATUS, status: NOTIMP"],
        &[],
    ),
    // 12 texts of 200 bytes each.
    (
        "+noedns +ignore big.lan.ringway TXT",
        &["flags: qr aa tc", "ANSWER: 0"],
        &["EDNS"],
    ),
    (
        "+bufsize=512 +ignore big.lan.ringway TXT",
        &["flags: qr aa tc", "ANSWER: 0", "EDNS"],
        &[],
    ),
    (
        "+bufsize=4096 big.lan.ringway TXT",
        &["ANSWER: 3", "(UDP)"],
        &["tc", "TCP"],
    ),
    (
        "+bufsize=512 big.lan.ringway TXT",
        &["Truncated, retrying in TCP mode", "ANSWER: 3", "(TCP)"],
        &[],
    ),
];

fn tap(name: &str) -> Result<Vec<OwnedFd>> {
    ringway_host::tap::create_persistent(name, false, None)?;
    Ok(ringway_host::tap::open(name, 1)?.queues)
}

fn judge((asked, there, absent): &Case<'_>, answer: &str) -> Result<()> {
    for part in *there {
        ensure!(answer.contains(part), "{asked}: no {part:?} in\n{answer}");
    }
    for part in *absent {
        ensure!(!answer.contains(part), "{asked}: {part:?} in\n{answer}");
    }
    Ok(())
}

#[test]
fn every_kind_of_question_has_its_answer() -> Result<()> {
    let Some(lab) = Lab::with("dns-matrix", NEEDS)? else {
        return Ok(());
    };
    let places = Places::new()?;
    let mut records = RECORDS.to_owned();
    for n in 0..3 {
        records = records.replace(&format!("BIG{n}"), &format!("{n:0200}"));
    }
    let daemon = places.daemon(&lab, &records, tap)?;
    for case in MATRIX {
        judge(case, &dig(&places.guest, case.0)?)?;
    }
    // The host is answered like a guest, another network's guests are not.
    judge(&MATRIX[0], &dig(&places.host, MATRIX[0].0)?)?;
    // A hosts file says the same, beside what others put there.
    let file = lab.path("hosts");
    let ours = "10.66.0.9\tweb.lan.ringway web.lan\n";
    ensure!(daemon.ringway("lease hosts")? == ours);
    fs::write(&file, "127.0.0.1 localhost\n")?;
    for line in ["lease hosts", "lease hosts lan"] {
        daemon.ringway(&format!("{line} --write {}", file.display()))?;
        let text = fs::read_to_string(&file)?;
        ensure!(
            text.starts_with("127.0.0.1 localhost\n") && text.matches(ours).count() == 1,
            "{text}"
        );
    }
    Ok(())
}

#[test]
fn other_names_come_from_the_hosts_resolvers_and_are_kept() -> Result<()> {
    let Some(lab) = Lab::with("dns-forward", NEEDS)? else {
        return Ok(());
    };
    let places = Places::new()?;
    let long: String = (0..9)
        .map(|n| format!(" --txt-record=long.example.org,{n:0200}"))
        .collect();
    let first = Dnsmasq::start(&lab, &places.outside, OUTSIDE, &format!("{EXAMPLE}{long}"))?;
    let second = "203.0.113.3";
    let other = "--host-record=one.example.org,192.0.2.99";
    let _second = Dnsmasq::start(&lab, &places.outside, second, other)?;
    set_resolvers(&lab, &[OUTSIDE])?;
    let _daemon = places.daemon(&lab, "", tap)?;
    let guest = &places.guest;

    let kept = |asked: &str, there: &[&str]| judge(&(asked, there, &[]), &dig(guest, asked)?);
    for _ in 0..3 {
        kept("one.example.org", &["flags: qr rd ra;", "IN A 192.0.2.1"])?;
        kept(
            "+tcp ONE.example.org",
            &["\nONE.example.org.", "IN A 192.0.2.1"],
        )?;
        kept("no.example.org", &["status: NXDOMAIN", "IN SOA"])?;
        kept("one.example.org MX", &["status: NOERROR", "IN SOA"])?;
    }
    let asked = first.asked("one.example.org")?;
    ensure!(asked == 2, "an address and MX, {asked}");
    ensure!(first.asked("no.example.org")? == 1);
    let end = Instant::now() + Duration::from_secs(10);
    while ttl(&dig(guest, "one.example.org")?)? >= 300 {
        ensure!(Instant::now() < end, "time stands still");
    }

    // Over TCP from there, and over TCP or cut to here.
    kept("long.example.org TXT", &["Truncated", "ANSWER: 9", "(TCP)"])?;
    kept(
        "+ignore long.example.org TXT",
        &["flags: qr tc", "ANSWER: 0"],
    )?;
    ensure!(
        first.asked("long.example.org")? == 2,
        "UDP, then TCP, then kept"
    );

    // Others are asked as soon as the file names them, also for what is kept.
    set_resolvers(&lab, &[second])?;
    let end = Instant::now() + Duration::from_secs(10);
    while !dig(guest, "one.example.org")?.contains("192.0.2.99") {
        ensure!(Instant::now() < end, "the old resolver is still believed");
    }
    Ok(())
}

#[test]
fn a_resolver_that_is_silent_lies_or_fails_is_passed_over() -> Result<()> {
    let Some(lab) = Lab::with("dns-upstream", NEEDS)? else {
        return Ok(());
    };
    let places = Places::new()?;
    let (silent, closed, liar) = ("203.0.113.4", "203.0.113.5", "203.0.113.6");
    let _good = Dnsmasq::start(&lab, &places.outside, OUTSIDE, EXAMPLE)?;
    // dnsmasq that knows no resolver refuses.
    let _refuses = Dnsmasq::start(&lab, &places.outside, "203.0.113.7", "")?;
    let _mute = places
        .outside
        .run(move || Ok(UdpSocket::bind((silent, 53))?))?;
    let lies = places
        .outside
        .run(move || Ok(UdpSocket::bind((liar, 53))?))?;
    lies.set_read_timeout(Some(Duration::from_secs(30)))?;
    let seen = thread::spawn(move || lie(&lies, 20));

    set_resolvers(&lab, &[liar])?;
    let daemon = places.daemon(&lab, "", tap)?;
    let timed = |asked: &str, part: &str, limit: u64| -> Result<()> {
        let begin = Instant::now();
        judge(&(asked, &[part], &[]), &dig(&places.guest, asked)?)?;
        ensure!(
            begin.elapsed() < Duration::from_millis(limit),
            "{asked}: {:?}",
            begin.elapsed()
        );
        Ok(())
    };
    for n in 0..20 {
        timed(&format!("n{n}.example.org"), "IN A 192.0.2.80", 1500)?;
    }
    let seen = seen
        .join()
        .map_err(|_| anyhow::anyhow!("the liar panicked"))??;
    let (ids, ports): (HashSet<_>, HashSet<_>) = seen.into_iter().unzip();
    ensure!(
        ids.len() > 15 && ports.len() > 15,
        "foreseeable: {ids:?} {ports:?}"
    );

    // Silence costs its time once: the next question goes to who answered.
    set_resolvers(&lab, &[silent, OUTSIDE])?;
    thread::sleep(Duration::from_millis(1100));
    timed("one.example.org", "IN A 192.0.2.1", 4000)?;
    timed("two.example.org", "IN A 192.0.2.2", 1000)?;
    for (servers, limit) in [
        (&[closed][..], 1000),
        (&[silent], 6000),
        (&["203.0.113.7", closed], 1000),
    ] {
        set_resolvers(&lab, servers)?;
        thread::sleep(Duration::from_millis(1100));
        let part = if servers.len() == 2 {
            "status: REFUSED"
        } else {
            "status: SERVFAIL"
        };
        timed("one.example.org", part, limit)?;
        timed("web.lan.ringway", "IN A 10.66.0.9", 1000)?;
    }
    let counters = daemon.json("stats")?["services"]["lan"].clone();
    ensure!(
        counters["dns_unanswered"] == 2 && counters["dns_upstream_failed"].as_u64() > Some(4),
        "{counters}"
    );
    Ok(())
}

/// Answers `count` queries with the truth, after lies that carry other numbers or questions; who asked under which number and port.
fn lie(socket: &UdpSocket, count: usize) -> Result<Vec<(u16, u16)>> {
    let mut seen = Vec::new();
    let mut buffer = [0; 1500];
    while seen.len() < count {
        let (len, peer) = socket.recv_from(&mut buffer)?;
        let query = &buffer[..len];
        let answer = |id: u8, question: u8, last: u8| {
            let mut bytes = query.to_vec();
            bytes[1] ^= id;
            bytes[2] |= 0x80;
            bytes[13] ^= question;
            (bytes[7], bytes[11]) = (1, 0);
            let name = query[12..].iter().position(|byte| *byte == 0).unwrap_or(0);
            bytes.truncate(12 + name + 5);
            bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, last]);
            bytes
        };
        let foreign = UdpSocket::bind("203.0.113.8:0");
        socket.send_to(&answer(1, 0, 66), peer)?;
        socket.send_to(&answer(0, 1, 66), peer)?;
        socket.send_to(&query[..9], peer)?;
        socket.send_to(query, peer)?;
        if let Ok(foreign) = foreign {
            foreign.send_to(&answer(0, 0, 66), peer)?;
        }
        socket.send_to(&answer(0, 0, 80), peer)?;
        seen.push((u16::from_be_bytes([query[0], query[1]]), peer.port()));
    }
    Ok(seen)
}

#[test]
fn no_question_goes_round_in_a_circle() -> Result<()> {
    let Some(lab) = Lab::with("dns-circles", NEEDS)? else {
        return Ok(());
    };
    let places = Places::new()?;
    let _outside = Dnsmasq::start(&lab, &places.outside, OUTSIDE, EXAMPLE)?;
    set_resolvers(&lab, &[GATEWAY])?;
    let daemon = places.daemon(&lab, "", tap)?;
    let refused: Case<'_> = ("one.example.org", &["status: REFUSED"], &[]);
    judge(&refused, &dig(&places.guest, refused.0)?)?;

    // A stub at the host that asks us everything it does not know: it hears our names, and that we know nothing else.
    let stub = "127.0.0.53";
    let asks_us = Dnsmasq::start(&lab, &places.host, stub, &format!("--server={GATEWAY}"))?;
    set_resolvers(&lab, &[stub])?;
    thread::sleep(Duration::from_millis(1100));
    judge(
        &("two.example.org", refused.1, &[]),
        &dig(&places.guest, "two.example.org")?,
    )?;
    ensure!(asks_us.asked("two.example.org")? <= 2, "round and round");
    judge(
        &MATRIX[0],
        &ask(&places.host, stub, "web.lan.ringway")?.replace("qr rd ra", "qr aa rd ra"),
    )?;
    drop(asks_us);

    // Two networks that ask each other.
    let file = lab.path("two.toml");
    fs::write(
        &file,
        "[[network]]\nname = 'lan'\nsubnet = '10.66.0.0/24'\n[network.dns]\nupstream = ['10.67.0.1']\n\
         [[network]]\nname = 'two'\nsubnet = '10.67.0.0/24'\n[network.dns]\nupstream = ['10.66.0.1']\n",
    )?;
    daemon.ringway(&format!("net apply {}", file.display()))?;
    judge(&refused, &dig(&places.guest, refused.0)?)?;
    // One network's guests are no clients of the other.
    ensure!(
        ask(&places.guest, "10.67.0.1", "+timeout=1 gateway.two.ringway").is_err(),
        "answered"
    );
    Ok(())
}

#[test]
fn who_looks_for_a_cloud_is_told_at_once_that_there_is_none() -> Result<()> {
    let Some(lab) = Lab::with("dns-cloud", NEEDS)? else {
        return Ok(());
    };
    let places = Places::new()?;
    set_resolvers(&lab, &[])?;
    let _daemon = places.daemon(&lab, "", tap)?;
    for path in [
        "latest/meta-data/instance-id",
        "openstack/latest/meta_data.json",
    ] {
        let begin = Instant::now();
        let line = format!("curl -sS -m 20 http://169.254.169.254/{path} 2>&1");
        let error = places.guest.start(&line)?.success(Duration::from_secs(60));
        let error = error
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        ensure!(error.contains("onnect"), "{error}");
        ensure!(
            begin.elapsed() < Duration::from_secs(1),
            "{:?}",
            begin.elapsed()
        );
    }
    Ok(())
}
