//! Setting rings up, starting and stopping them.

use std::sync::Arc;

use super::*;

#[test]
fn ring_index_is_checked_before_it_is_narrowed() {
    for request in [
        Request::SetVringNum,
        Request::SetVringBase,
        Request::SetVringEnable,
        Request::SetVringAddr,
    ] {
        for index in [4, 255, 256, 0x1_0000, 0x1_0001, u32::MAX] {
            let (state, address) = (ring(index, 1), addresses(index, 0));
            let payload: &[u8] = if request == Request::SetVringAddr {
                &address
            } else {
                &state
            };
            let error = Pair::refused(Pair::negotiated, request, payload, &[]);
            assert_eq!(
                error.to_string(),
                format!("{}: ring {index} of 4", request.name())
            );
        }
    }
    for index in [4, 255, 0x1_0000, u32::MAX] {
        let mut pair = Pair::negotiated();
        let error = pair
            .tell(Request::GetVringBase, &ring(index, 0), &[])
            .unwrap_err();
        assert!(matches!(error, SessionError::RingIndex { index: got, .. } if got == index));
    }
}

#[test]
fn ring_index_of_a_notification_is_checked() {
    let event = event();
    for request in [
        Request::SetVringKick,
        Request::SetVringCall,
        Request::SetVringErr,
    ] {
        for index in [4, 255] {
            let files = [event.as_fd()];
            let error = Pair::refused(Pair::negotiated, request, &number(index), &files);
            assert_eq!(
                error.to_string(),
                format!("{}: ring {index} of 4", request.name())
            );
            Pair::refused(Pair::negotiated, request, &number(index | 0x100), &[]);
        }
        for payload in [0x200, 0x1_0000_0000, u64::MAX] {
            let files = [event.as_fd()];
            let error = Pair::refused(Pair::negotiated, request, &number(payload), &files);
            assert!(matches!(error, SessionError::RingFile { payload: got, .. } if got == payload));
        }
    }
}

#[test]
fn size_of_a_split_ring_is_a_power_of_two_up_to_32768() {
    for size in [0, 3, 1000, 32769, 65535, 65536, 0x1_0100, u32::MAX] {
        let error = Pair::refused(Pair::negotiated, Request::SetVringNum, &ring(1, size), &[]);
        assert_eq!(
            error.to_string(),
            format!("SET_VRING_NUM: size {size} is not a power of two up to 32768")
        );
    }
    let mut pair = Pair::negotiated();
    for bit in 0..16 {
        assert_eq!(
            pair.ok(Request::SetVringNum, &ring(1, 1 << bit), &[]),
            Event::Ring(1)
        );
        assert_eq!(pair.session.state().vrings[1].size, 1 << bit);
    }
}

fn packed() -> Pair {
    let mut pair = Pair::fresh();
    let features = ACKED | mask(&[VIRTIO_F_RING_PACKED]);
    pair.ok(Request::SetFeatures, &number(features), &[]);
    pair
}

#[test]
fn size_of_a_packed_ring_is_any_up_to_32768() {
    for size in [0, 32769, 65536] {
        let error = Pair::refused(packed, Request::SetVringNum, &ring(0, size), &[]);
        assert_eq!(
            error.to_string(),
            format!("SET_VRING_NUM: size {size} is not between 1 and 32768")
        );
    }
    let mut pair = packed();
    for size in [1, 3, 1000, 32768] {
        pair.ok(Request::SetVringNum, &ring(0, size), &[]);
        assert_eq!(u32::from(pair.session.state().vrings[0].size), size);
    }
}

#[test]
fn base_of_a_split_ring_has_16_bits() {
    for base in [0x1_0000, 0x8000_8000] {
        let error = Pair::refused(Pair::negotiated, Request::SetVringBase, &ring(0, base), &[]);
        assert!(matches!(error, SessionError::SplitRingBase { base: got } if got == base));
    }
    let mut pair = Pair::negotiated();
    pair.ok(Request::SetVringBase, &ring(0, 0xffff), &[]);
    assert_eq!(pair.session.state().vrings[0].base, 0xffff);
    // QEMU packs two indices with their wraps; virtio-user sends the wrap of the first only.
    for base in [0x8000_8000, 0x8000] {
        let mut pair = packed();
        pair.ok(Request::SetVringBase, &ring(0, base), &[]);
        assert_eq!(pair.session.state().vrings[0].base, base);
    }
}

#[test]
fn logging_flag_and_unknown_flags_of_a_ring_are_refused() {
    for flags in [1, 2, 0x8000_0000] {
        let payload = addresses(0, flags);
        let error = Pair::refused(Pair::negotiated, Request::SetVringAddr, &payload, &[]);
        assert_eq!(
            error.to_string(),
            format!("SET_VRING_ADDR: flags {flags:#x}, only 0x0 can be set")
        );
    }
}

#[test]
fn a_ring_is_ready_with_size_addresses_and_kick_in_any_order() {
    let event = event();
    let address = addresses(2, 0);
    let size = ring(2, 256);
    let steps: [(Request, &[u8], &[BorrowedFd<'_>]); 3] = [
        (Request::SetVringNum, &size, &[]),
        (Request::SetVringAddr, &address, &[]),
        (Request::SetVringKick, &number(2), &[event.as_fd()]),
    ];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut pair = Pair::negotiated();
        for place in order {
            assert!(!pair.session.state().vrings[2].is_ready());
            let (request, payload, files) = steps[place];
            assert_eq!(pair.ok(request, payload, files), Event::Ring(2));
        }
        let vring = &pair.session.state().vrings[2];
        assert!(vring.is_ready());
        assert_eq!(
            vring.addresses,
            Some(RingAddresses {
                descriptors: 0x1000,
                available: 0x2000,
                used: 0x3000,
                log: 0,
                logged: false
            })
        );
    }
}

#[test]
fn a_ring_without_kick_descriptor_is_polled() {
    let mut pair = Pair::started();
    assert_eq!(
        pair.ok(Request::SetVringKick, &number(0x100), &[]),
        Event::Ring(0)
    );
    let vring = &pair.session.state().vrings[0];
    assert!(vring.kick.is_none());
    assert!(vring.is_ready());
}

#[test]
fn get_vring_base_stops_the_ring_until_the_next_kick() {
    let mut pair = Pair::started();
    pair.ok(Request::SetVringCall, &number(0), &[event().as_fd()]);
    pair.send(Request::GetVringBase, &ring(0, 0), &[], false);
    assert_eq!(pair.session.receive().unwrap(), Some(Event::StopRing(0)));
    assert!(!pair.session.state().vrings[0].is_ready());
    pair.session.state_mut().vrings[0].base = 4711;
    pair.session.finish(Ok(())).unwrap();
    let answer = pair.answer().unwrap();
    assert_eq!(answer.header, Header::reply(Request::GetVringBase.id(), 8));
    assert_eq!(answer.payload, ring(0, 4711));

    // The ring stands still: its base can be asked for again and set.
    pair.tell(Request::GetVringBase, &ring(0, 0), &[]).unwrap();
    assert_eq!(pair.answer().unwrap().payload, ring(0, 4711));
    pair.ok(Request::SetVringBase, &ring(0, 5), &[]);
    assert!(!pair.session.state().vrings[0].is_ready());
    pair.ok(Request::SetVringKick, &number(0), &[event().as_fd()]);
    assert!(pair.session.state().vrings[0].is_ready());
    assert!(pair.session.state().vrings[0].call.is_some());
}

#[test]
fn get_vring_base_is_answered_even_when_the_data_path_fails() {
    let mut pair = Pair::started();
    pair.send(Request::GetVringBase, &ring(0, 0), &[], true);
    assert_eq!(pair.session.receive().unwrap(), Some(Event::StopRing(0)));
    pair.session.finish(Err(())).unwrap();
    assert_eq!(pair.answer().unwrap().payload, ring(0, 0));
    assert!(pair.answer().is_none());
}

#[test]
fn size_and_base_of_a_started_ring_stay() {
    for (request, payload) in [
        (Request::SetVringNum, ring(0, 128)),
        (Request::SetVringBase, ring(0, 7)),
    ] {
        let error = Pair::refused(Pair::started, request, &payload, &[]);
        assert_eq!(
            error.to_string(),
            format!("{}: ring 0 is started", request.name())
        );
    }
    let mut pair = Pair::started();
    assert_eq!(
        pair.ok(Request::SetVringNum, &ring(0, 256), &[]),
        Event::Answered
    );
    assert_eq!(
        pair.ok(Request::SetVringNum, &ring(1, 128), &[]),
        Event::Ring(1)
    );
}

#[test]
fn enable_is_legal_before_anything_else_and_again() {
    let mut pair = Pair::fresh();
    for _ in 0..3 {
        pair.ok(Request::SetVringEnable, &ring(0, 1), &[]);
        pair.ok(Request::SetVringEnable, &ring(1, 0), &[]);
    }
    assert!(pair.session.state().vrings[0].enabled);
    assert!(!pair.session.state().vrings[1].enabled);
    assert_eq!(
        pair.ok(Request::SetVringEnable, &ring(0, 1), &[]),
        Event::Answered
    );
    assert_eq!(
        pair.ok(Request::SetVringEnable, &ring(0, 0), &[]),
        Event::Ring(0)
    );
    for value in [2, u32::MAX] {
        let error = Pair::refused(Pair::fresh, Request::SetVringEnable, &ring(0, value), &[]);
        assert_eq!(
            error.to_string(),
            format!("SET_VRING_ENABLE: {value} is neither 0 nor 1")
        );
    }
}

#[test]
fn rings_are_enabled_once_started_without_protocol_features() {
    let version_1 = number(mask(&[VIRTIO_F_VERSION_1]));
    let mut pair = Pair::fresh();
    pair.ok(Request::SetFeatures, &version_1, &[]);
    assert!(!pair.session.state().vrings[0].enabled);
    pair.ok(Request::SetVringKick, &number(0), &[event().as_fd()]);
    assert!(pair.session.state().vrings[0].enabled);
    assert!(!pair.session.state().vrings[1].enabled);

    let mut pair = Pair::fresh();
    pair.ok(Request::SetVringKick, &number(0), &[event().as_fd()]);
    assert!(!pair.session.state().vrings[0].enabled, "nobody knows yet");
    pair.ok(Request::SetFeatures, &version_1, &[]);
    assert!(pair.session.state().vrings[0].enabled);

    let mut pair = Pair::negotiated();
    pair.ok(Request::SetVringKick, &number(0), &[event().as_fd()]);
    assert!(!pair.session.state().vrings[0].enabled);
}

#[test]
fn call_can_be_replaced_while_the_ring_runs() {
    let mut pair = Pair::started();
    let event = event();
    assert_eq!(
        pair.ok(Request::SetVringCall, &number(0), &[event.as_fd()]),
        Event::CallChanged(0)
    );
    let first = Arc::downgrade(pair.session.state().vrings[0].call.as_ref().unwrap());
    assert_eq!(
        pair.ok(Request::SetVringCall, &number(0), &[event.as_fd()]),
        Event::CallChanged(0)
    );
    assert_eq!(first.strong_count(), 0, "the one before is still open");
    assert_eq!(
        pair.ok(Request::SetVringCall, &number(0x100), &[]),
        Event::CallChanged(0)
    );
    assert!(pair.session.state().vrings[0].call.is_none());
    assert!(pair.session.state().vrings[0].is_ready());
    assert_eq!(
        pair.ok(Request::SetVringErr, &number(0), &[event.as_fd()]),
        Event::Answered
    );
    assert!(pair.session.state().vrings[0].err.is_some());
}
