//! Sessions that another process goes on with.

use super::*;
use crate::user::socket::Pending;

const NOTHING: Pending<OwnedFd> = Pending {
    received: Vec::new(),
    descriptors: Vec::new(),
    queued: Vec::new(),
    attached: Vec::new(),
};

/// The state of `session`, as it is after it was carried to another process.
fn carried(session: &Session) -> DeviceState {
    let state = session.state();
    DeviceState {
        features: state.features,
        acked_features: state.acked_features,
        protocol_features: state.protocol_features,
        vrings: state.vrings.clone(),
        ..DeviceState::default()
    }
}

fn own(pending: Pending<BorrowedFd<'_>>) -> Pending<OwnedFd> {
    let copies = pending.descriptors.iter().map(|fd| fd.try_clone_to_owned());
    Pending {
        descriptors: copies.collect::<Result<_, _>>().unwrap(),
        received: pending.received,
        queued: pending.queued,
        attached: {
            let files = pending.attached.into_iter();
            let own = |(place, file): (usize, BorrowedFd<'_>)| {
                (place, file.try_clone_to_owned().unwrap())
            };
            files.map(own).collect()
        },
    }
}

fn resumed(session: &Session, pending: Pending<OwnedFd>) -> Result<Session, ResumeError> {
    let socket = session.as_fd().try_clone_to_owned().unwrap();
    Session::resume(socket, pending, *session.offer(), carried(session))
}

#[test]
fn a_message_begun_in_one_process_is_answered_by_the_next() {
    let Pair {
        mut frontend,
        session: mut before,
    } = Pair::negotiated();
    let header = Header::request(Request::SetVringKick.into(), 8, true).bytes();
    let kick = eventfd(0, EventfdFlags::empty()).unwrap();
    frontend
        .send_raw(RequestId(0), &header, &[kick.as_fd()])
        .unwrap();
    assert!(before.receive().unwrap().is_none());
    let pending = own(before.pending());
    assert_eq!(pending.received, header);
    let mut session = resumed(&before, pending).unwrap();
    drop(before);

    frontend.send_raw(RequestId(0), &number(1), &[]).unwrap();
    assert_eq!(session.receive().unwrap(), Some(Event::Ring(1)));
    session.finish(Ok(())).unwrap();
    assert!(session.state().vrings[1].kick.is_some());
    assert!(!session.has_partial());
}

#[test]
fn a_session_is_not_resumed_with_what_no_front_end_could_have_said() {
    let pair = Pair::negotiated();
    let session = &pair.session;
    let socket = || session.as_fd().try_clone_to_owned().unwrap();
    let refused = |pending, change: &dyn Fn(&mut DeviceState)| {
        let mut state = carried(session);
        change(&mut state);
        Session::resume(socket(), pending, *session.offer(), state).err()
    };
    let extra = mask(&[VIRTIO_NET_F_STATUS]);
    let error = refused(NOTHING, &|state| state.features |= extra);
    assert!(matches!(error, Some(ResumeError::NotOffered { features, .. }) if features == extra));
    let error = refused(NOTHING, &|state| state.protocol_features |= 1 << 63);
    assert!(matches!(error, Some(ResumeError::NotOffered { protocol, .. }) if protocol == 1 << 63));
    let error = refused(NOTHING, &|state| drop(state.vrings.pop()));
    assert!(matches!(
        error,
        Some(ResumeError::Rings {
            rings: 3,
            expected: 4
        })
    ));
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let file = std::sync::Arc::new(file);
    let error = refused(NOTHING, &|state| state.vrings[2].call = Some(file.clone()));
    assert!(matches!(
        error,
        Some(ResumeError::Notification(SessionError::NotEventfd { .. }))
    ));
    let long = Pending {
        received: vec![0; HEADER_SIZE + MAX_PAYLOAD + 1],
        ..NOTHING
    };
    assert!(matches!(
        refused(long, &|_| {}),
        Some(ResumeError::Pending { .. })
    ));
    assert!(refused(NOTHING, &|_| {}).is_none());
}
