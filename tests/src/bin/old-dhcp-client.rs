//! A DHCP client that sums what it reads from a packet socket, as dhclient did before kernels told such sockets of half checksums:
//! `old-dhcp-client MAC`. It asks until it has five answers, by the route to 255.255.255.255, and prints the address that it was given,
//! or with exit code 1 how many of them it took for damaged.

#![forbid(unsafe_code)]

use std::{
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::fd::OwnedFd,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringway_wire::{
    ipv4::{Packet, protocol},
    udp::Datagram,
};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

const ANSWERS: u32 = 5;
/// A bridge may lose what comes first.
const ATTEMPTS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(3);
/// What two machines that ask at once are told apart by.
const TRANSACTION: [u8; 4] = *b"ring";
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
const REQUEST: u8 = 3;
const ACK: u8 = 5;

fn main() -> Result<ExitCode> {
    let mac = std::env::args().nth(1).context("no MAC")?;
    let mac = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(mac.len() == 6, "no MAC: {mac:?}");
    let raw = socket_with(
        AddressFamily::PACKET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(eth::IP),
    )?;
    set_socket_timeout(&raw, Timeout::Recv, Some(PATIENCE))?;
    let udp = UdpSocket::bind("0.0.0.0:68")?;
    udp.set_broadcast(true)?;
    let ask = |kind, more: &[u8]| udp.send_to(&message(&mac, kind, more), "255.255.255.255:67");

    let (mut packets, mut bad) = (0, 0);
    for _ in 0..ATTEMPTS {
        if packets == ANSWERS {
            break;
        }
        ask(DISCOVER, &[])?;
        let Some(offer) = answer(&raw, OFFER)? else {
            continue;
        };
        packets += 1;
        if !offer.whole {
            bad += 1;
            continue;
        }
        let (address, server) = (offer.address.octets(), offer.server.octets());
        let more = [&[50, 4][..], &address, &[54, 4], &server].concat();
        ask(REQUEST, &more)?;
        if answer(&raw, ACK)?.is_some_and(|ack| ack.whole) {
            println!("bound to {}", offer.address);
            return Ok(ExitCode::SUCCESS);
        }
    }
    println!("dhclient: {bad} bad udp checksums in {packets} packets");
    Ok(ExitCode::FAILURE)
}

/// A message (RFC 2131, section 2) whose answer shall be a broadcast.
fn message(mac: &[u8], kind: u8, more: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 236];
    message[..4].copy_from_slice(&[1, 1, 6, 0]);
    message[4..8].copy_from_slice(&TRANSACTION);
    message[10] = 0x80;
    message[28..34].copy_from_slice(mac);
    message.extend(COOKIE);
    message.extend([53, 1, kind]);
    message.extend(more);
    message.push(255);
    message
}

/// What a server said.
struct Answer {
    whole: bool,
    address: Ipv4Addr,
    server: Ipv4Addr,
}

/// The next answer of this kind; `None` if none comes.
fn answer(raw: &OwnedFd, kind: u8) -> Result<Option<Answer>> {
    let end = Instant::now() + PATIENCE;
    let mut bytes = [0; 2048];
    while Instant::now() < end {
        let (len, _) = match recv(raw, &mut bytes, RecvFlags::empty()) {
            Ok(received) => received,
            Err(rustix::io::Errno::AGAIN) => break,
            Err(error) => return Err(error.into()),
        };
        if let Some(answer) = parse(&bytes[..len], kind) {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

fn parse(bytes: &[u8], kind: u8) -> Option<Answer> {
    let packet = Packet::new_checked(bytes).ok()?;
    let datagram = Datagram::new_checked(packet.payload()).ok()?;
    let message = datagram.payload();
    let wanted = packet.protocol() == protocol::UDP
        && datagram.destination_port() == 68
        && message.get(4..8)? == TRANSACTION
        && message.get(236..240)? == COOKIE
        // The kind is the first option of all servers.
        && message.get(240..243)? == [53, 1, kind];
    let (source, destination) = (packet.source(), packet.destination());
    let address: [u8; 4] = message.get(16..20)?.try_into().ok()?;
    wanted.then(|| Answer {
        whole: datagram.checksum_ok(IpAddr::V4(source), IpAddr::V4(destination)),
        address: address.into(),
        server: source,
    })
}
