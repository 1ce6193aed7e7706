use ringway_wire::eth;

use super::*;
use crate::leases::{Reservation, State};

mod tables;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const NOW: u64 = 1_000_000;

fn config() -> Config {
    Config {
        subnet: "10.0.0.0/24".parse().unwrap(),
        server: SERVER,
        mac: MacAddress([0x52, 0, 0, 0, 0, 1]),
        range: Ipv4Addr::new(10, 0, 0, 2)..=Ipv4Addr::new(10, 0, 0, 9),
        lease_seconds: 3600,
        router: Some(SERVER),
        routes: Vec::new(),
        dns: vec![SERVER],
        domain: Some("lan.ringway".into()),
        ntp: Vec::new(),
        mtu: Some(1500),
    }
}

/// A client's message, to be altered and sent.
struct Say {
    kind: Type,
    mac: u8,
    ciaddr: Ipv4Addr,
    giaddr: Ipv4Addr,
    broadcast: bool,
    options: Vec<(u8, Vec<u8>)>,
}

fn say(kind: Type, mac: u8) -> Say {
    let none = Ipv4Addr::UNSPECIFIED;
    Say {
        kind,
        mac,
        ciaddr: none,
        giaddr: none,
        broadcast: false,
        options: Vec::new(),
    }
}

impl Say {
    fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }

    fn address(self, code: u8, address: Ipv4Addr) -> Self {
        self.with(code, &address.octets())
    }

    fn selecting(mac: u8, address: Ipv4Addr) -> Self {
        say(Type::Request, mac)
            .address(code::SERVER, SERVER)
            .address(code::REQUESTED_ADDRESS, address)
    }

    fn frame(&self) -> Vec<u8> {
        self.frame_to(Ipv4Addr::BROADCAST)
    }

    fn frame_to(&self, to: Ipv4Addr) -> Vec<u8> {
        let message = Message {
            kind: self.kind,
            hops: 0,
            xid: 77,
            secs: 0,
            broadcast: self.broadcast,
            ciaddr: self.ciaddr,
            yiaddr: Ipv4Addr::UNSPECIFIED,
            giaddr: self.giaddr,
            chaddr: mac(self.mac).0,
            options: BTreeMap::new(),
        };
        let mut payload = message.write(&self.options, 1472);
        payload[0] = 1;
        FrameBuilder::ipv4(self.ciaddr, to)
            .macs(mac(self.mac), MacAddress([0xff; 6]))
            .udp(CLIENT_PORT, SERVER_PORT)
            .build(&payload)
    }
}

fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

/// An answer as a client sees it.
#[derive(Debug)]
struct Answer {
    to_mac: MacAddress,
    to: Ipv4Addr,
    port: u16,
    kind: u8,
    address: Ipv4Addr,
    options: BTreeMap<u8, Vec<u8>>,
}

fn read(frame: &[u8]) -> Answer {
    let packet = ipv4::Packet::new_checked(&frame[eth::HEADER_LEN..]).unwrap();
    assert!(packet.checksum_ok());
    let datagram = udp::Datagram::new_checked(packet.payload()).unwrap();
    assert!(
        datagram.checksum() != 0
            && datagram.checksum_ok(packet.source().into(), packet.destination().into())
    );
    let mut payload = datagram.payload().to_vec();
    assert_eq!(
        (packet.source(), payload[0], &payload[4..8]),
        (SERVER, 2, &[0, 0, 0, 77][..])
    );
    let kind = payload[242];
    // Read as a client's, for want of a client.
    (payload[0], payload[242]) = (1, Type::Inform as u8);
    let message = Message::parse(&payload).unwrap();
    Answer {
        to_mac: MacAddress::from_first(frame).unwrap(),
        to: packet.destination(),
        port: datagram.destination_port(),
        kind,
        address: message.yiaddr,
        options: message.options,
    }
}

struct Lab(Server);

impl Lab {
    fn new() -> Self {
        Self(Server::new(config()))
    }

    fn hear(&mut self, say: &Say) -> Outcome {
        self.0.handle(&say.frame(), NOW)
    }

    fn answer(&mut self, say: &Say) -> Answer {
        let outcome = self.hear(say);
        read(
            outcome
                .frames
                .first()
                .unwrap_or_else(|| panic!("no answer: {}", outcome.event)),
        )
    }

    /// Discover and request.
    fn take(&mut self, number: u8) -> Ipv4Addr {
        let offer = self.answer(&say(Type::Discover, number));
        assert_eq!(offer.kind, Type::Offer as u8);
        let ack = self.answer(&Say::selecting(number, offer.address));
        assert_eq!((ack.kind, ack.address), (Type::Ack as u8, offer.address));
        ack.address
    }
}

#[test]
fn an_address_is_offered_and_granted_rfc_2131_3_1() {
    let mut lab = Lab::new();
    let discover = say(Type::Discover, 1).with(code::CLIENT_ID, &[1, 2, 3]);
    let outcome = lab.hear(&discover);
    assert!(outcome.changes.is_empty(), "an offer is no lease");
    let offer = read(&outcome.frames[0]);
    let probe = arp::Packet::parse(&outcome.frames[1][14..]).unwrap();
    assert_eq!(
        (probe.target, probe.sender),
        (offer.address, Ipv4Addr::UNSPECIFIED)
    );
    assert_eq!(
        (offer.to_mac, offer.to, offer.port),
        (mac(1), offer.address, CLIENT_PORT)
    );
    let outcome = lab.hear(&Say::selecting(1, offer.address).with(code::CLIENT_ID, &[1, 2, 3]));
    let lease = &outcome.changes[0].lease;
    assert_eq!(
        (lease.address, lease.expires, lease.state),
        (offer.address, NOW + 3600, State::Bound)
    );
    assert_eq!(lease.client, Client::Id(vec![1, 2, 3]));
    let ack = read(&outcome.frames[0]);
    let expected: [(u8, &[u8]); 12] = [
        (code::SUBNET_MASK, &[255, 255, 255, 0]),
        (code::ROUTER, &[10, 0, 0, 1]),
        (code::DNS, &[10, 0, 0, 1]),
        (code::DOMAIN, b"lan.ringway"),
        (code::MTU, &[0x05, 0xdc]),
        (code::BROADCAST, &[10, 0, 0, 255]),
        (code::LEASE_TIME, &3600u32.to_be_bytes()),
        (code::RENEWAL, &1800u32.to_be_bytes()),
        (code::REBINDING, &3150u32.to_be_bytes()),
        (code::SERVER, &[10, 0, 0, 1]),
        (code::CLIENT_ID, &[1, 2, 3]),
        (code::TYPE, &[Type::Inform as u8]),
    ];
    assert_eq!(
        ack.options,
        expected
            .into_iter()
            .map(|(code, value)| (code, value.to_vec()))
            .collect()
    );
}

#[test]
fn answers_go_where_rfc_2131_4_1_says() {
    let mut lab = Lab::new();
    let mut discover = say(Type::Discover, 1);
    discover.broadcast = true;
    let offer = lab.answer(&discover);
    assert_eq!(
        (offer.to_mac, offer.to),
        (MacAddress([0xff; 6]), Ipv4Addr::BROADCAST)
    );
    let address = lab.take(1);
    let mut renew = say(Type::Request, 1);
    renew.ciaddr = address;
    let ack = lab.answer(&renew);
    assert_eq!(
        (ack.kind, ack.to_mac, ack.to, ack.port),
        (Type::Ack as u8, mac(1), address, CLIENT_PORT)
    );
    let mut relayed = say(Type::Discover, 2).with(code::RELAY_INFORMATION, &[1, 1, 7]);
    relayed.giaddr = Ipv4Addr::new(10, 0, 0, 200);
    let offer = lab.answer(&relayed);
    assert_eq!((offer.to, offer.port), (relayed.giaddr, SERVER_PORT));
    assert_eq!(offer.options[&code::RELAY_INFORMATION], [1, 1, 7]);
    for foreign in [Ipv4Addr::new(10, 0, 1, 200), SERVER] {
        relayed.giaddr = foreign;
        let outcome = lab.hear(&relayed);
        assert_eq!(
            (outcome.event, outcome.frames.len()),
            ("dhcp_foreign_relay", 0)
        );
    }
}

#[test]
fn who_uses_an_address_without_a_lease_keeps_it_from_others() {
    let mut lab = Lab::new();
    let claim = |number, address, operation| {
        let packet = arp::Packet {
            operation,
            sender_mac: mac(number),
            sender: address,
            target_mac: MacAddress([0; 6]),
            target: SERVER,
        };
        packet.to_frame(MacAddress([0xff; 6])).to_vec()
    };
    let wish = Ipv4Addr::new(10, 0, 0, 5);
    assert_eq!(
        lab.0.handle(&claim(66, wish, arp::REQUEST), NOW).event,
        "arp_heard"
    );
    let discover = |number| say(Type::Discover, number).address(code::REQUESTED_ADDRESS, wish);
    assert_ne!(lab.answer(&discover(1)).address, wish);
    assert_eq!(lab.answer(&discover(66)).address, wish);
    // A client that says its new address itself, by whatever name it goes, is no conflict.
    let named = say(Type::Discover, 3).with(code::CLIENT_ID, &[1, 2, 3]);
    let offer = lab.answer(&named);
    let outcome = lab.0.handle(&claim(3, offer.address, arp::REQUEST), NOW);
    assert_eq!((outcome.event, outcome.changes.len()), ("arp_heard", 0));
    let outcome = lab.0.handle(&claim(66, offer.address, arp::REQUEST), NOW);
    assert_eq!(outcome.event, "dhcp_conflicts");
    let own = lab.0.handle(&claim(0, wish, arp::REPLY)[..30], NOW);
    assert_eq!(own.event, "arp_malformed");
    let mut multicast = claim(4, wish, arp::REPLY);
    multicast[22] = 1;
    assert_eq!(lab.0.handle(&multicast, NOW).event, "arp_bad_address");
}

#[test]
fn what_could_not_be_committed_was_never_lent() {
    let mut lab = Lab::new();
    let offer = lab.answer(&say(Type::Discover, 1));
    let request = Say::selecting(1, offer.address);
    let changes = lab.hear(&request).changes;
    lab.0.pool.undo(changes);
    assert_eq!(lab.0.pool.leases().count(), 0);
    assert_eq!(lab.answer(&request).kind, Type::Ack as u8);
}

#[test]
fn a_client_that_chose_another_server_frees_its_offer() {
    let mut lab = Lab::new();
    let offer = lab.answer(&say(Type::Discover, 1));
    let other = say(Type::Request, 1)
        .address(code::SERVER, Ipv4Addr::new(10, 0, 0, 99))
        .address(code::REQUESTED_ADDRESS, offer.address);
    assert_eq!(lab.hear(&other).event, "dhcp_other_server");
    assert_eq!(lab.0.pool.offered_to(offer.address, NOW), None);
}

#[test]
fn when_all_are_lent_the_next_one_is_refused() {
    let mut lab = Lab::new();
    for number in 0..8 {
        lab.take(number);
    }
    let outcome = lab.hear(&say(Type::Discover, 50));
    assert_eq!((outcome.event, outcome.frames.len()), ("dhcp_exhausted", 0));
    let request = Say::selecting(50, Ipv4Addr::new(10, 0, 0, 5));
    assert_eq!(
        lab.answer(&request).options[&code::MESSAGE],
        b"the address is not yours"
    );
    assert_eq!(lab.0.counters()["dhcp_exhausted"], 1);
    assert_eq!(lab.0.counters()["dhcp_acks"], 8);
}

#[test]
fn who_answers_the_probe_has_the_address() {
    let mut lab = Lab::new();
    let offer = lab.answer(&say(Type::Discover, 1));
    let squatter = arp::Packet {
        operation: arp::REPLY,
        sender_mac: mac(66),
        sender: offer.address,
        target_mac: config().mac,
        target: Ipv4Addr::UNSPECIFIED,
    };
    let outcome = lab.0.handle(&squatter.to_frame(config().mac), NOW);
    assert_eq!(
        (outcome.event, outcome.changes[0].lease.state),
        ("dhcp_conflicts", State::Declined)
    );
    assert_eq!(
        lab.answer(&Say::selecting(1, offer.address)).kind,
        Type::Nak as u8
    );
    assert_ne!(lab.take(1), offer.address);
    // The same about an address that nobody was offered changes nothing.
    assert!(
        lab.0
            .handle(&squatter.to_frame(config().mac), NOW)
            .changes
            .is_empty()
    );
}

#[test]
fn an_address_is_declined_and_released_by_who_has_it() {
    let mut lab = Lab::new();
    let address = lab.take(1);
    let decline = |number| {
        say(Type::Decline, number)
            .address(code::SERVER, SERVER)
            .address(code::REQUESTED_ADDRESS, address)
    };
    let outcome = lab.hear(&decline(2));
    assert_eq!((outcome.event, outcome.changes.len()), ("dhcp_ignored", 0));
    assert_eq!(
        lab.hear(&decline(1)).changes[0].lease.state,
        State::Declined
    );
    let other = lab.take(1);
    let mut release = say(Type::Release, 1).address(code::SERVER, SERVER);
    release.ciaddr = other;
    let outcome = lab.hear(&release);
    assert_eq!(
        (outcome.changes[0].lease.state, outcome.frames.len()),
        (State::Free, 0)
    );
}

#[test]
fn a_client_with_an_address_is_informed_without_a_lease_rfc_2131_4_3_5() {
    let mut lab = Lab::new();
    let mut inform = say(Type::Inform, 1).with(code::REQUESTED_OPTIONS, &[code::SEARCH, code::DNS]);
    inform.ciaddr = Ipv4Addr::new(10, 0, 0, 100);
    let answer = lab.answer(&inform);
    assert_eq!(
        (answer.address, answer.to),
        (Ipv4Addr::UNSPECIFIED, inform.ciaddr)
    );
    assert!(!answer.options.contains_key(&code::LEASE_TIME));
    assert_eq!(answer.options[&code::SEARCH], b"\x03lan\x07ringway\0");
    assert!(!answer.options.contains_key(&code::ROUTER), "not asked for");
}

#[test]
fn routes_come_with_the_default_route_rfc_3442() {
    let mut lab = Lab::new();
    let via = Ipv4Addr::new(10, 0, 0, 3);
    lab.0.config.routes = vec![
        ("10.229.0.128/25".parse().unwrap(), via),
        ("10.17.0.0/16".parse().unwrap(), via),
    ];
    let offer = lab.answer(&say(Type::Discover, 1).with(code::REQUESTED_OPTIONS, &[code::ROUTES]));
    assert_eq!(
        offer.options[&code::ROUTES],
        [
            25, 10, 229, 0, 128, 10, 0, 0, 3, 16, 10, 17, 10, 0, 0, 3, 0, 10, 0, 0, 1
        ]
    );
}

#[test]
fn two_messages_are_enough_with_rapid_commit_rfc_4039() {
    let mut lab = Lab::new();
    let outcome = lab.hear(&say(Type::Discover, 1).with(code::RAPID_COMMIT, &[]));
    assert_eq!((outcome.event, outcome.changes.len()), ("dhcp_acks", 1));
    assert!(
        read(&outcome.frames[0])
            .options
            .contains_key(&code::RAPID_COMMIT)
    );
}

#[test]
fn names_that_are_labels_are_kept_and_told_rfc_4702() {
    let mut lab = Lab::new();
    let bound = Reservation {
        address: Ipv4Addr::new(10, 0, 0, 30),
        client: Client::Mac(mac(9)),
        name: Some("db".into()),
    };
    lab.0.pool.set_reservations([bound]);
    let named = |number, address, code, value: &[u8]| {
        Say::selecting(number, address)
            .with(code, value)
            .with(code::REQUESTED_OPTIONS, &[12])
    };
    for (number, code, value, name) in [
        (1, code::HOST_NAME, &b"Web.example"[..], Some("web")),
        (2, code::HOST_NAME, b"web", None),
        (3, code::HOST_NAME, b"a b", None),
        (4, code::HOST_NAME, b"db\0", None),
        (5, code::FQDN, b"\x01\0\0cache", Some("cache")),
        (6, code::FQDN, b"\x04\0\0\x04mail\x03lan\0", Some("mail")),
        (7, code::FQDN, b"\x04\0\0\x40", None),
    ] {
        let offer = lab.answer(&say(Type::Discover, number));
        let outcome = lab.hear(&named(number, offer.address, code, value));
        let lease = &outcome.changes[0].lease;
        assert_eq!(lease.name.as_deref(), name, "{value:?}");
        let ack = read(&outcome.frames[0]);
        assert_eq!(
            ack.options.get(&code::HOST_NAME).map(Vec::as_slice),
            name.map(str::as_bytes)
        );
        if let (code::FQDN, Some(name)) = (code, name) {
            let value = &ack.options[&code::FQDN];
            assert!(
                value[3..]
                    .windows(name.len())
                    .any(|part| part == name.as_bytes())
                    && value[0] & 1 == 1
            );
        }
    }
    let offer = lab.answer(&say(Type::Discover, 9).with(code::REQUESTED_OPTIONS, &[12]));
    assert_eq!(
        (offer.address, offer.options[&code::HOST_NAME].as_slice()),
        (Ipv4Addr::new(10, 0, 0, 30), &b"db"[..])
    );
}

#[test]
fn a_client_may_ask_for_less_time_and_gets_no_more() {
    let mut lab = Lab::new();
    for (asked, given) in [(120u32, 120u32), (1, 60), (u32::MAX, 3600)] {
        let offer =
            lab.answer(&say(Type::Discover, 1).with(code::LEASE_TIME, &asked.to_be_bytes()));
        assert_eq!(offer.options[&code::LEASE_TIME], given.to_be_bytes());
    }
}

#[test]
fn what_is_damaged_is_not_answered() {
    let mut lab = Lab::new();
    let whole = say(Type::Discover, 1).frame();
    let mut damaged = whole.clone();
    damaged[60] ^= 1;
    assert_eq!(lab.0.handle(&damaged, NOW).event, "dhcp_bad_checksum");
    for len in 0..whole.len() {
        let outcome = lab.0.handle(&whole[..len], NOW);
        assert!(
            outcome.frames.is_empty() && outcome.changes.is_empty(),
            "{len}"
        );
    }
    let mut elsewhere = whole.clone();
    elsewhere[37] = 53;
    assert_eq!(lab.0.handle(&elsewhere, NOW).event, "not_dhcp");
    assert_eq!(lab.0.handle(&whole, NOW).event, "dhcp_offers");
}

proptest::proptest! {
    #[test]
    fn no_frame_panics_and_no_address_is_lent_twice(
        frames in proptest::collection::vec((0u8..8, 1u8..9, proptest::collection::vec((0u8..=130, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..6)), 0..6), 0u8..12), 0..40)
    ) {
        let mut lab = Lab::new();
        let kinds = [Type::Discover, Type::Request, Type::Decline, Type::Release, Type::Inform];
        for (number, kind, options, last) in frames {
            let mut say = say(kinds[usize::from(kind) % kinds.len()], number);
            say.options = options;
            if last > 1 {
                say = say.address(code::REQUESTED_ADDRESS, Ipv4Addr::new(10, 0, 0, last)).address(code::SERVER, SERVER);
            }
            for Change { lease, .. } in lab.hear(&say).changes {
                proptest::prop_assert!(config().range.contains(&lease.address));
            }
            let mut holders: Vec<_> = lab.0.pool.leases().filter(|l| l.state == State::Bound).map(|l| l.client.clone()).collect();
            let count = holders.len();
            holders.sort();
            holders.dedup();
            proptest::prop_assert_eq!(holders.len(), count, "a client has two addresses");
        }
    }
}
