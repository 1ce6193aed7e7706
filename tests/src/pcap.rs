//! Capture files in the classic format, as DPDK's pcap driver reads and writes them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};

const MAGIC: u32 = 0xa1b2_c3d4;
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;

/// Writes frames to a capture file, all at time 0.
pub fn write(path: &Path, frames: &[Vec<u8>]) -> Result<()> {
    let mut bytes = Vec::new();
    for word in [MAGIC, 0x0004_0002, 0, 0, 65_535, ETHERNET] {
        bytes.extend(word.to_ne_bytes());
    }
    for frame in frames {
        let length = u32::try_from(frame.len())?;
        for word in [0, 0, length, length] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(frame);
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads the frames of a capture file.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    Ok(read_timed(path)?
        .into_iter()
        .map(|(_, frame)| frame)
        .collect())
}

/// Reads the frames of a capture file, each with its time of day.
pub fn read_timed(path: &Path) -> Result<Vec<(Duration, Vec<u8>)>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let word = |at: usize| -> Result<u32> {
        let word = bytes
            .get(at..at + 4)
            .context("capture file ends in a header")?;
        Ok(u32::from_ne_bytes(word.try_into()?))
    };
    let fraction = match word(0)? {
        MAGIC => Duration::from_micros(1),
        MAGIC_NANOSECONDS => Duration::from_nanos(1),
        _ => bail!("{} is no classic capture file", path.display()),
    };
    let mut frames = Vec::new();
    let mut at = 24;
    while at < bytes.len() {
        let time = Duration::from_secs(word(at)?.into()) + fraction * word(at + 4)?;
        let length = usize::try_from(word(at + 8)?)?;
        at += 16;
        let frame = bytes
            .get(at..at + length)
            .context("capture file ends in a frame")?;
        frames.push((time, frame.to_vec()));
        at += length;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let path = std::env::temp_dir().join(format!("ringway-pcap-{}", std::process::id()));
        let frames = vec![vec![1; 60], vec![], vec![2; 1514]];
        write(&path, &frames).unwrap();
        assert_eq!(read(&path).unwrap(), frames);
        let mut bytes = fs::read(&path).unwrap();
        bytes[24] = 5;
        bytes[28] = 7;
        fs::write(&path, &bytes).unwrap();
        let times = || read_timed(&path).unwrap()[0].0;
        assert_eq!(times(), Duration::new(5, 7000));
        bytes[..4].copy_from_slice(&MAGIC_NANOSECONDS.to_ne_bytes());
        fs::write(&path, &bytes).unwrap();
        assert_eq!(times(), Duration::new(5, 7));
        fs::write(&path, [0; 24]).unwrap();
        assert!(read(&path).is_err());
        fs::remove_file(&path).unwrap();
    }
}
