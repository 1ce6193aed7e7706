//! A pair of datagram sockets behaves as the two ends of a tap do: one frame for each call.

use ringway_wire::vnet_hdr::{
    F_DATA_VALID, F_NEEDS_CSUM, F_RSC_INFO, GSO_TCPV4, GSO_UDP_L4, VnetHeader,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::{Heads, MAX_BURST};

/// A tap of one queue, and the kernel's end of it.
fn tap() -> (Tap, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
    (Tap::new(vec![ours], Arc::new(Counters::new(1))), theirs)
}

fn give(kernel: &OwnedFd, header: VnetHeader, frame: &[u8]) {
    let bytes = [&header.to_bytes()[..], frame].concat();
    assert_eq!(rustix::io::write(kernel, &bytes), Ok(bytes.len()));
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| u8::try_from(i * 31 % 251).unwrap())
        .collect()
}

#[test]
fn frames_are_read_whole_and_in_order_until_there_are_no_more() {
    let (tap, kernel) = tap();
    let lengths = [14, 60, 127, 128, 129, 1514, 65_535, MAX_FRAME];
    let mut heads = Heads::new();
    for len in lengths {
        give(&kernel, VnetHeader::default(), &pattern(len));
        let mut burst = Burst::new(&mut heads);
        assert_eq!(tap.receive(0, MAX_BURST, &mut burst), Ok(1));
        let mut bytes = vec![0; len];
        assert_eq!(burst.copy_frame(0, &mut bytes), len);
        assert!(bytes == pattern(len), "{len}");
        assert_eq!(burst.head_bytes(0).len(), len.min(HEAD_FRAME));
    }
    for n in 0..5u8 {
        give(&kernel, VnetHeader::default(), &[n; 60]);
    }
    for (limit, expected) in [(3, &[0, 1, 2][..]), (64, &[3, 4]), (64, &[])] {
        let mut burst = Burst::new(&mut heads);
        assert_eq!(tap.receive(0, limit, &mut burst), Ok(expected.len()));
        let first = (0..expected.len()).map(|i| burst.head_bytes(i)[0]);
        assert!(first.eq(expected.iter().copied()));
    }
    let received = &tap.counters.queues[0].received;
    let bytes = lengths.iter().sum::<usize>() as u64 + 5 * 60;
    assert_eq!((received.frames(), received.bytes()), (13, bytes));
}

#[test]
fn what_is_no_frame_is_refused_and_the_next_one_read() {
    let (tap, kernel) = tap();
    rustix::io::write(&kernel, &[0; 11]).unwrap();
    give(&kernel, VnetHeader::default(), &[1; 13]);
    give(&kernel, VnetHeader::default(), &pattern(MAX_FRAME + 1));
    give(&kernel, VnetHeader::default(), &pattern(MAX_FRAME + 1000));
    give(&kernel, VnetHeader::default(), &[2; 14]);
    let mut heads = Heads::new();
    let mut burst = Burst::new(&mut heads);
    assert_eq!(tap.receive(0, MAX_BURST, &mut burst), Ok(5));
    assert_eq!((burst.refused, burst.frames.len()), (4, 1));
    assert_eq!(burst.head_bytes(0), [2; 14]);
    let drops: Vec<_> = tap.counters.drops().collect();
    assert_eq!(drops, [(DropReason::TooShort, 2), (DropReason::TooLong, 2)]);
}

#[test]
fn headers_keep_what_has_meaning_to_a_guest() {
    let (tap, kernel) = tap();
    let mut frame = pattern(3000);
    frame[34 + 12] = 0x80; // a TCP header of 8 words
    let large = VnetHeader {
        flags: F_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: 66,
        gso_size: 1448,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    let one = VnetHeader {
        num_buffers: 1,
        ..VnetHeader::default()
    };
    let cases = [
        // The kernel says how much of the frame lies in one piece, which need not be its headers.
        (
            VnetHeader {
                hdr_len: 2000,
                ..large
            },
            VnetHeader {
                num_buffers: 1,
                ..large
            },
        ),
        (
            VnetHeader {
                gso_type: GSO_UDP_L4,
                ..large
            },
            VnetHeader {
                gso_type: GSO_UDP_L4,
                hdr_len: 42,
                num_buffers: 1,
                ..large
            },
        ),
        (
            VnetHeader {
                flags: F_DATA_VALID | F_RSC_INFO,
                csum_start: 9,
                ..one
            },
            VnetHeader {
                flags: F_DATA_VALID,
                ..one
            },
        ),
        (
            VnetHeader {
                hdr_len: 54,
                num_buffers: 9,
                ..one
            },
            one,
        ),
    ];
    let mut heads = Heads::new();
    for (given, expected) in cases {
        give(&kernel, given, &frame);
        let mut burst = Burst::new(&mut heads);
        assert_eq!(tap.receive(0, MAX_BURST, &mut burst), Ok(1));
        assert_eq!(VnetHeader::from_bytes(burst.heads[0].vnet()), expected);
        let asks = expected.flags != 0 || expected.is_gso();
        assert_eq!(burst.offloaded, u64::from(asks));
    }
}

#[test]
fn picked_frames_are_written_with_their_headers_until_the_queue_is_full() {
    let (tap, kernel) = tap();
    let mut heads = Heads::new();
    let frames: Vec<_> = [14, 100, 2000, 65_000].map(pattern).into();
    let mut burst = Burst::new(&mut heads);
    let header = VnetHeader {
        flags: F_NEEDS_CSUM,
        csum_start: 14,
        csum_offset: 6,
        num_buffers: 1,
        ..VnetHeader::default()
    };
    for frame in &frames {
        assert!(burst.push_private(&header.to_bytes(), frame));
    }
    let sent = tap.send(0, &burst, 0b1101);
    assert_eq!((sent.delivered, sent.copied), (0b1101, 0));
    let mut buffer = vec![0; 70_000];
    for i in [0, 2, 3] {
        let len = rustix::io::read(&kernel, &mut buffer).unwrap();
        assert_eq!(len, 12 + frames[i].len());
        assert_eq!(buffer[..12], header.to_bytes());
        assert!(buffer[12..len] == frames[i]);
    }
    let mut count = 0;
    let full = loop {
        let sent = tap.send(0, &burst, 0b1001);
        count += sent.delivered.count_ones();
        if sent.delivered != 0b1001 {
            break sent;
        }
    };
    assert_eq!(
        (full.reason, full.fault),
        (Some(DropReason::QueueFull), None)
    );
    let read = std::iter::from_fn(|| rustix::io::read(&kernel, &mut buffer).ok());
    assert_eq!(read.count(), count as usize, "whole or not at all");
    let counters = &tap.counters.queues[0].sent;
    assert_eq!(counters.frames(), 3 + u64::from(count));
}

#[test]
fn a_queue_that_fails_is_read_no_more() {
    let (_, writing) = rustix::pipe::pipe().unwrap();
    let tap = Tap::new(vec![writing], Arc::new(Counters::new(1)));
    let mut heads = Heads::new();
    let mut burst = Burst::new(&mut heads);
    let fault = tap.receive(0, MAX_BURST, &mut burst).unwrap_err();
    assert!(matches!(fault, Fault::Io { queue: 0, .. }), "{fault}");
    assert_eq!(tap.receive(0, MAX_BURST, &mut burst), Ok(0));
}

#[test]
fn the_kernels_refusals_have_reasons() {
    let reason = |errno| refusal(&io::Error::from_raw_os_error(errno));
    assert_eq!(reason(libc::EAGAIN), (DropReason::QueueFull, true));
    assert_eq!(reason(libc::EIO), (DropReason::LinkDown, true));
    assert_eq!(reason(libc::EINVAL), (DropReason::BadHeader, false));
    assert_eq!(reason(libc::EFAULT), (DropReason::Fault, false));
}
