//! Captures as files: pcapng, one interface per port, so that a reader sees which port a frame came
//! from (draft-ietf-opsawg-pcapng, sections 4.1 to 4.3). tcpdump and Wireshark read it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::UNIX_EPOCH;

use rustix::event::{PollFd, PollFlags, poll};

use crate::burst::narrow;
use crate::capture::{Reader, Record, SourceNames};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;
const OPTION_IF_NAME: u16 = 2;
const OPTION_IF_TSRESOL: u16 = 9;
/// Timestamps in nanoseconds: 10^-9.
const NANOSECONDS: u8 = 9;

/// Writes records as pcapng.
pub struct Writer<W> {
    out: W,
    names: SourceNames,
    /// Source number to interface number, in the order of first sight.
    interfaces: HashMap<u32, u32>,
}

impl<W: Write> Writer<W> {
    /// Starts a file. `names` tells what the interfaces are called.
    pub fn new(mut out: W, names: SourceNames) -> io::Result<Self> {
        let mut body = BYTE_ORDER_MAGIC.to_le_bytes().to_vec();
        body.extend([1, 0, 0, 0]); // version 1.0
        body.extend((-1i64).to_le_bytes()); // section length: not given
        block(&mut out, SECTION_HEADER, &body)?;
        Ok(Self {
            out,
            names,
            interfaces: HashMap::new(),
        })
    }

    /// Writes one frame; the port it came from is described before its first frame.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let interface = self.interface(record.source)?;
        let nanos = record
            .time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        let [low, high] = [nanos & 0xffff_ffff, nanos >> 32].map(|half| half.to_le_bytes());
        let len = narrow(record.frame.len()).to_le_bytes();
        let mut body = Vec::with_capacity(20 + record.frame.len() + 4);
        body.extend(interface.to_le_bytes());
        body.extend(&high[..4]);
        body.extend(&low[..4]);
        body.extend(len);
        body.extend(len);
        body.extend(&record.frame);
        pad(&mut body);
        block(&mut self.out, ENHANCED_PACKET, &body)
    }

    /// Hands what was written to the system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn interface(&mut self, source: u32) -> io::Result<u32> {
        if let Some(&number) = self.interfaces.get(&source) {
            return Ok(number);
        }
        let name = {
            let names = self
                .names
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            names
                .get(&source)
                .cloned()
                .unwrap_or_else(|| format!("port-{source}"))
        };
        let mut body = LINKTYPE_ETHERNET.to_le_bytes().to_vec();
        body.extend([0, 0, 0, 0, 0, 0]); // reserved; no limit on frame length
        option(&mut body, OPTION_IF_NAME, name.as_bytes());
        option(&mut body, OPTION_IF_TSRESOL, &[NANOSECONDS]);
        body.extend([0; 4]); // end of options
        block(&mut self.out, INTERFACE_DESCRIPTION, &body)?;
        let number = narrow(self.interfaces.len());
        self.interfaces.insert(source, number);
        Ok(number)
    }
}

/// Writes records to `writer` until the capture ends; the file is complete whenever nothing is
/// under way.
pub fn drain<W: Write>(mut reader: Reader, writer: &mut Writer<W>) -> io::Result<()> {
    while !reader.has_ended() {
        poll(&mut [PollFd::new(&reader.bell(), PollFlags::IN)], None)?;
        reader.silence();
        while let Some(record) = reader.take() {
            writer.write(&record)?;
        }
        writer.flush()?;
    }
    Ok(())
}

fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = narrow(body.len() + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&len)?;
    out.write_all(body)?;
    out.write_all(&len)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests;
