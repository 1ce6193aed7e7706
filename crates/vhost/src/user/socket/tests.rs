use super::*;
use crate::user::message::Request;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

fn pair() -> (Socket, Socket) {
    let (a, b) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::empty(),
        None,
    )
    .unwrap();
    (Socket::new(a).unwrap(), Socket::new(b).unwrap())
}

#[test]
fn a_message_crosses_with_its_descriptors() {
    let (ours, mut theirs) = pair();
    let header = Header::request(Request::SetMemTable.id(), 3, false);
    let bytes = [&header.bytes()[..], b"abc"].concat();
    let files = [ours.as_fd(); MAX_DESCRIPTORS];
    assert_eq!(ours.send_some(&bytes, &files).unwrap(), Some(15));
    assert_eq!(theirs.header().unwrap(), Some(header));
    let message = theirs.message(header).unwrap().unwrap();
    assert_eq!(message.header, header);
    assert_eq!(message.payload, b"abc");
    assert_eq!(message.descriptors.len(), MAX_DESCRIPTORS);
    assert!(!theirs.has_partial());
    assert!(theirs.header().unwrap().is_none());
}

#[test]
fn a_header_is_given_again_until_its_message_is_complete() {
    let (ours, mut theirs) = pair();
    let header = Header::request(Request::SetFeatures.id(), 8, false);
    ours.send_some(&header.bytes(), &[]).unwrap();
    for _ in 0..2 {
        assert_eq!(theirs.header().unwrap(), Some(header));
        assert!(theirs.message(header).unwrap().is_none());
    }
    assert!(theirs.has_partial());
    ours.send_some(&[7; 9], &[]).unwrap();
    assert_eq!(theirs.message(header).unwrap().unwrap().payload, [7; 8]);
    assert!(theirs.header().unwrap().is_none());
    assert!(
        theirs.has_partial(),
        "the ninth byte belongs to the next message"
    );
}

#[test]
fn the_end_of_the_stream_is_told_apart_from_a_cut() {
    let (ours, mut theirs) = pair();
    drop(ours);
    assert!(matches!(theirs.header(), Err(SocketError::Closed)));
    assert!(matches!(
        theirs.send(&Header::reply(RequestId(1), 0), &[], None),
        Err(SocketError::Closed)
    ));

    let (ours, mut theirs) = pair();
    let header = Header::request(Request::SetFeatures.id(), 8, false);
    ours.send_some(&header.bytes(), &[]).unwrap();
    drop(ours);
    assert_eq!(theirs.header().unwrap(), Some(header));
    let error = theirs.message(header).unwrap_err();
    assert!(matches!(
        error,
        SocketError::Truncated {
            received: 12,
            expected: 20
        }
    ));
}

#[test]
fn as_much_waits_as_may_wait_and_no_byte_more() {
    let (mut ours, _theirs) = pair();
    let header = |len| Header::reply(RequestId(1), u32::try_from(len).unwrap());
    while !ours.wants_write() {
        ours.send(&header(0), &[], None).unwrap();
    }
    let payload = vec![0; MAX_QUEUED - HEADER_SIZE - ours.queued.len()];
    ours.send(&header(payload.len()), &payload, None).unwrap();
    assert_eq!(ours.queued.len(), MAX_QUEUED);
    assert!(matches!(
        ours.send(&header(0), &[], None),
        Err(SocketError::QueueFull { bytes }) if bytes == MAX_QUEUED + HEADER_SIZE
    ));
}
