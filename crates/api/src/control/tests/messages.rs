use super::{super::*, spec};

#[test]
fn requests_and_replies_have_their_json() {
    for (request, text) in [
        (
            Request::AddPort {
                spec: spec("tap,name=t,queues=2"),
                passed: Passed::TapQueues,
            },
            r#"{"type":"add-port","spec":"tap,name=t,queues=2","passed":"tap-queues"}"#,
        ),
        (
            Request::ChangePort {
                name: "a".into(),
                change: PortChange {
                    vlan: Setting::Set(5),
                    mac: Setting::Clear,
                    ..PortChange::default()
                },
            },
            r#"{"type":"change-port","name":"a","change":{"vlan":5,"mac":null}}"#,
        ),
        (
            Request::RemovePort { name: "a".into() },
            r#"{"type":"remove-port","name":"a"}"#,
        ),
        (Request::ListPorts, r#"{"type":"list-ports"}"#),
        (
            Request::Statistics { port: None },
            r#"{"type":"statistics"}"#,
        ),
        (
            Request::ListAddresses {
                port: Some("a".into()),
            },
            r#"{"type":"list-addresses","port":"a"}"#,
        ),
        (
            Request::Capture { port: "a".into() },
            r#"{"type":"capture","port":"a"}"#,
        ),
        (Request::Shutdown, r#"{"type":"shutdown"}"#),
        (
            Request::TakeOver {
                oldest: 1,
                newest: 2,
            },
            r#"{"type":"take-over","oldest":1,"newest":2}"#,
        ),
    ] {
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
    }
    let added = serde_json::from_str::<Request>(r#"{"type":"add-port","spec":"sink"}"#).unwrap();
    assert_eq!(
        added,
        Request::AddPort {
            spec: spec("sink"),
            passed: Passed::Nothing
        }
    );
    for wrong in [
        r#"{"type":"change-port","name":"a","change":{"vlam":5}}"#,
        r#"{"type":"add-port","spec":"sink,vlan=0"}"#,
        r#"{"type":"hello","version":1}"#,
    ] {
        assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
    }
    assert_eq!(
        serde_json::to_string(&Hello { version: 1 }).unwrap(),
        r#"{"type":"hello","version":1}"#
    );
    assert_eq!(
        serde_json::from_str::<Hello>(r#"{"type":"hello","version":2,"more":3}"#).unwrap(),
        Hello { version: 2 }
    );
    assert!(serde_json::from_str::<Hello>(r#"{"type":"ok","version":2}"#).is_err());
}

#[test]
fn a_change_keeps_the_rules_of_a_specification() {
    let port = spec("sink,vlan=5,rate=1M");
    let trunk = Setting::Set("7-9".parse().unwrap());
    let change = PortChange {
        trunk: trunk.clone(),
        ..PortChange::default()
    };
    assert!(matches!(
        change.apply(&port),
        Err(SpecError::VlanAndTrunk { vlan: 5, .. })
    ));
    let change = PortChange {
        trunk,
        vlan: Setting::Clear,
        isolated: Some(true),
        ..PortChange::default()
    };
    assert_eq!(
        change.apply(&port).unwrap(),
        spec("sink,trunk=7-9,isolated,rate=1M")
    );
    let change = PortChange {
        vlan: Setting::Set(4095),
        ..PortChange::default()
    };
    assert!(matches!(
        change.apply(&port),
        Err(SpecError::BadValue { key: "vlan", .. })
    ));
    let change = PortChange {
        mac: Setting::Set(Mac([0xff; 6])),
        ..PortChange::default()
    };
    assert!(matches!(
        change.apply(&port),
        Err(SpecError::BadValue { key: "mac", .. })
    ));
}

#[test]
fn descriptors_must_fit_the_port() {
    let fits = |text: &str, passed: Passed, count| {
        passed
            .check(&spec(text).kind, count)
            .map_err(|error| error.to_string())
    };
    assert_eq!(fits("vhost-user,path=/a", Passed::Listener, 1), Ok(()));
    assert_eq!(
        fits("vhost-user,path=/a,mode=client", Passed::Connection, 1),
        Ok(())
    );
    assert_eq!(fits("tap,name=t,queues=3", Passed::TapQueues, 3), Ok(()));
    assert_eq!(fits("pcap,path=/f", Passed::File, 1), Ok(()));
    assert_eq!(fits("sink", Passed::Nothing, 0), Ok(()));
    assert_eq!(
        fits("tap,name=t,queues=3", Passed::TapQueues, 2).unwrap_err(),
        "2 file descriptors came with a tap port that needs 3: send exactly as many"
    );
    assert!(fits("sink", Passed::Nothing, 1).is_err());
    let error = fits("vhost-user,path=/a,mode=client", Passed::Listener, 1).unwrap_err();
    assert!(
        error.starts_with("a vhost-user mode=client port cannot be given a listening socket: "),
        "{error}"
    );
}
