//! A frame that was traced: what it is, and what the switch decided about it.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::{clean, summary::Summary};
use crate::trace::{Decision, Frame, Outcome, Packet};

/// One line.
pub(crate) fn traced(
    out: &mut Vec<u8>,
    packet: &Packet<'_>,
    _: &Frame,
    outcome: &Outcome,
) -> Result<()> {
    let (seconds, nanos) = (packet.time / 1_000_000_000, packet.time % 1_000_000_000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = nanos / 1000;
    let way = if packet.inbound { "in " } else { "out" };
    write!(
        out,
        "{hour:02}:{minute:02}:{second:02}.{micros:06} {} {way} {}  ",
        packet.port,
        Summary(packet.bytes)
    )?;
    match &outcome.decision {
        Decision::Forwarded { to } => write!(out, "-> {to}")?,
        Decision::Flooded { to, of, .. } => {
            let s = if *of == 1 { "" } else { "s" };
            match to == of {
                true => write!(out, "-> flooded to {to} port{s}")?,
                false => write!(out, "-> flooded to {to} of {of} port{s}")?,
            }
        }
        Decision::Dropped { to: None, reason } => write!(out, "-> dropped: {reason}")?,
        Decision::Dropped {
            to: Some(to),
            reason,
        } => write!(out, "-> {to}, dropped: {reason}")?,
        Decision::Received { from } => write!(out, "<- {from}")?,
        Decision::Missed { from, reason } => write!(out, "<- {from}, dropped: {reason}")?,
        Decision::Other { words } => write!(out, "-> {}", clean(words))?,
    }
    if let Some(service) = outcome.service {
        write!(out, ", service {service}")?;
    }
    match &outcome.why {
        Some(why) => writeln!(out, " ({why})")?,
        None => writeln!(out)?,
    }
    Ok(())
}

#[derive(Serialize)]
struct Line<'a> {
    /// Nanoseconds since 1970.
    time_ns: u64,
    port: &'a str,
    direction: &'static str,
    source: String,
    destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<u16>,
    /// The innermost that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    addresses: Option<[String; 2]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<[u16; 2]>,
    length: usize,
    summary: String,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// One line of JSON.
pub(crate) fn traced_json(
    out: &mut Vec<u8>,
    packet: &Packet<'_>,
    frame: &Frame,
    outcome: &Outcome,
) -> Result<()> {
    let line = Line {
        time_ns: packet.time,
        port: packet.port,
        direction: if packet.inbound { "in" } else { "out" },
        source: frame.source.to_string(),
        destination: frame.destination.to_string(),
        vlan: frame.vlan,
        protocol: frame.transport.or(frame.network),
        addresses: frame
            .addresses
            .map(|(from, to)| [from.to_string(), to.to_string()]),
        ports: frame.ports.map(|(from, to)| [from, to]),
        length: frame.len,
        summary: Summary(packet.bytes).to_string(),
        outcome,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.push(b'\n');
    Ok(())
}
