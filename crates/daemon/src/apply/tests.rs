use ringway_api::v1::{ForwardSpec, Name, PortRequest};
use ringway_network::Site;

use super::*;
use crate::testing::{Directory, spec};

/// A host that is a picture of things, and fails or dies where it is told to.
struct Picture {
    things: Mutex<Things>,
    left: Mutex<usize>,
    fault: Fault,
}

#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// The step after so many does a part and says no, once.
    Fails,
    /// The daemon dies in it.
    Dies,
}

impl Picture {
    fn new(things: Things, after: usize, fault: Fault) -> Arc<Self> {
        Arc::new(Self {
            things: Mutex::new(things),
            left: Mutex::new(after),
            fault,
        })
    }

    fn things(&self) -> Things {
        self.things.lock().unwrap().clone()
    }

    fn revive(&self) {
        *self.left.lock().unwrap() = usize::MAX;
    }

    /// Whether this step is the one.
    fn strikes(&self) -> bool {
        let mut left = self.left.lock().unwrap();
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => *left = usize::MAX,
        }
        *left == usize::MAX
    }
}

impl Ground for Arc<Picture> {
    async fn carry(&self, step: &Step) -> Result<(), GroundError> {
        fn put<K: Ord + Clone, V: Clone>(
            map: &mut std::collections::BTreeMap<K, V>,
            key: &K,
            new: &Option<V>,
        ) {
            match new {
                Some(new) => map.insert(key.clone(), new.clone()),
                None => map.remove(key),
            };
        }
        let strikes = self.strikes();
        let mut things = self.things.lock().unwrap();
        match step {
            Step::Link(name, change) => put(&mut things.links, name, &change.new),
            Step::Port(name, change) => put(&mut things.switch_ports, name, &change.new),
            Step::Firewall(change) => things.firewall = change.new.clone(),
            Step::Service(name, change) => put(&mut things.services, name, &change.new),
        }
        drop(things);
        match self.fault {
            _ if !strikes => Ok(()),
            Fault::Fails => Err(GroundError::Injected),
            Fault::Dies => panic!("the daemon dies in: {step}"),
        }
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn port(text: &str) -> PortRequest {
    PortRequest {
        owner: None,
        group: None,
        name: name(text),
        path: Default::default(),
        mac: None,
        address: None,
        queues: 1,
        rate: None,
    }
}

/// From a network with two ports to one with another port, without the other network, with a third.
fn states() -> (State, State) {
    let site = Site::default();
    let mut old = State::default();
    for network in ["lan", "dmz"] {
        old.create(spec(network), &site).unwrap();
        old.add_port(&name(network), port("web"), &site).unwrap();
    }
    let mut new = old.clone();
    new.delete(&name("dmz"), true).unwrap();
    new.create(spec("new"), &site).unwrap();
    new.remove_port(&name("lan"), &name("web")).unwrap();
    new.add_port(&name("lan"), port("db"), &site).unwrap();
    let to = new.networks[&name("lan")].range().unwrap().0;
    let forward = ForwardSpec {
        protocol: Default::default(),
        listen: None,
        ports: "8080".parse().unwrap(),
        to,
        to_port: None,
    };
    new.forward(&name("lan"), forward).unwrap();
    (old, new)
}

fn store(directory: &Directory, state: &State) -> SharedStore {
    let mut store = Store::open(directory.path()).unwrap();
    store.commit(state).unwrap();
    Arc::new(Mutex::new(store))
}

fn kept(directory: &Directory) -> (State, Option<Intent>) {
    let store = Store::open(directory.path()).unwrap();
    (store.state().unwrap(), store.intent().unwrap())
}

fn steps() -> usize {
    let (old, new) = states();
    Plan::between(&Things::of(&old), &Things::of(&new))
        .steps
        .len()
}

#[tokio::test]
async fn a_change_is_on_the_ground_and_in_the_store() {
    let (old, new) = states();
    let directory = Directory::new("change");
    let store = store(&directory, &old);
    let picture = Picture::new(Things::of(&old), usize::MAX, Fault::Fails);
    change(&store, &picture, &old, &new).await.unwrap();
    assert_eq!(picture.things(), Things::of(&new));
    assert_eq!(kept(&directory), (new, None));
}

#[tokio::test]
async fn a_step_that_fails_takes_the_others_back() {
    let (old, new) = states();
    assert!(steps() > 8, "{}", steps());
    for after in 0..steps() {
        let directory = Directory::new("fails");
        let store = store(&directory, &old);
        let picture = Picture::new(Things::of(&old), after, Fault::Fails);
        let error = change(&store, &picture, &old, &new).await.unwrap_err();
        assert!(matches!(error, ApplyError::Step { .. }), "{after} {error}");
        assert_eq!(picture.things(), Things::of(&old), "step {after}");
        assert_eq!(kept(&directory), (old.clone(), None), "step {after}");
    }
}

#[tokio::test]
async fn a_daemon_that_dies_in_a_step_is_taken_back_by_the_next() {
    let (old, new) = states();
    for after in 0..steps() {
        let directory = Directory::new("dies");
        let picture = Picture::new(Things::of(&old), after, Fault::Dies);
        {
            let (store, picture) = (store(&directory, &old), Arc::clone(&picture));
            let (old, new) = (old.clone(), new.clone());
            let task = tokio::spawn(async move { change(&store, &picture, &old, &new).await });
            assert!(task.await.unwrap_err().is_panic(), "step {after}");
        }
        assert_ne!(picture.things(), Things::of(&old), "step {after}");
        picture.revive();
        let store = Arc::new(Mutex::new(Store::open(directory.path()).unwrap()));
        assert_eq!(reconcile(&store, &picture).await.unwrap(), old);
        assert_eq!(picture.things(), Things::of(&old), "step {after}");
        assert_eq!(kept(&directory), (old.clone(), None), "step {after}");
    }
}

#[tokio::test]
async fn an_empty_host_becomes_what_the_store_says() {
    let (state, _) = states();
    let directory = Directory::new("empty");
    let store = store(&directory, &state);
    let picture = Picture::new(Things::default(), usize::MAX, Fault::Fails);
    for _ in 0..2 {
        reconcile(&store, &picture).await.unwrap();
        assert_eq!(picture.things(), Things::of(&state));
    }
}
