use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::capture::Capture;
use crate::{Burst, Counters, Heads, Port};

#[test]
fn a_port_is_described_once_before_its_first_frame() {
    let names = SourceNames::default();
    names.lock().unwrap().insert(4, "web".into());
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, names).unwrap();
    let time = UNIX_EPOCH + Duration::from_nanos(0x1_0000_0002);
    for frame in [vec![1; 61], vec![2; 60]] {
        writer
            .write(&Record {
                time,
                source: 4,
                frame,
                note: Note::default(),
            })
            .unwrap();
    }
    let kinds = blocks(&file);
    assert_eq!(
        kinds.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(),
        [
            SECTION_HEADER,
            INTERFACE_DESCRIPTION,
            ENHANCED_PACKET,
            ENHANCED_PACKET
        ]
    );
    assert_eq!(&kinds[1].1[8..15], [2, 0, 3, 0, b'w', b'e', b'b']);
    let packet = &kinds[2].1;
    assert_eq!(packet[4..12], [1, 0, 0, 0, 2, 0, 0, 0]); // high half first
    assert_eq!(packet[12..20], [61, 0, 0, 0, 61, 0, 0, 0]);
    assert_eq!(packet[20..], [&[1; 61][..], &[0; 3]].concat());
}

fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((head, _)) = file.split_first_chunk::<8>() {
        let kind = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        assert_eq!(len % 4, 0);
        assert_eq!(file[len - 4..len], head[4..8]);
        found.push((kind, file[8..len - 4].to_vec()));
        file = &file[len..];
    }
    found
}

/// What tcpdump says about a file, one line for each packet; `None` where it is not installed.
fn tcpdump(file: &[u8]) -> Option<Vec<String>> {
    let child = Command::new("tcpdump")
        .args(["-tt", "--nano", "-nn", "-e", "-q", "-r", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else {
        // Past the test harness's capture, so that it is seen and can be counted.
        let _ = writeln!(
            io::stderr(),
            "SKIPPED: pcapng test: tcpdump is not installed"
        );
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let file = file.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&file));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    // Below a packet's line may stand its bytes, indented.
    let packets = text
        .lines()
        .filter(|line| !line.starts_with(char::is_whitespace));
    Some(packets.map(str::to_owned).collect())
}

/// A frame that tcpdump has no name for.
fn frame(number: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![number; len];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

#[test]
fn tcpdump_reads_every_packet_its_length_and_its_time() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, SourceNames::default()).unwrap();
    let lengths = [14, 15, 16, 17, 60, 1514, 9014, 65_549, 65_557];
    for (number, len) in (0u8..).zip(lengths) {
        let time = UNIX_EPOCH + Duration::new(1_700_000_000 + u64::from(number), 123_456_789);
        let source = u32::from(number % 3);
        let frame = frame(number, len);
        writer
            .write(&Record {
                time,
                source,
                frame,
                note: Note::default(),
            })
            .unwrap();
    }
    let Some(lines) = tcpdump(&file) else { return };
    assert_eq!(lines.len(), lengths.len(), "{lines:#?}");
    for ((number, len), line) in (0..).zip(lengths).zip(&lines) {
        let time = format!("{}.123456789 ", 1_700_000_000 + number);
        assert!(line.starts_with(&time), "{line}");
        assert!(line.contains(&format!("length {len}:")), "{line}");
    }
}

#[test]
fn what_a_capture_recorded_is_in_the_file_when_it_ends() {
    let (capture, reader) = Capture::new(Arc::new(Counters::new(1))).unwrap();
    let names = SourceNames::default();
    names.lock().unwrap().insert(7, "web".into());
    let thread = std::thread::spawn(move || {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, names).unwrap();
        drain(reader, &mut writer).unwrap();
        file
    });
    let mut heads = Heads::new();
    for round in 0..50u8 {
        let frames: Vec<_> = (0..20).map(|n| frame(round, 60 + n)).collect();
        let mut burst = Burst::new(&mut heads);
        burst.source = 7;
        for frame in &frames {
            assert!(burst.push_private(&[0; 12], frame));
        }
        assert_eq!(capture.send(0, &burst, burst.all()).delivered, burst.all());
    }
    drop(capture);
    let file = thread.join().unwrap();
    let packets = blocks(&file)
        .into_iter()
        .filter(|(kind, _)| *kind == ENHANCED_PACKET);
    assert_eq!(packets.count(), 1000);
    if let Some(lines) = tcpdump(&file) {
        assert_eq!(lines.len(), 1000);
    }
}

#[test]
fn a_packet_says_whither_it_went_and_what_became_of_it() {
    use Direction::{Inbound, Outbound};
    let names = SourceNames::default();
    names.lock().unwrap().insert(4, "lan/web".into());
    names.lock().unwrap().insert(5, "lan/db".into());
    let note = |direction, peer, [delivered, dropped]: [u16; 2]| Note {
        direction: Some(direction),
        peer,
        flooded: delivered + dropped > 1,
        delivered,
        dropped,
        reason: (dropped > 0).then_some(DropReason::NoBuffers),
    };
    let told = [
        (note(Inbound, 5, [1, 0]), "to lan/db"),
        (note(Inbound, 0, [0, 1]), "dropped: no_buffers"),
        (note(Inbound, 5, [0, 1]), "to lan/db, dropped: no_buffers"),
        (note(Inbound, 0, [3, 0]), "flooded to 3 ports"),
        (
            note(Inbound, 5, [0, 2]),
            "flooded to 0 of 2 ports, dropped: no_buffers",
        ),
        (
            note(Inbound, 0, [2, 1]),
            "flooded to 2 of 3 ports, dropped: no_buffers",
        ),
        (note(Outbound, 5, [1, 0]), "from lan/db"),
        (
            note(Outbound, 9, [0, 1]),
            "from port-9, dropped: no_buffers",
        ),
    ];
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, names).unwrap();
    for (note, _) in &told {
        let record = Record {
            time: UNIX_EPOCH,
            source: 4,
            frame: frame(1, 61),
            note: *note,
        };
        writer.write(&record).unwrap();
    }
    writer.statistics(4, 9, 3).unwrap();
    let blocks = blocks(&file);
    for ((note, comment), (_, body)) in told.iter().zip(&blocks[2..]) {
        let mut options = vec![2, 0, 4, 0, 1, 0, 0, 0];
        if note.direction == Some(Outbound) {
            options[4] = 2;
        }
        option(&mut options, OPTION_COMMENT, comment.as_bytes());
        options.extend([0; 4]);
        assert_eq!(body[20 + 64..], options, "{comment}");
    }
    let (kind, statistics) = blocks.last().unwrap();
    assert_eq!(*kind, INTERFACE_STATISTICS);
    assert_eq!(statistics[12..16], [4, 0, 8, 0]);
    assert_eq!((statistics[16], statistics[28]), (9, 3));
    if let Some(lines) = tcpdump(&file) {
        assert_eq!(lines.len(), told.len());
    }
}

#[test]
fn a_stream_that_always_has_more_to_write_tells_what_was_missed() {
    use std::os::fd::AsFd as _;

    let counters = Arc::new(Counters::new(1));
    let (capture, reader) = Capture::new(counters.clone()).unwrap();
    let mut heads = Heads::new();
    // More than the capture holds, before anything is read.
    let long = frame(1, 4000);
    while counters.dropped(DropReason::CaptureFull) == 0 {
        let mut burst = Burst::new(&mut heads);
        assert!(burst.push_private(&[0; 12], &long));
        if capture.send(0, &burst, 1).reason.is_some() {
            counters.drop_frames(DropReason::CaptureFull, 1);
        }
    }
    drop(capture);
    let (_reading, pipe) = io::pipe().unwrap();
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, SourceNames::default()).unwrap();
    stream(reader, &mut writer, 4, &counters, pipe.as_fd()).unwrap();
    let kinds: Vec<_> = blocks(&file).into_iter().map(|(kind, _)| kind).collect();
    let told = kinds.iter().position(|kind| *kind == INTERFACE_STATISTICS);
    assert!(told.unwrap() < kinds.len() - 1, "{} blocks", kinds.len());
}
