//! Frames and what is said about them, from whole blocks of pcapng as the switch writes them.

use std::collections::HashMap;

use anyhow::{Context, Result};

const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const OPTION_COMMENT: u16 = 1;
const OPTION_IF_NAME: u16 = 2;
const OPTION_EPB_FLAGS: u16 = 2;

/// A frame at a port.
pub(crate) struct Packet<'a> {
    /// Nanoseconds since 1970.
    pub(crate) time: u64,
    pub(crate) port: &'a str,
    /// Into the switch.
    pub(crate) inbound: bool,
    pub(crate) bytes: &'a [u8],
    /// What became of it, in the switch's words.
    pub(super) comment: &'a str,
}

/// What was learned from blocks so far.
#[derive(Default)]
pub(super) struct Packets {
    /// Names of interfaces, in their order.
    names: HashMap<u32, String>,
}

impl Packets {
    /// Shows each packet of `blocks` to `each`.
    pub(super) fn read(
        &mut self,
        mut blocks: &[u8],
        mut each: impl FnMut(Packet<'_>) -> Result<()>,
    ) -> Result<()> {
        while !blocks.is_empty() {
            let kind = word(blocks, 0)?;
            let len = word(blocks, 4)? as usize;
            let body = blocks.get(8..len.saturating_sub(4)).context(CUT)?;
            match kind {
                INTERFACE_DESCRIPTION => {
                    let options = body.get(8..).context(CUT)?;
                    let name = option(options, OPTION_IF_NAME).unwrap_or_default();
                    let number = u32::try_from(self.names.len())?;
                    let name = String::from_utf8_lossy(name).into_owned();
                    self.names.insert(number, name);
                }
                ENHANCED_PACKET => each(self.packet(body)?)?,
                _ => {}
            }
            blocks = &blocks[len..];
        }
        Ok(())
    }

    fn packet<'a>(&'a self, body: &'a [u8]) -> Result<Packet<'a>> {
        let (high, low) = (word(body, 4)?, word(body, 8)?);
        let len = word(body, 12)? as usize;
        let bytes = body.get(20..20 + len).context(CUT)?;
        let options = body.get(20 + len.next_multiple_of(4)..).unwrap_or_default();
        let comment = option(options, OPTION_COMMENT).unwrap_or_default();
        let flags = option(options, OPTION_EPB_FLAGS).unwrap_or_default();
        let name = self.names.get(&word(body, 0)?);
        Ok(Packet {
            time: u64::from(high) << 32 | u64::from(low),
            port: name.map_or("?", String::as_str),
            inbound: flags.first().is_some_and(|flags| flags & 3 == 1),
            bytes,
            comment: std::str::from_utf8(comment)?,
        })
    }
}

const CUT: &str = "the stream is no capture: a block ends too soon";

/// The value of the option of this kind.
fn option(mut options: &[u8], kind: u16) -> Option<&[u8]> {
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let [code, len] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_le_bytes);
        let len = usize::from(len);
        if code == kind {
            return rest.get(..len);
        }
        options = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let bytes = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    Ok(u32::from_le_bytes(*bytes.context(CUT)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes(), &len, body, &len].concat()
    }

    #[test]
    fn a_packet_has_the_name_of_its_port_its_direction_and_its_comment() {
        let interface = block(1, b"\x01\0\0\0\0\0\0\0\x02\0\x03\0web\0\0\0\0\0");
        let mut body = [
            [0; 4],
            [1, 0, 0, 0],
            [2, 0, 0, 0],
            [5, 0, 0, 0],
            [5, 0, 0, 0],
        ]
        .concat();
        body.extend(b"frame\0\0\0\x02\0\x04\0\x01\0\0\0\x01\0\x05\0to db\0\0\0\0\0\0\0");
        let blocks = [interface, block(6, &body), block(5, &[0; 12])].concat();
        let (mut packets, mut seen) = (Packets::default(), 0);
        packets
            .read(&blocks, |packet| {
                seen += 1;
                let Packet { time, inbound, .. } = packet;
                assert_eq!((time, inbound), ((1 << 32) + 2, true));
                let words = (packet.port, packet.bytes, packet.comment);
                assert_eq!(words, ("web", &b"frame"[..], "to db"));
                Ok(())
            })
            .unwrap();
        assert_eq!(seen, 1);
        // Wherever it is cut, nothing panics.
        for cut in 1..body.len() {
            let _ = Packets::default().read(&block(6, &body[..cut]), |_| Ok(()));
        }
    }
}
