use std::path::PathBuf;

use ipnet::Ipv4Net;
use ringway_api::control::Setting;
use ringway_api::v1::{
    Document, ForwardSpec, Kind, Name, NetworkSpec, PortPatch, PortRequest, StaticLease,
};

use super::*;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn site() -> Site {
    Site {
        routes: vec!["192.168.100.0/24".parse().unwrap()],
        sockets: PathBuf::from("/run/ringway/ports"),
        plain: Vec::new(),
    }
}

fn spec(json: &str) -> NetworkSpec {
    serde_json::from_str(json).unwrap()
}

fn request(json: &str) -> PortRequest {
    serde_json::from_str(json).unwrap()
}

fn forward(json: &str) -> ForwardSpec {
    serde_json::from_str(json).unwrap()
}

fn lease(json: &str) -> StaticLease {
    serde_json::from_str(json).unwrap()
}

/// `lan`, 10.0.0.0/24, with the port `web` at 10.0.0.5.
fn lan() -> State {
    let mut state = State::default();
    state
        .create(spec(r#"{"name":"lan","subnet":"10.0.0.0/24"}"#), &site())
        .unwrap();
    state
        .add_port(
            &name("lan"),
            request(r#"{"name":"web","address":"10.0.0.5"}"#),
            &site(),
        )
        .unwrap();
    state
}

#[test]
fn a_subnet_is_chosen_beside_the_hosts_routes_and_other_networks() {
    let mut state = State::default();
    for (network, subnet) in [("a", "192.168.101.0/24"), ("b", "192.168.102.0/24")] {
        let made = state
            .create(spec(&format!(r#"{{"name":"{network}"}}"#)), &site())
            .unwrap();
        assert_eq!(made.spec.subnet, Some(subnet.parse().unwrap()));
        assert_eq!(made.gateway().unwrap().octets()[3], 1);
    }
    let all: Vec<Ipv4Net> = ["192.168.0.0/16", "172.16.0.0/12", "10.0.0.0/9"]
        .iter()
        .map(|t| t.parse().unwrap())
        .collect();
    let made = state
        .create(
            spec(r#"{"name":"c"}"#),
            &Site {
                routes: all,
                ..site()
            },
        )
        .unwrap();
    assert_eq!(made.spec.subnet, Some("10.128.0.0/24".parse().unwrap()));
    let vlans: Vec<u16> = state
        .networks
        .values()
        .map(|network| network.vlan)
        .collect();
    assert_eq!(vlans, [1, 2, 3]);
}

#[test]
fn networks_that_cannot_be_are_refused() {
    let cases = [
        (r#"{"name":"lan"}"#, "there is a network lan already"),
        (
            r#"{"name":"b","subnet":"10.0.0.128/25"}"#,
            "overlaps network lan (10.0.0.0/24)",
        ),
        (
            r#"{"name":"b","subnet":"192.168.0.0/16"}"#,
            "overlaps a route of the host (192.168.100.0/24)",
        ),
        (r#"{"name":"b","subnet":"10.1.0.0/30"}"#, "from /8 to /29"),
        (
            r#"{"name":"b","subnet":"127.0.0.0/8"}"#,
            "cannot be a network's subnet",
        ),
        (
            r#"{"name":"b","subnet":"224.0.0.0/24"}"#,
            "cannot be a network's subnet",
        ),
        (r#"{"name":"b","kind":"bridge"}"#, "needs the bridge"),
        (
            r#"{"name":"b","kind":"bridge","bridge":"br0","subnet":"10.1.0.0/24"}"#,
            "does not go with a network of kind bridge",
        ),
        (
            r#"{"name":"b","bridge":"br0"}"#,
            "does not go with a network of kind nat",
        ),
        (r#"{"name":"b","mtu":500}"#, "MTU of 500"),
        (
            r#"{"name":"b","subnet":"10.1.0.0/24","dhcp":{"range":["10.1.0.9","10.1.0.2"]}}"#,
            "the lower one first",
        ),
        (
            r#"{"name":"b","subnet":"10.1.0.0/24","dhcp":{"range":["10.2.0.9","10.1.0.2"]}}"#,
            "range's first 10.2.0.9",
        ),
        (
            r#"{"name":"b","dhcp":{"lease_seconds":5}}"#,
            "lease of 5 seconds",
        ),
        (
            r#"{"name":"b","dns":{"domain":"a..b"}}"#,
            "cannot be in DNS",
        ),
    ];
    for (json, reason) in cases {
        let error = lan().create(spec(json), &site()).unwrap_err().to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
}

#[test]
fn a_route_around_the_subnet_is_no_clash() {
    let routes = vec!["10.0.0.0/8".parse().unwrap()];
    let made = State::default()
        .create(
            spec(r#"{"name":"b","subnet":"10.1.0.0/24"}"#),
            &Site { routes, ..site() },
        )
        .map(|_| ());
    assert_eq!(made, Ok(()));
}

#[test]
fn interfaces_have_names_that_the_kernel_takes() {
    let mut state = State::default();
    for network in [
        "lan",
        "twelve-bytes",
        "a-very-long-name-of-a-network",
        "a-very-long-name-of-a-netwerk",
    ] {
        state
            .create(spec(&format!(r#"{{"name":"{network}"}}"#)), &site())
            .unwrap();
    }
    let names: Vec<String> = state
        .networks
        .values()
        .map(|network| network.interface.to_string())
        .collect();
    assert!(names.contains(&"rw-lan".to_owned()) && names.contains(&"rw-twelve-bytes".to_owned()));
    assert!(names.iter().all(|name| name.len() <= 15), "{names:?}");
}

#[test]
fn ports_have_addresses_of_their_own() {
    let mut state = lan();
    let web = &state.networks[&name("lan")].ports[&name("web")];
    assert_eq!(web.socket, PathBuf::from("/run/ringway/ports/lan/web.sock"));
    let mac = web.mac;
    let long = "a".repeat(63);
    let cases = [
        (r#"{"name":"web"}"#.to_owned(), "there is a port web"),
        (format!(r#"{{"name":"b","mac":"{mac}"}}"#), "is port web's"),
        (
            r#"{"name":"b","mac":"01:00:00:00:00:00"}"#.into(),
            "unicast",
        ),
        (
            r#"{"name":"b","address":"10.0.0.5"}"#.into(),
            "is port web's",
        ),
        (
            r#"{"name":"b","address":"10.0.0.1"}"#.into(),
            "is the gateway's",
        ),
        (
            r#"{"name":"b","address":"10.0.1.5"}"#.into(),
            "is not an address for guests",
        ),
        (
            r#"{"name":"b","address":"10.0.0.255"}"#.into(),
            "is not an address for guests",
        ),
        (r#"{"name":"b","queues":129}"#.into(), "129 queue pairs"),
        (
            r#"{"name":"b","path":"tap","rate":"10M"}"#.into(),
            "vhost-user",
        ),
    ];
    for (json, reason) in cases {
        let error = state
            .add_port(&name("lan"), request(&json), &site())
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
    let deep = Site {
        sockets: PathBuf::from("/").join("d".repeat(60)),
        ..site()
    };
    let error = state
        .add_port(
            &name("lan"),
            request(&format!(r#"{{"name":"{}"}}"#, &long[..60])),
            &deep,
        )
        .unwrap_err();
    assert!(matches!(error, Invalid::SocketPath(_)));
    // `lan/` and 60 letters are as many as the switch takes.
    let longer = request(&format!(r#"{{"name":"{}"}}"#, &long[..61]));
    let error = state.add_port(&name("lan"), longer, &site()).unwrap_err();
    assert!(matches!(error, Invalid::LongName(_)), "{error}");
    let patch: PortPatch = serde_json::from_str(r#"{"address":null,"rate":"10M"}"#).unwrap();
    let web = state.patch_port(&name("lan"), &name("web"), patch).unwrap();
    assert_eq!(
        (web.address, web.rate.unwrap().bits_per_second(), web.mac),
        (None, 10_000_000, mac)
    );
}

#[test]
fn forwards_and_bindings_do_not_contradict() {
    let mut state = lan();
    let first = state
        .forward(
            &name("lan"),
            forward(r#"{"ports":"8080-8089","to":"10.0.0.5","to_port":80}"#),
        )
        .unwrap();
    let cases = [
        (r#"{"ports":"8085","to":"10.0.0.6"}"#, "by forward 1"),
        (
            r#"{"ports":"8085","to":"10.0.0.6","listen":"192.0.2.1"}"#,
            "by forward 1",
        ),
        (
            r#"{"ports":"1-9","to":"10.0.0.6","to_port":65530}"#,
            "goes beyond 65535",
        ),
        (r#"{"ports":"1","to":"10.9.0.6"}"#, "target 10.9.0.6"),
    ];
    for (json, reason) in cases {
        let error = state
            .forward(&name("lan"), forward(json))
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
    assert!(
        state
            .forward(
                &name("lan"),
                forward(r#"{"protocol":"udp","ports":"8085","to":"10.0.0.6"}"#)
            )
            .is_ok()
    );
    state.remove_forward(&name("lan"), first.id).unwrap();
    assert!(state.remove_forward(&name("lan"), first.id).is_err());
    for (json, reason) in [
        (r#"{"address":"10.0.0.9"}"#, "either a MAC or"),
        (
            r#"{"address":"10.0.0.9","client_id":"0"}"#,
            "pairs of hexadecimal digits",
        ),
        (
            r#"{"address":"10.0.0.5","client_id":"0011"}"#,
            "is port web's",
        ),
    ] {
        let error = state
            .bind(&name("lan"), lease(json))
            .unwrap_err()
            .to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
    state
        .bind(
            &name("lan"),
            lease(r#"{"address":"10.0.0.9","client_id":"0011","name":"db"}"#),
        )
        .unwrap();
    state
        .unbind(&name("lan"), "10.0.0.9".parse().unwrap())
        .unwrap();
    state
        .create(spec(r#"{"name":"quiet","kind":"isolated"}"#), &site())
        .unwrap();
    assert!(
        state
            .forward(&name("quiet"), forward(r#"{"ports":"1","to":"10.9.0.6"}"#))
            .is_err()
    );
}

#[test]
fn a_network_with_ports_goes_only_by_force() {
    let mut state = lan();
    assert_eq!(
        state.delete(&name("lan"), false).unwrap_err().to_string(),
        "network lan has 1 port: delete them first (`ringway port list lan` shows them), or take them along with --force"
    );
    assert!(state.delete(&name("lan"), true).is_ok());
    assert!(state.networks.is_empty());
}

fn document(state: &State) -> Document {
    let networks = state
        .networks
        .values()
        .map(|network| ringway_api::v1::DocumentNetwork {
            spec: network.spec.clone(),
            ports: network
                .ports
                .iter()
                .map(|(name, port)| {
                    request(&format!(
                        r#"{{"name":"{name}","address":"{}"}}"#,
                        port.address.unwrap()
                    ))
                })
                .collect(),
            leases: network.leases.clone(),
            forwards: network
                .forwards
                .iter()
                .map(|forward| forward.spec.clone())
                .collect(),
        });
    Document {
        networks: networks.collect(),
    }
}

#[test]
fn applying_what_is_there_changes_nothing() {
    let mut state = lan();
    state
        .forward(&name("lan"), forward(r#"{"ports":"80","to":"10.0.0.5"}"#))
        .unwrap();
    let next = state.apply(document(&state), &site()).unwrap();
    assert_eq!(next, state);
    assert_eq!(
        Plan::between(&Things::of(&state), &Things::of(&next)).steps,
        []
    );
    let mut other = document(&state);
    other.networks[0].spec.kind = Kind::Isolated;
    assert!(matches!(
        state.apply(other, &site()),
        Err(Invalid::Fixed { .. })
    ));
    let mut twice = document(&state);
    twice.networks.push(twice.networks[0].clone());
    assert!(matches!(
        state.apply(twice, &site()),
        Err(Invalid::Twice(_))
    ));
}

#[test]
fn a_plan_builds_from_the_inside_out_and_takes_down_the_other_way() {
    let (old, new) = (State::default(), lan());
    let up = Plan::between(&Things::of(&old), &Things::of(&new));
    let text: Vec<String> = up.steps.iter().map(ToString::to_string).collect();
    let web = new.networks[&name("lan")].ports[&name("web")].mac;
    assert_eq!(
        text,
        [
            "create the firewall table for 1 network".to_owned(),
            "create interface rw-lan with address 10.0.0.1/24".into(),
            format!(
                "create port lan/web of the switch: vhost-user,path=/run/ringway/ports/lan/web.sock,name=lan/web,vlan=1,mac={web}"
            ),
            "create port rw-lan of the switch: tap,name=rw-lan,vlan=1".into(),
            "start answering in network lan".into(),
        ]
    );
    let down = Plan::between(&Things::of(&new), &Things::of(&old));
    let text: Vec<String> = down.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "stop answering in network lan",
            "remove port lan/web of the switch",
            "remove port rw-lan of the switch",
            "remove interface rw-lan",
            "remove the firewall table for 0 networks",
        ]
    );
    for step in up.steps {
        assert_eq!(step.clone().back().back(), step);
    }
}

#[test]
fn a_bridge_network_answers_nothing() {
    let mut state = State::default();
    state
        .create(
            spec(r#"{"name":"office","kind":"bridge","bridge":"br0"}"#),
            &site(),
        )
        .unwrap();
    let things = Things::of(&state);
    assert_eq!((things.services.len(), things.firewall.as_ref()), (0, None));
    let link = &things.links["rw-office"];
    assert_eq!(
        (link.address, link.bridge.as_ref().unwrap().as_str()),
        (None, "br0")
    );
}

#[test]
fn the_firewall_is_one_table_made_anew() {
    let mut state = lan();
    state
        .forward(
            &name("lan"),
            forward(r#"{"ports":"8080-8081","to":"10.0.0.5","to_port":80}"#),
        )
        .unwrap();
    state
        .forward(
            &name("lan"),
            forward(r#"{"protocol":"udp","ports":"53","to":"10.0.0.5","listen":"192.0.2.1"}"#),
        )
        .unwrap();
    state
        .create(
            spec(r#"{"name":"quiet","kind":"isolated","subnet":"10.2.0.0/24"}"#),
            &site(),
        )
        .unwrap();
    let text = firewall::ruleset(Things::of(&state).firewall.as_ref());
    assert!(
        text.starts_with(
            "add table inet ringway\ndelete table inet ringway\ntable inet ringway {\n"
        )
    );
    for line in [
        "fib daddr type local ip daddr != 127.0.0.0/8 tcp dport 8080-8081 dnat ip to 10.0.0.5 : tcp dport map { 8080 : 80, 8081 : 81 } comment \"forward 1\"",
        "ip daddr 192.0.2.1 udp dport 53 dnat ip to 10.0.0.5 comment \"forward 2\"",
        "set networks {\n\t\ttype ifname;\n\t\telements = { \"rw-lan\", \"rw-quiet\" }",
        "set isolated {\n\t\ttype ifname;\n\t\telements = { \"rw-quiet\" }",
        "set routed {\n\t\ttype ifname . ipv4_addr; flags interval;\n\t}",
        "set hidden {\n\t\ttype ipv4_addr; flags interval;\n\t\telements = { 10.0.0.0/24 }",
        "elements = { \"rw-lan\" . 10.0.0.0/24, \"rw-quiet\" . 10.2.0.0/24 }",
        "elements = { \"rw-lan\" . 10.0.0.1, \"rw-quiet\" . 10.2.0.1 }",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(firewall::ruleset(None).lines().count(), 2);
}

#[test]
fn a_bridge_comes_with_the_first_tap_and_goes_with_the_last() {
    let mut bare = State::default();
    let lan = bare
        .create(spec(r#"{"name":"lan","subnet":"10.0.0.0/24"}"#), &site())
        .unwrap();
    assert_eq!(lan.gateway_interface().as_str(), "rw-lan");
    let mut tapped = bare.clone();
    let request = request(r#"{"name":"web","path":"tap","queues":2}"#);
    let port = tapped.add_port(&name("lan"), request, &site()).unwrap();
    let tap = port.tap.clone().unwrap().to_string();
    let mac = port.mac;
    assert!(tap.starts_with("rt-web-") && tap.len() <= 15, "{tap}");
    let (without, with) = (Things::of(&bare), Things::of(&tapped));
    let address = |things: &Things, name: &str| things.links[name].address.is_some();
    assert!(address(&without, "rw-lan"));
    assert!(!address(&with, "rw-lan") && address(&with, "rwb-lan"));
    for member in ["rw-lan", &tap] {
        let bridge = with.links[member].bridge.as_ref().unwrap();
        assert_eq!(bridge.as_str(), "rwb-lan");
    }
    // The switch has nothing to do with it, and keeps its port.
    assert_eq!(without.switch_ports, with.switch_ports);
    let text = firewall::ruleset(with.firewall.as_ref());
    for rule in [
        "elements = { \"rwb-lan\" . \"rwb-lan\" }".to_owned(),
        format!("iifname {tap:?} ether saddr != {mac} counter drop"),
    ] {
        assert!(text.contains(&rule), "{text}");
    }
    let text = firewall::ruleset(without.firewall.as_ref());
    assert!(!text.contains(firewall::BRIDGE_TABLE), "{text}");
    let steps = |old: &Things, new: &Things| -> Vec<String> {
        let plan = Plan::between(old, new);
        plan.steps.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        steps(&without, &with),
        [
            "change the firewall table for 1 network".to_owned(),
            "create bridge rwb-lan with address 10.0.0.1/24".into(),
            format!("create tap {tap} on bridge rwb-lan"),
            "change interface rw-lan on bridge rwb-lan".into(),
            "change the answers in network lan".into(),
        ]
    );
    assert_eq!(
        steps(&with, &without),
        [
            format!("remove tap {tap}"),
            "change the firewall table for 1 network".into(),
            "change interface rw-lan with address 10.0.0.1/24".into(),
            "change the answers in network lan".into(),
            "remove bridge rwb-lan".into(),
        ]
    );
}

#[test]
fn ways_that_do_not_lead_there_are_refused_with_the_reason() {
    let mut state = State::default();
    let plain = Site {
        plain: vec!["eth0".into()],
        ..site()
    };
    for network in [
        r#"{"name":"lan","subnet":"10.0.0.0/24"}"#,
        r#"{"name":"br","kind":"bridge","bridge":"br0"}"#,
        r#"{"name":"nic","kind":"bridge","bridge":"eth0"}"#,
    ] {
        state.create(spec(network), &plain).unwrap();
    }
    let mut add = |network: &str, port: &str| {
        let added = state.add_port(&name(network), request(port), &plain);
        added.map(drop).map_err(|error| error.to_string())
    };
    for (network, port, part) in [
        ("lan", r#"{"name":"a","path":"macvtap"}"#, "--path tap"),
        ("nic", r#"{"name":"a"}"#, "eth0 is no bridge"),
        ("nic", r#"{"name":"a","path":"tap"}"#, "--path macvtap"),
        ("lan", r#"{"name":"a","path":"tap","rate":"1M"}"#, "rate"),
        ("lan", r#"{"name":"a","owner":1}"#, "--path tap"),
    ] {
        let refused = add(network, port).unwrap_err();
        assert!(refused.contains(part), "{network} {port}: {refused}");
    }
    add("nic", r#"{"name":"a","path":"macvtap"}"#).unwrap();
    add("br", r#"{"name":"a","path":"macvtap"}"#).unwrap();
    add("br", r#"{"name":"b","path":"tap"}"#).unwrap();
    let things = Things::of(&state);
    assert!(!things.links.contains_key("rw-nic") && !things.switch_ports.contains_key("rw-nic"));
    assert_eq!(
        things.links["rw-br"].bridge.as_ref().unwrap().as_str(),
        "br0"
    );
    let rate = PortPatch {
        rate: Setting::Set("1M".parse().unwrap()),
        ..PortPatch::default()
    };
    let refused = state.patch_port(&name("br"), &name("b"), rate);
    assert_eq!(refused.unwrap_err(), Invalid::NotOnTap("a rate limit"));
}
