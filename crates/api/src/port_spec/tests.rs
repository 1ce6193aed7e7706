use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> PortSpec {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    text.parse::<PortSpec>().expect_err(text).to_string()
}

#[test]
fn a_vhost_user_port_has_the_documented_defaults() {
    let spec = parse("vhost-user,path=/run/a.sock");
    let PortKind::VhostUser(port) = &spec.kind else {
        panic!("{spec:?}")
    };
    assert_eq!(port.mode, Mode::Server);
    assert_eq!(
        (port.queues, port.permissions, port.group.as_deref()),
        (1, 0o660, None)
    );
    assert_eq!(
        (spec.offload, spec.isolated, spec.vlan),
        (Offload::All, false, None)
    );
    assert_eq!(spec.default_name(), "a");
}

#[test]
fn every_key_of_every_kind_is_read() {
    let spec = parse(
        "vhost-user,path=/a,,b,mode=server,queues=128,group=kvm,perm=0600,name=x,trunk=30-40+10+39-50,isolated,\
         mac=02:00:00:00:00:0A,rate=100M,offload=csum",
    );
    let PortKind::VhostUser(port) = &spec.kind else {
        panic!("{spec:?}")
    };
    assert_eq!(port.path.to_str(), Some("/a,b"));
    assert_eq!(
        (port.queues, port.permissions, port.group.as_deref()),
        (128, 0o600, Some("kvm"))
    );
    assert_eq!(
        spec.trunk.as_ref().map(|trunk| trunk.ranges().to_vec()),
        Some(vec![10..=10, 30..=50])
    );
    assert_eq!(spec.mac, Some(Mac([2, 0, 0, 0, 0, 10])));
    assert_eq!(spec.rate.map(Rate::bits_per_second), Some(100_000_000));
    assert_eq!(
        (spec.offload, spec.isolated, spec.default_name().as_str()),
        (Offload::Csum, true, "x")
    );

    let spec = parse("tap,name=tap0,queues=4,vlan=7");
    assert!(
        matches!(&spec.kind, PortKind::Tap { name, queues: 4, vhost: VhostNet::Auto } if name.as_str() == "tap0")
    );
    assert_eq!(
        (
            spec.name.as_deref(),
            spec.default_name().as_str(),
            spec.vlan
        ),
        (None, "tap0", Some(7))
    );

    let spec = parse(
        "generator,destination=ff:ff:ff:ff:ff:ff,source=02:00:00:00:00:01,size=1514,pps=10,count=3",
    );
    let PortKind::Generator(port) = &spec.kind else {
        panic!("{spec:?}")
    };
    assert_eq!(
        (port.size, port.frames_per_second, port.count),
        (1514, Some(10), Some(3))
    );

    assert_eq!(parse("pcap,path=/tmp/f.pcap").default_name(), "f");
    assert_eq!(parse("af-packet,interface=eth0").default_name(), "eth0");
    assert_eq!(parse("sink").default_name(), "sink");
}

#[test]
fn each_refusal_names_key_value_and_way_out() {
    for (text, expected) in [
        (
            "",
            "the port specification is empty: write KIND[,key=value]..., where the kind is one of vhost-user, tap, af-packet, pcap, sink or generator",
        ),
        (
            "vhostuser,path=/a",
            "unknown port kind \"vhostuser\": use one of vhost-user, tap, af-packet, pcap, sink or generator",
        ),
        (
            "vhost-user",
            "a vhost-user port needs path=: write for example --port vhost-user,path=/run/vm1.sock",
        ),
        (
            "vhost-user,path=",
            "path= is not possible: give a path that is not empty",
        ),
        (
            "vhost-user,path",
            "path needs a value: write path= followed by a path that is not empty",
        ),
        (
            "vhost-user,path=/a,queue=2",
            "a vhost-user port has no key \"queue\": use one of path, mode, queues, group, perm, name, vlan, trunk, isolated, mac, rate, burst, storm, macs or offload",
        ),
        (
            "vhost-user,path=/a,",
            "a vhost-user port has no key \"\": use one of path, mode, queues, group, perm, name, vlan, trunk, isolated, mac, rate, burst, storm, macs or offload",
        ),
        (
            "tap,name=t,path=/a",
            "a tap port has no key \"path\": use one of name, queues, vhost, vlan, trunk, isolated, mac, rate, burst, storm, macs or offload",
        ),
        (
            "vhost-user,path=/a,path=/b",
            "path= is given twice in one port: keep one of them",
        ),
        (
            "vhost-user,path=/a,queues=0",
            "queues=0 is not possible: give a number of queue pairs from 1 to 128",
        ),
        (
            "vhost-user,path=/a,queues=129",
            "queues=129 is not possible: give a number of queue pairs from 1 to 128",
        ),
        (
            "vhost-user,path=/a,queues=+1",
            "queues=+1 is not possible: give a number of queue pairs from 1 to 128",
        ),
        (
            "vhost-user,path=/a,mode=both",
            "mode=both is not possible: give server (the switch listens) or client (the virtual machine listens)",
        ),
        (
            "vhost-user,path=/a,mode=client,perm=0600",
            "perm=0600 has no use with mode=client: the side that listens creates the socket, leave perm= out or use mode=server",
        ),
        (
            "vhost-user,path=/a,perm=0888",
            "perm=0888 is not possible: give mode bits in octal from 0 to 0777, such as 0660",
        ),
        (
            "tap,name=sixteen-bytes-xx",
            "name=sixteen-bytes-xx is not possible: give an interface name of 1 to 15 bytes without space, '/', ':' or '%'",
        ),
        (
            "sink,vlan=4095",
            "vlan=4095 is not possible: give a VLAN from 1 to 4094",
        ),
        (
            "sink,vlan=0",
            "vlan=0 is not possible: give a VLAN from 1 to 4094",
        ),
        (
            "sink,vlan=5,trunk=6-7",
            "vlan=5 and trunk=6-7 exclude each other: vlan= makes an access port, trunk= one with tagged frames, keep one of them",
        ),
        (
            "sink,trunk=9-8",
            "trunk=9-8 is not possible: give VLANs from 1 to 4094 joined by +, with - for ranges, such as 10+20-29",
        ),
        (
            "sink,isolated=yes",
            "isolated=\"yes\" is not possible: isolated takes no value, write it alone to switch it on or leave it out",
        ),
        (
            "sink,mac=01:00:00:00:00:01",
            "mac=01:00:00:00:00:01 is not possible: give a unicast address of six hexadecimal pairs such as 02:00:00:00:00:01",
        ),
        (
            "sink,rate=0",
            "rate=0 is not possible: give bits per second from 1, with k, M or G for thousands, millions or billions, such as 100M",
        ),
        (
            "sink,rate=10m",
            "rate=10m is not possible: give bits per second from 1, with k, M or G for thousands, millions or billions, such as 100M",
        ),
        (
            "sink,offload=on",
            "offload=on is not possible: give off, csum or all",
        ),
        (
            "sink,name=a\nb",
            "name=a\\nb is not possible: give a name of 1 to 64 bytes without spaces or control characters",
        ),
        (
            "generator,size=13",
            "size=13 is not possible: give a frame length in bytes without FCS from 14 to 65535",
        ),
    ] {
        assert_eq!(refusal(text), expected, "{text}");
    }
}

#[test]
fn a_socket_path_may_have_107_bytes() {
    parse(&format!("vhost-user,path=/{}", "a".repeat(106)));
    let long = format!("/{}", "a".repeat(107));
    assert_eq!(
        refusal(&format!("vhost-user,path={long}")),
        format!(
            "path={long} has 108 bytes but a unix socket's path holds at most 107: choose a shorter one, for example below /run"
        )
    );
}

#[test]
fn rates_are_printed_with_the_largest_suffix_that_loses_nothing() {
    for (text, printed) in [
        ("1000", "1k"),
        ("1500k", "1500k"),
        ("2000000k", "2G"),
        ("7", "7"),
        ("18G", "18G"),
    ] {
        assert_eq!(text.parse::<Rate>().unwrap().to_string(), printed);
    }
    assert!("18446744074G".parse::<Rate>().is_err(), "overflow");
}

#[test]
fn it_travels_as_its_text() {
    let spec = parse("tap,name=tap0,queues=2,rate=1G");
    assert_eq!(
        serde_json::to_string(&spec).unwrap(),
        "\"tap,name=tap0,queues=2,rate=1G\""
    );
    let error = serde_json::from_str::<PortSpec>("\"tap,name=tap0,queues=0\"")
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("queues=0 is not possible"), "{error}");
}

fn interface() -> impl Strategy<Value = InterfaceName> {
    "[a-z,=][a-z0-9.,=-]{0,14}".prop_map(|text| text.parse().unwrap())
}

fn unicast() -> impl Strategy<Value = Mac> {
    any::<[u8; 6]>().prop_map(|mut octets| {
        octets[0] = octets[0] & 0xfe | 2;
        Mac(octets)
    })
}

fn kind() -> impl Strategy<Value = PortKind> {
    let server = (
        "/[ -~é]{0,60}",
        1..=MAX_QUEUES,
        proptest::option::of("[a-z0-9,=]{1,8}"),
        0..=0o777u32,
    )
        .prop_map(|(path, queues, group, permissions)| {
            PortKind::VhostUser(VhostUser {
                path: path.into(),
                mode: Mode::Server,
                queues,
                group,
                permissions,
            })
        });
    let client = ("[ -~]{1,107}", 1..=MAX_QUEUES).prop_map(|(path, queues)| {
        let permissions = VhostUser::PERMISSIONS;
        PortKind::VhostUser(VhostUser {
            path: path.into(),
            mode: Mode::Client,
            queues,
            group: None,
            permissions,
        })
    });
    let count = || proptest::option::of(1..=u64::MAX);
    let generator = (any::<[u8; 6]>(), unicast(), 14..=u16::MAX, count(), count()).prop_map(
        |(destination, source, size, frames_per_second, count)| {
            PortKind::Generator(Generator {
                destination: Mac(destination),
                source,
                size,
                frames_per_second,
                count,
            })
        },
    );
    let vhost = prop_oneof![
        Just(VhostNet::Auto),
        Just(VhostNet::On),
        Just(VhostNet::Off)
    ];
    prop_oneof![
        server,
        client,
        (interface(), 1..=MAX_QUEUES, vhost).prop_map(|(name, queues, vhost)| PortKind::Tap {
            name,
            queues,
            vhost
        }),
        "[ -~]{1,300}".prop_map(|path| PortKind::Pcap { path: path.into() }),
        interface().prop_map(|interface| PortKind::AfPacket { interface }),
        Just(PortKind::Sink),
        generator,
    ]
}

fn spec() -> impl Strategy<Value = PortSpec> {
    let range = (1..=4094u16, 1..=4094u16).prop_map(|(a, b)| a.min(b)..=a.max(b));
    let trunk =
        proptest::collection::vec(range, 1..5).prop_map(|ranges| VlanSet::new(ranges).unwrap());
    let vlans = prop_oneof![
        Just((None, None)),
        (1..=4094u16).prop_map(|vlan| (Some(vlan), None)),
        trunk.prop_map(|trunk| (None, Some(trunk))),
    ];
    let rate = proptest::option::of((1..=u64::MAX).prop_map(|rate| Rate::new(rate).unwrap()));
    let storm = prop_oneof![
        Just(Storm::Off),
        (1..=u64::MAX).prop_map(Storm::FramesPerSecond)
    ];
    let offload = prop_oneof![Just(Offload::Off), Just(Offload::Csum), Just(Offload::All)];
    let name = proptest::option::of("[!-~é]{1,32}");
    (
        kind(),
        name,
        vlans,
        any::<bool>(),
        proptest::option::of(unicast()),
        (rate, proptest::option::of(1..=u64::MAX)),
        proptest::option::of(storm),
        proptest::option::of(1..=MAX_MACS),
        offload,
    )
        .prop_map(
            |(kind, name, (vlan, trunk), isolated, mac, (rate, burst), storm, macs, offload)| {
                let name = if matches!(kind, PortKind::Tap { .. }) {
                    None
                } else {
                    name
                };
                PortSpec {
                    kind,
                    name,
                    vlan,
                    trunk,
                    isolated,
                    mac,
                    rate,
                    burst: burst.filter(|_| rate.is_some()),
                    storm,
                    macs,
                    offload,
                }
            },
        )
}

#[test]
fn limits_are_read_and_printed_short() {
    for (text, printed) in [
        (
            "sink,rate=100M,burst=256000,storm=off,macs=8",
            "sink,rate=100M,burst=256k,storm=off,macs=8",
        ),
        ("sink,storm=1000000", "sink,storm=1M"),
        ("sink,storm=1500,rate=1", "sink,rate=1,storm=1500"),
    ] {
        assert_eq!(parse(text).to_string(), printed);
    }
    for wrong in [
        "sink,storm=0",
        "sink,storm=",
        "sink,storm=on",
        "sink,storm=1G",
        "sink,storm=99999999999999999M",
        "sink,macs=0",
        "sink,macs=131073",
        "sink,macs=off",
        "sink,rate=1M,burst=0",
        "sink,rate=1M,burst=-1",
        "sink,burst=1k",
    ] {
        let error = wrong.parse::<PortSpec>().unwrap_err().to_string();
        assert!(
            error.contains("give") && !error.contains('\n'),
            "{wrong}: {error}"
        );
    }
}

#[test]
fn only_virtual_machines_have_a_storm_limit_unless_it_is_given() {
    let limit = |text| parse(text).storm_limit();
    assert_eq!(limit("vhost-user,path=/a"), Some(10_000));
    assert_eq!(limit("vhost-user,path=/a,storm=off"), None);
    assert_eq!(limit("vhost-user,path=/a,storm=5"), Some(5));
    assert_eq!(limit("tap,name=t0"), None);
    assert_eq!(limit("tap,name=t0,storm=1k"), Some(1000));
}

proptest! {
    #[test]
    fn the_printed_text_reads_back_as_the_same_port(spec in spec()) {
        prop_assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec.clone()));
        let json = serde_json::to_string(&spec).unwrap();
        prop_assert_eq!(serde_json::from_str::<PortSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn any_text_is_a_port_or_one_line_of_refusal(text in "(vhost-user|tap|sink|generator|pcap)?(,|=|[a-z]{1,5}|,path=|,name=|,vlan=|,trunk=|,rate=|[0-9+-]{1,4}|\\PC|\n){0,8}") {
        match text.parse::<PortSpec>() {
            Ok(spec) => prop_assert_eq!(spec.to_string().parse::<PortSpec>(), Ok(spec)),
            Err(error) => prop_assert!(!error.to_string().contains('\n')),
        }
    }

    #[test]
    fn a_vlan_set_holds_what_its_ranges_hold(ranges in proptest::collection::vec((1..=60u16, 1..=60u16), 1..8), vlan in 1..=60u16) {
        let ranges: Vec<_> = ranges.into_iter().map(|(a, b)| a.min(b)..=a.max(b)).collect();
        let expected = ranges.iter().any(|range| range.contains(&vlan));
        let set = VlanSet::new(ranges).unwrap();
        prop_assert_eq!(set.contains(vlan), expected);
        prop_assert!(set.ranges().windows(2).all(|pair| pair[0].end() + 1 < *pair[1].start()));
    }
}
