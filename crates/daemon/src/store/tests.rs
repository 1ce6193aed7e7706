use ringway_network::Site;
use ringway_service::leases::{Client, State as LeaseState};
use ringway_wire::MacAddress;

use super::*;
use crate::testing::{Directory, spec};

fn two() -> State {
    let mut state = State::default();
    for name in ["lan", "dmz"] {
        state.create(spec(name), &Site::default()).unwrap();
    }
    state.next_forward = 7;
    state
}

fn lease(last: u8, client: Client, state: LeaseState) -> Lease {
    Lease {
        address: [10, 0, 0, last].into(),
        client,
        mac: MacAddress([2, 0, 0, 0, 0, last]),
        name: (last > 2).then(|| format!("host{last}")),
        expires: u64::from(last) << 32,
        state,
    }
}

#[test]
fn what_was_committed_is_there_again() {
    let directory = Directory::new("store");
    let state = two();
    {
        let mut store = Store::open(directory.path()).unwrap();
        assert!(store.fresh);
        assert_eq!(store.state().unwrap(), State::default());
        store.commit(&state).unwrap();
    }
    let store = Store::open(directory.path()).unwrap();
    assert!(!store.fresh);
    assert_eq!(store.state().unwrap(), state);
    assert_eq!(store.intent().unwrap(), None);
}

#[test]
fn an_intent_stays_until_it_is_done_or_taken_back() {
    let directory = Directory::new("intent");
    let intent = Intent {
        old: State::default(),
        new: two(),
    };
    Store::open(directory.path())
        .unwrap()
        .begin(&intent)
        .unwrap();
    let mut store = Store::open(directory.path()).unwrap();
    assert_eq!(store.intent().unwrap(), Some(intent.clone()));
    assert_eq!(store.state().unwrap(), State::default());
    store.abandon().unwrap();
    assert_eq!(store.intent().unwrap(), None);
    store.begin(&intent).unwrap();
    store.commit(&intent.new).unwrap();
    assert_eq!(store.intent().unwrap(), None);
    assert_eq!(store.state().unwrap(), intent.new);
}

#[test]
fn leases_have_a_row_per_address_and_go_with_their_network() {
    let directory = Directory::new("leases");
    let (lan, dmz): (Name, Name) = ("lan".parse().unwrap(), "dmz".parse().unwrap());
    let mac = |last| Client::Mac(MacAddress([2, 0, 0, 0, 0, last]));
    let leases = [
        lease(2, mac(2), LeaseState::Bound),
        lease(3, Client::Id(vec![1, 2, 3]), LeaseState::Free),
        lease(4, mac(4), LeaseState::Declined),
    ];
    let again = lease(2, Client::Id(vec![9]), LeaseState::Bound);
    {
        let mut store = Store::open(directory.path()).unwrap();
        store.commit(&two()).unwrap();
        store.put_leases(&lan, &leases).unwrap();
        store.put_leases(&dmz, &leases[..1]).unwrap();
        store
            .put_leases(&lan, std::slice::from_ref(&again))
            .unwrap();
    }
    let mut store = Store::open(directory.path()).unwrap();
    let kept = [&again, &leases[1], &leases[2]].map(Clone::clone);
    assert_eq!(store.leases(&lan).unwrap(), kept);
    let mut state = two();
    state.delete(&lan, false).unwrap();
    store.commit(&state).unwrap();
    assert_eq!(store.leases(&lan).unwrap(), []);
    assert_eq!(store.leases(&dmz).unwrap(), leases[..1]);
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let directory = Directory::new("later");
    drop(Store::open(directory.path()).unwrap());
    let path = directory.path().join("ringway.sqlite");
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    let error = Store::open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }));
}
