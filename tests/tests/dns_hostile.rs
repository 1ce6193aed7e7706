//! Bytes that are no proper queries, from a guest's own sockets: nothing breaks, counters tell, and a good query is answered after.

use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{
    Lab, Need,
    names::{GATEWAY, Places, dig, set_resolvers},
};

const NEEDS: &[Need] = &[
    Need::Root,
    Need::Namespaces,
    Need::Program("nft"),
    Need::Program("dig"),
];
const PORT: u16 = 53;
/// Connections that one client may have.
const CONNECTIONS: usize = 8;
const SOON: Duration = Duration::from_secs(5);

fn tap(name: &str) -> Result<Vec<OwnedFd>> {
    ringway_host::tap::create_persistent(name, false, None)?;
    Ok(ringway_host::tap::open(name, 1)?.queues)
}

/// A query for the address of `web`, changed.
fn query(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend(b"\x03web\x03lan\x07ringway\0\0\x01\0\x01");
    change(&mut bytes);
    bytes
}

/// What is sent, and the code of what comes back, if anything does.
fn bad() -> Vec<(&'static str, Vec<u8>, Option<u8>)> {
    let name = |wire: Vec<u8>| {
        query(move |bytes| {
            bytes.truncate(12);
            bytes.extend(wire);
            bytes.extend([0, 1, 0, 1]);
        })
    };
    vec![
        ("nothing", Vec::new(), None),
        ("half a header", query(|bytes| bytes.truncate(7)), None),
        ("a header alone", query(|bytes| bytes.truncate(12)), Some(1)),
        ("half a name", query(|bytes| bytes.truncate(18)), Some(1)),
        (
            "half a type",
            query(|bytes| bytes.truncate(bytes.len() - 3)),
            Some(1),
        ),
        ("a pointer to itself", name(vec![0xc0, 12]), Some(1)),
        (
            "pointers in a circle",
            name(vec![1, b'a', 0xc0, 16, 0xc0, 12]),
            Some(1),
        ),
        (
            "a label of 64",
            name([&[64][..], &[b'a'; 64], &[0]].concat()),
            Some(1),
        ),
        (
            "a label of another kind",
            name(vec![0x80, 1, 2, 0]),
            Some(1),
        ),
        (
            "a name of 320",
            name([&[&[63][..], &[b'a'; 63]].concat().repeat(5)[..], &[0]].concat()),
            Some(1),
        ),
        ("a response", query(|bytes| bytes[2] |= 0x80), None),
        ("operation 15", query(|bytes| bytes[2] |= 0x78), Some(4)),
        (
            "65535 of everything",
            query(|bytes| bytes[4..12].fill(0xff)),
            Some(1),
        ),
        ("no question", query(|bytes| bytes[5] = 0), Some(1)),
        (
            "two questions",
            query(|bytes| {
                bytes[5] = 2;
                let question = bytes[12..].to_vec();
                bytes.extend(question);
            }),
            Some(1),
        ),
        (
            "an answer in it",
            query(|bytes| {
                bytes[7] = 1;
                bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4]);
            }),
            Some(1),
        ),
        (
            "two OPT records",
            query(|bytes| {
                bytes[11] = 2;
                bytes.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0].repeat(2));
            }),
            Some(1),
        ),
        (
            "an OPT record longer than it is",
            query(|bytes| {
                bytes[11] = 1;
                bytes.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0xff, 0xff]);
            }),
            Some(1),
        ),
        ("4096 zeros", vec![0; 4096], Some(1)),
    ]
}

#[test]
fn bad_bytes_are_refused_or_ignored_and_counted() -> Result<()> {
    let Some(lab) = Lab::with("dns-hostile", NEEDS)? else {
        return Ok(());
    };
    let places = Places::new()?;
    set_resolvers(&lab, &[])?;
    let daemon = places.daemon(&lab, "", tap)?;
    let good = || -> Result<()> {
        for how in ["", "+tcp "] {
            let answer = dig(&places.guest, &format!("{how}web.lan.ringway"))?;
            ensure!(answer.contains("IN A 10.66.0.9"), "{answer}");
        }
        Ok(())
    };
    good()?;
    let counted = |name: &str| -> Result<u64> {
        let stats = daemon.json("stats")?;
        Ok(stats["services"]["lan"][name].as_u64().unwrap_or(0))
    };

    places.guest.run(|| {
        let socket = UdpSocket::bind("10.66.0.50:0")?;
        socket.connect((GATEWAY, PORT))?;
        let mut buffer = [0; 4096];
        for (what, bytes, code) in bad() {
            socket.send(&bytes)?;
            // Answers come in the order of queries, so that of a good one after it says that there was none before.
            socket.set_read_timeout(Some(SOON))?;
            socket.send(&query(|bytes| bytes[0] = 0))?;
            if let Some(code) = code {
                let len = socket.recv(&mut buffer).context(what)?;
                ensure!(len >= 12 && buffer[2] & 0x80 != 0, "{what}: no response");
                ensure!(buffer[..2] == bytes[..2], "{what}: another number");
                ensure!(buffer[3] & 15 == code, "{what}: code {}", buffer[3] & 15);
            }
            socket.recv(&mut buffer).context(what)?;
            ensure!(
                buffer[..2] == [0, 0xcd] && buffer[3] & 15 == 0,
                "{what}: and then"
            );
        }
        Ok(())
    })?;
    let malformed = bad().iter().filter(|(_, _, code)| code.is_some()).count();
    ensure!(counted("dns_malformed")? == malformed as u64);
    ensure!(counted("dns_ignored")? == (bad().len() - malformed) as u64);
    good()?;

    places.guest.run(|| {
        let connect = || -> Result<TcpStream> {
            let stream = TcpStream::connect((GATEWAY, PORT))?;
            stream.set_read_timeout(Some(Duration::from_secs(20)))?;
            Ok(stream)
        };
        let closed = |stream: &mut TcpStream| !matches!(stream.read(&mut [0; 64]), Ok(1..));
        for (what, bytes, code) in bad() {
            let mut stream = connect()?;
            stream.write_all(&u16::try_from(bytes.len())?.to_be_bytes())?;
            stream.write_all(&bytes)?;
            let mut answer = [0; 14];
            match code {
                Some(code) => {
                    stream.read_exact(&mut answer).context(what)?;
                    ensure!(answer[5] & 15 == code, "{what}: {answer:?}");
                }
                None => ensure!(closed(&mut stream), "{what}: goes on"),
            }
        }
        // Who says more than comes is let go in time, and so is who says nothing and who says a byte now and then.
        let begin = Instant::now();
        let mut waiting = [connect()?, connect()?, connect()?];
        waiting[0].write_all(&[0xff, 0xff, 1, 2, 3])?;
        waiting[2].write_all(&[0, 200])?;
        while begin.elapsed() < Duration::from_secs(9) {
            waiting[2].write_all(&[0])?;
            std::thread::sleep(Duration::from_millis(500));
        }
        for stream in &mut waiting {
            ensure!(closed(stream), "answered");
        }
        ensure!(
            begin.elapsed() < Duration::from_secs(15),
            "{:?}",
            begin.elapsed()
        );

        // One client has no more than its share, and the newest are closed.
        let mut all = (0..3 * CONNECTIONS)
            .map(|_| connect())
            .collect::<Result<Vec<_>>>()?;
        for stream in &mut all[CONNECTIONS..] {
            ensure!(closed(stream), "one too many");
        }
        let len = u16::try_from(query(|_| {}).len())?.to_be_bytes();
        all[0].write_all(&[&len[..], &query(|_| {})].concat())?;
        let mut answer = [0; 14];
        all[0].read_exact(&mut answer)?;
        ensure!(answer[5] & 15 == 0, "{answer:?}");
        Ok(())
    })?;
    ensure!(counted("dns_connections_refused")? == 2 * CONNECTIONS as u64);
    good()
}
