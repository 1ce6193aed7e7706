//! A frame as `tcpdump -e -xx` prints it: a line that says what it is, then all bytes in hexadecimal, 16 a line.

use std::{
    fmt::Write as _,
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use super::summary::Summary;

/// Prints one frame; the time of day is UTC.
pub(crate) fn frame(out: &mut dyn Write, time: SystemTime, bytes: &[u8]) -> io::Result<()> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = (since.as_secs(), since.subsec_micros());
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let mut text = format!(
        "{hour:02}:{minute:02}:{second:02}.{micros:06} {}\n",
        Summary(bytes)
    );
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let _ = write!(text, "\t0x{:04x}: ", line * 16);
        for pair in chunk.chunks(2) {
            text.push(' ');
            for byte in pair {
                let _ = write!(text, "{byte:02x}");
            }
        }
        text.push('\n');
    }
    // In one piece, so that a reader of a pipe never sees half a frame.
    out.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn printed(time: Duration, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        frame(&mut out, UNIX_EPOCH + time, bytes).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_frame_is_a_line_and_its_bytes_in_pairs() {
        let mut bytes = vec![0xff; 6];
        bytes.extend([2, 0, 0, 0, 0, 1, 0x12, 0x34, 1, 2, 3]);
        assert_eq!(
            printed(
                Duration::new(86_400 + 3_600 * 13 + 60 * 2 + 5, 7_000),
                &bytes
            ),
            "13:02:05.000007 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, ethertype 0x1234, length 17\n\
             \t0x0000:  ffff ffff ffff 0200 0000 0001 1234 0102\n\
             \t0x0010:  03\n"
        );
    }

    #[test]
    fn a_frame_without_bytes_is_one_line() {
        assert_eq!(
            printed(Duration::ZERO, &[]),
            "00:00:00.000000 truncated, length 0\n"
        );
    }
}
