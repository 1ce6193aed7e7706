//! What the tables and the state machine of RFC 2131 say, row by row.

use super::*;

#[test]
fn a_client_that_boots_again_is_told_whether_its_address_holds_rfc_2131_4_3_2() {
    let mut lab = Lab::new();
    let address = lab.take(1);
    let reboot =
        |number, address| say(Type::Request, number).address(code::REQUESTED_ADDRESS, address);
    assert_eq!(lab.answer(&reboot(1, address)).address, address);
    // Somebody else's, another network's, and one that is nobody's to have.
    for wish in [address, Ipv4Addr::new(10, 0, 1, 5), SERVER] {
        let answer = lab.answer(&reboot(2, wish));
        assert_eq!(answer.kind, Type::Nak as u8, "{wish}");
        assert_eq!(
            (answer.to_mac, answer.to, answer.address),
            (
                MacAddress([0xff; 6]),
                Ipv4Addr::BROADCAST,
                Ipv4Addr::UNSPECIFIED
            )
        );
        assert!(
            answer.options.contains_key(&code::MESSAGE)
                && !answer.options.contains_key(&code::LEASE_TIME)
        );
    }
    // A free one, of a client that nothing is known of, and of one that has another.
    let free = Ipv4Addr::new(10, 0, 0, if address.octets()[3] == 9 { 8 } else { 9 });
    let outcome = lab.hear(&reboot(2, free));
    assert_eq!(
        (
            outcome.event,
            outcome.frames.len(),
            outcome.changes.is_empty()
        ),
        ("dhcp_unknown_client", 0, true)
    );
    assert_eq!(lab.answer(&reboot(1, free)).kind, Type::Nak as u8);
    // One whose lease ended and that nobody took.
    let later = NOW + 7200;
    let outcome = lab.0.handle(&reboot(1, address).frame(), later);
    assert_eq!(outcome.changes[0].lease.expires, later + 3600);
}

#[test]
fn a_client_renews_at_the_server_and_rebinds_at_anybody_rfc_2131_4_3_2() {
    let mut lab = Lab::new();
    let address = lab.take(1);
    for to in [SERVER, Ipv4Addr::BROADCAST] {
        let mut renew = say(Type::Request, 1);
        renew.ciaddr = address;
        let outcome = lab.0.handle(&renew.frame_to(to), NOW + 1000);
        let answer = read(&outcome.frames[0]);
        assert_eq!(
            (answer.kind, answer.address, answer.to),
            (Type::Ack as u8, address, address)
        );
        assert_eq!(outcome.changes[0].lease.expires, NOW + 1000 + 3600);
    }
    // What another server is asked is none of ours, and neither is a broadcast of another network.
    let mut renew = say(Type::Request, 1);
    renew.ciaddr = address;
    for to in [[10, 0, 0, 77], [10, 0, 1, 255], [224, 0, 0, 1]] {
        let outcome = lab.0.handle(&renew.frame_to(to.into()), NOW);
        assert_eq!(
            (outcome.event, outcome.frames.len()),
            ("dhcp_elsewhere", 0),
            "{to:?}"
        );
    }
    // An address that it does not have.
    renew.ciaddr = Ipv4Addr::new(10, 0, 0, 9);
    let other = lab.take(2);
    renew.ciaddr = other;
    let answer = lab.answer(&renew);
    assert_eq!(
        (answer.kind, answer.to),
        (Type::Nak as u8, Ipv4Addr::BROADCAST)
    );
    renew.ciaddr = Ipv4Addr::new(192, 168, 0, 4);
    assert_eq!(lab.answer(&renew).kind, Type::Nak as u8);
}

#[test]
fn requests_that_contradict_themselves_are_not_answered_rfc_2131_table_4() {
    let mut lab = Lab::new();
    let address = lab.take(1);
    let mut twice = say(Type::Request, 1)
        .address(code::REQUESTED_ADDRESS, Ipv4Addr::new(10, 0, 0, 9))
        .address(code::LEASE_TIME, SERVER);
    twice.ciaddr = address;
    let neither = say(Type::Request, 1);
    let nothing_wished = say(Type::Request, 1).address(code::SERVER, SERVER);
    let mut edge = say(Type::Inform, 1);
    edge.ciaddr = SERVER;
    for say in [&twice, &neither, &nothing_wished, &edge] {
        let outcome = lab.hear(say);
        assert_eq!(
            (outcome.event, outcome.frames.len()),
            ("dhcp_contradictory", 0)
        );
    }
    // Some say in both places which address they renew.
    let mut renew = say(Type::Request, 1).address(code::REQUESTED_ADDRESS, address);
    renew.ciaddr = address;
    assert_eq!(lab.answer(&renew).kind, Type::Ack as u8);
}

#[test]
fn answers_carry_what_rfc_2131_table_3_says() {
    let mut lab = Lab::new();
    let head = |frame: &[u8]| frame[42..42 + 44].to_vec();
    let flags_and_addresses = |frame: &[u8]| {
        let head = head(frame);
        let address =
            |at: usize| Ipv4Addr::from([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        (head[10], address(12), address(16), address(20), address(24))
    };
    let none = Ipv4Addr::UNSPECIFIED;
    let mut discover = say(Type::Discover, 1);
    discover.broadcast = true;
    let offer = lab.hear(&discover).frames.remove(0);
    let address = read(&offer).address;
    assert_eq!(
        flags_and_addresses(&offer),
        (0x80, none, address, none, none)
    );
    assert_eq!(head(&offer)[28..34], mac(1).0);
    lab.take(1);
    let mut renew = say(Type::Request, 1);
    renew.ciaddr = address;
    let ack = lab.hear(&renew).frames.remove(0);
    assert_eq!(flags_and_addresses(&ack), (0, address, address, none, none));
    // A relay that asks for somebody who may not have the address shall broadcast the refusal.
    let mut wrong = say(Type::Request, 2).address(code::REQUESTED_ADDRESS, address);
    wrong.giaddr = Ipv4Addr::new(10, 0, 0, 200);
    let nak = lab.hear(&wrong).frames.remove(0);
    assert_eq!(
        flags_and_addresses(&nak),
        (0x80, none, none, none, wrong.giaddr)
    );
    let answer = read(&nak);
    assert_eq!((answer.to, answer.port), (wrong.giaddr, SERVER_PORT));
    let told: Vec<u8> = answer.options.into_keys().collect();
    assert_eq!(told, [code::TYPE, code::SERVER, code::MESSAGE]);
}

#[test]
fn options_come_in_the_order_asked_and_as_many_as_fit_rfc_2131_3_5() {
    let mut lab = Lab::new();
    let asked = [code::MTU, code::DOMAIN, code::ROUTER, 200, code::DNS];
    let discover = || say(Type::Discover, 1).with(code::REQUESTED_OPTIONS, &asked);
    let order = |frame: &[u8]| {
        let (mut at, mut order) = (42 + 240, Vec::new());
        while frame[at] != 255 {
            order.push(frame[at]);
            at += 2 + usize::from(frame[at + 1]);
        }
        order
    };
    let frame = lab.hear(&discover()).frames.remove(0);
    let fixed = [53, 54, 51, 58, 59, 1];
    assert_eq!(
        order(&frame),
        [
            &fixed[..],
            &[code::MTU, code::DOMAIN, code::ROUTER, code::DNS]
        ]
        .concat()
    );
    // The least wanted is left out; what the relay put in is not.
    lab.0.config.domain = Some("d".repeat(63) + "." + &"e".repeat(60));
    let relayed = || discover().with(code::RELAY_INFORMATION, &[7; 131]);
    let frame = lab.hear(&relayed()).frames.remove(0);
    assert!(frame.len() <= 14 + 576);
    assert_eq!(
        order(&frame),
        [
            &fixed[..],
            &[
                code::MTU,
                code::DOMAIN,
                code::ROUTER,
                code::RELAY_INFORMATION
            ]
        ]
        .concat()
    );
    let large = relayed().with(code::MAX_SIZE, &[5, 220]);
    let frame = lab.hear(&large).frames.remove(0);
    assert_eq!(order(&frame).len(), fixed.len() + 5);
    // However much the client takes, the network may not.
    lab.0.config.mtu = Some(576);
    let frame = lab.hear(&large).frames.remove(0);
    assert!(frame.len() <= 14 + 576);
}
