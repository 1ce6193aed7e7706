//! Features, status, resets and the rest that concerns the whole device.

use super::*;

#[test]
fn acked_features_are_a_subset_of_the_offer() {
    for extra in [VIRTIO_NET_F_STATUS, VIRTIO_F_IN_ORDER, VHOST_F_LOG_ALL, 63] {
        let features = ACKED | mask(&[extra]);
        let error = Pair::refused(Pair::fresh, Request::SetFeatures, &number(features), &[]);
        assert!(matches!(error, SessionError::Features { extra: got } if got == mask(&[extra])));
    }
    let error = SessionError::Features {
        extra: mask(&[VIRTIO_NET_F_STATUS, 63]),
    };
    assert_eq!(error.to_string(), "SET_FEATURES: not offered: STATUS 63");
}

#[test]
fn acked_protocol_features_are_a_subset_of_the_offer() {
    let features = mask(&[VHOST_USER_PROTOCOL_F_CONFIG]);
    let mut pair = Pair::fresh();
    let error = pair
        .tell(Request::SetProtocolFeatures, &number(features), &[])
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "SET_PROTOCOL_FEATURES: not offered: CONFIG"
    );
    let mut pair = Pair::negotiated();
    assert_eq!(
        pair.ask(Request::SetProtocolFeatures, &number(features), &[])
            .1,
        1
    );
    assert_eq!(pair.session.state().protocol_features, PROTOCOL_FEATURES);
}

#[test]
fn set_protocol_features_that_brings_reply_ack_is_acknowledged() {
    let mut pair = Pair::fresh();
    let features = number(mask(&[VHOST_USER_PROTOCOL_F_REPLY_ACK]));
    assert_eq!(pair.ask(Request::SetProtocolFeatures, &features, &[]).1, 0);
}

#[test]
fn features_without_their_dependencies_are_accepted() {
    let mut pair = Pair::fresh();
    let features = mask(&[VIRTIO_NET_F_MQ, VIRTIO_F_VERSION_1]) | BIT_30;
    assert_eq!(
        pair.ok(Request::SetFeatures, &number(features), &[]),
        Event::Features
    );
    assert_eq!(pair.session.state().features, features);
    assert!(pair.session.state().acked_features);
}

#[test]
fn no_features_at_all_are_features() {
    let mut pair = Pair::fresh();
    assert_eq!(
        pair.ok(Request::SetFeatures, &number(0), &[]),
        Event::Features
    );
    assert_eq!(
        pair.ok(Request::SetFeatures, &number(0), &[]),
        Event::Answered
    );
}

#[test]
fn identical_features_are_accepted_while_rings_run() {
    let mut pair = Pair::started();
    assert_eq!(
        pair.ok(Request::SetFeatures, &number(ACKED), &[]),
        Event::Answered
    );
    let other = ACKED | mask(&[VIRTIO_NET_F_CSUM]);
    let error = Pair::refused(Pair::started, Request::SetFeatures, &number(other), &[]);
    assert_eq!(
        error.to_string(),
        "SET_FEATURES: cannot be changed while rings are started: CSUM"
    );
}

#[test]
fn status_is_zero_on_a_new_connection() {
    assert_eq!(Pair::fresh().ask(Request::GetStatus, &[], &[]).1, 0);
}

#[test]
fn status_is_kept_and_has_eight_bits() {
    let mut pair = Pair::negotiated();
    assert_eq!(
        pair.ok(Request::SetStatus, &number(0xf), &[]),
        Event::Status(0xf)
    );
    assert_eq!(pair.ask(Request::GetStatus, &[], &[]).1, 0xf);
    for status in [0x100, u64::MAX] {
        let error = Pair::refused(Pair::negotiated, Request::SetStatus, &number(status), &[]);
        assert_eq!(
            error.to_string(),
            format!("SET_STATUS: {status:#x} has more than eight bits")
        );
    }
}

#[test]
fn status_zero_stops_the_rings_and_keeps_their_indices() {
    let mut pair = Pair::started();
    pair.ok(Request::SetVringEnable, &ring(0, 1), &[]);
    pair.send(Request::SetStatus, &number(0), &[], false);
    assert_eq!(pair.session.receive().unwrap(), Some(Event::ResetRings));
    pair.session.state_mut().vrings[0].base = 77;
    pair.session.finish(Ok(())).unwrap();
    let state = pair.session.state();
    assert!(!state.vrings[0].is_ready());
    assert!(state.vrings[0].enabled);
    assert_eq!(state.features, ACKED);
    pair.tell(Request::GetVringBase, &ring(0, 0), &[]).unwrap();
    assert_eq!(pair.answer().unwrap().payload, ring(0, 77));
}

#[test]
fn reset_owner_stops_and_disables_the_rings() {
    let mut pair = Pair::started();
    pair.ok(Request::SetVringEnable, &ring(0, 1), &[]);
    assert_eq!(pair.ok(Request::ResetOwner, &[], &[]), Event::ResetRings);
    let state = pair.session.state();
    assert!(!state.vrings[0].is_ready());
    assert!(!state.vrings[0].enabled);
    assert_eq!(state.features, ACKED, "it is no end of the session");
}

#[test]
fn reset_device_forgets_features_and_status_and_keeps_what_is_not_sent_again() {
    let mut pair = Pair::started();
    pair.ok(Request::SetVringEnable, &ring(0, 1), &[]);
    pair.ok(Request::SetVringErr, &number(0), &[event().as_fd()]);
    pair.ok(Request::SetStatus, &number(0xf), &[]);
    pair.session.state_mut().memory = Some(GuestMemory::heap(&[(0, 4096)]).into());
    assert_eq!(pair.ok(Request::ResetDevice, &[], &[]), Event::ResetRings);
    let state = pair.session.state();
    assert!(!state.vrings[0].is_ready());
    assert!(!state.vrings[0].enabled);
    assert!(state.vrings[0].err.is_some());
    assert!(state.memory.is_some());
    assert_eq!(
        (state.features, state.acked_features, state.status),
        (0, false, 0)
    );
    assert_eq!(state.protocol_features, PROTOCOL_FEATURES);
}

#[test]
fn mtu_is_between_68_and_65535() {
    for mtu in [0, 67, 65536, u64::MAX] {
        let error = Pair::refused(Pair::negotiated, Request::NetSetMtu, &number(mtu), &[]);
        assert_eq!(
            error.to_string(),
            format!("NET_SET_MTU: {mtu} is not between 68 and 65535")
        );
    }
    let mut pair = Pair::negotiated();
    for mtu in [68, 9000, u16::MAX] {
        assert_eq!(
            pair.ok(Request::NetSetMtu, &number(mtu.into()), &[]),
            Event::Mtu
        );
        assert_eq!(pair.session.state().mtu, Some(mtu));
    }
}

#[test]
fn rarp_carries_the_mac_address() {
    let mut pair = Pair::negotiated();
    let payload = [0x52, 0x54, 0, 1, 2, 3, 0, 0];
    assert_eq!(
        pair.ok(Request::SendRarp, &payload, &[]),
        Event::Rarp([0x52, 0x54, 0, 1, 2, 3])
    );
}

#[test]
fn requests_of_protocol_features_that_are_not_offered_are_refused() {
    fn bare() -> Pair {
        Pair::offering(Offer {
            features: FEATURES,
            protocol_features: mask(&[VHOST_USER_PROTOCOL_F_REPLY_ACK]),
            queue_pairs: 1,
            max_memory_slots: 8,
        })
    }
    let region = SingleRegion::new(Region {
        guest_address: 0,
        size: 4096,
        user_address: 0,
        mmap_offset: 0,
    });
    let (region, file, socket) = (region.bytes(), event(), sockets().0);
    let messages: [(Request, &[u8], &[BorrowedFd<'_>]); 7] = [
        (Request::SendRarp, &[0; 8], &[]),
        (Request::NetSetMtu, &number(1500), &[]),
        (Request::SetBackendReqFd, &[], &[socket.as_fd()]),
        (Request::ResetDevice, &[], &[]),
        (Request::AddMemReg, &region, &[file.as_fd()]),
        (Request::RemMemReg, &region, &[]),
        (Request::SetStatus, &number(1), &[]),
    ];
    for (request, payload, files) in messages {
        let error = Pair::refused(bare, request, payload, files);
        assert!(matches!(error, SessionError::NotOffered { .. }), "{error}");
    }
}
