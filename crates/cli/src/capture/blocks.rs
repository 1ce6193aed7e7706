//! A stream of pcapng cut into whole blocks, so that what is written ends with one whenever it ends.

use anyhow::{Result, ensure};

const INTERFACE_STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
/// Frames that the capture missed so far, in a block of statistics.
const OPTION_IFDROP: u16 = 5;

/// Far beyond a block with the longest frame.
const LONGEST: usize = 1 << 20;

/// What came of a stream so far.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// A block of which more has to come.
    rest: Vec<u8>,
    /// Frames so far.
    pub(crate) packets: u64,
    /// Frames that found no room on their way here.
    pub(crate) missed: u64,
}

impl Blocks {
    /// The blocks that are whole with `bytes`, up to the one with the last frame that is wanted.
    pub(crate) fn take(&mut self, bytes: &[u8], count: Option<u64>) -> Result<Vec<u8>> {
        self.rest.extend_from_slice(bytes);
        let mut end = 0;
        while count.is_none_or(|count| self.packets < count) {
            let block = &self.rest[end..];
            let Some((kind, len)) = word(block, 0).zip(word(block, 4)) else {
                break;
            };
            let len = usize::try_from(len)?;
            ensure!(
                (12..=LONGEST).contains(&len) && len % 4 == 0,
                "the stream is no capture: a block of {len} bytes"
            );
            let Some(block) = block.get(..len) else {
                break;
            };
            match kind {
                ENHANCED_PACKET => self.packets += 1,
                INTERFACE_STATISTICS => {
                    let options = block.get(20..len - 4);
                    self.missed = options.and_then(missed).unwrap_or(self.missed);
                }
                _ => {}
            }
            end += len;
        }
        let rest = self.rest.split_off(end);
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}

fn missed(mut options: &[u8]) -> Option<u64> {
    while let Some((head, rest)) = options.split_first_chunk::<4>() {
        let [code, len] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_le_bytes);
        let len = usize::from(len);
        if code == OPTION_IFDROP {
            return Some(u64::from_le_bytes(*rest.get(..len)?.first_chunk()?));
        }
        options = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u32, body: &[u8]) -> Vec<u8> {
        let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
        [&kind.to_le_bytes(), &len, body, &len].concat()
    }

    /// A packet, statistics with an option before the one that is looked for, two packets.
    fn stream() -> Vec<Vec<u8>> {
        let mut statistics = vec![0; 12];
        statistics.extend([4, 0, 8, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        statistics.extend([5, 0, 8, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let packet = |n| block(ENHANCED_PACKET, &[n; 24]);
        vec![
            packet(1),
            block(INTERFACE_STATISTICS, &statistics),
            packet(2),
            packet(3),
        ]
    }

    #[test]
    fn only_whole_blocks_come_out_wherever_the_stream_is_cut() {
        let stream = stream().concat();
        for cut in 0..=stream.len() {
            let mut blocks = Blocks::default();
            let mut written = blocks.take(&stream[..cut], None).unwrap();
            let mut check = Blocks::default();
            check.take(&written, None).unwrap();
            assert!(check.rest.is_empty(), "cut at {cut}");
            written.extend(blocks.take(&stream[cut..], None).unwrap());
            assert_eq!(written, stream);
            assert_eq!((blocks.packets, blocks.missed), (3, 7));
        }
    }

    #[test]
    fn nothing_comes_after_the_last_frame_that_is_wanted() {
        let parts = stream();
        let mut blocks = Blocks::default();
        let written = blocks.take(&parts.concat(), Some(2)).unwrap();
        assert_eq!(written, parts[..3].concat());
        assert_eq!(blocks.packets, 2);
    }

    #[test]
    fn statistics_that_are_too_short_say_nothing() {
        let mut blocks = Blocks::default();
        for len in 0..16 {
            let short = block(INTERFACE_STATISTICS, &vec![0; len * 4]);
            assert_eq!(blocks.take(&short, None).unwrap(), short);
        }
        assert_eq!(blocks.missed, 0);
    }

    #[test]
    fn what_is_no_capture_is_refused() {
        for foreign in [
            [0; 12].as_slice(),
            b"SSH-2.0-OpenSSH",
            &[6, 0, 0, 0, 13, 0, 0, 0],
        ] {
            assert!(
                Blocks::default().take(foreign, None).is_err(),
                "{foreign:?}"
            );
        }
    }
}
