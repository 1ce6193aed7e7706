//! Facts may come from anybody (`--from`), and names of things that are looked at may be anything: whatever they hold, judging ends,
//! and what it prints is text of one line, whose commands run nothing that doctor did not write.

use serde_json::{Value, json};

use super::*;

/// Facts in which most faults are, so that most judges say something.
fn sick() -> Value {
    let machine = |name: &str, pid: Option<i32>, line: &str| {
        json!({
            "name": name, "origin": "hand", "pid": pid, "user": 1000, "groups": [1000], "namespace": 7, "age": 5000,
            "command": line.split_whitespace().collect::<Vec<_>>(), "version": "7.2.0", "descriptor_limit": 40, "descriptor_limit_hard": 40,
            "descriptors": [{"number": 9, "target": "/dev/net/tun", "tap": "tap1"}, {"number": 10, "target": "/dev/tap5"}],
            "sockets": [{"path": "/run/a", "resolved": "/run/a", "is_socket": true, "mode": 384, "owner": 0, "group": 0,
                "folders": [{"path": "/run", "mode": 448, "owner": 0, "group": 0}], "alive": true, "listeners": [4], "connected": false}],
            "passthrough": [{"address": "0000:01:00.0", "present": true, "driver": "igb", "group": 3,
                "others": [{"address": "0000:01:00.1", "present": true, "driver": "igb", "group": 3}]}],
            "huge_paths": {"/huge": 2048},
            "state": "running",
            "virtio": [{"netdev": "t", "mac": "52:54:00:00:00:01", "status": ["DRIVER"], "offered": ["VIRTIO_NET_F_MQ"]}],
            "messages": ["unable to start vhost net: 22: falling back", "vhost lacks feature mask 0x8000 for backend",
                "Migration disabled: vhost-user backend lacks VHOST_USER_PROTOCOL_F_LOG_SHMFD feature.",
                "memory slots limit (8) is less", "5 bad udp checksums in 5 packets", "Failed to connect to '/run/a': Permission denied",
                "asking more queues than supported: 1"],
        })
    };
    let taps = "qemu-system-x86_64 -smp 4 -object memory-backend-file,id=m,size=1G,mem-path=/huge \
        -netdev tap,id=t,ifname=tap1,queues=4 -device virtio-net-pci,netdev=t,mq=on,vectors=4,csum=off,host_mtu=9000 \
        -netdev tap,id=u,ifname=tun2,vhost=on -device virtio-net-pci,netdev=u -netdev tap,id=v,ifname=gone -device e1000,netdev=v";
    let user = "qemu-system-x86_64 -smp 4 -chardev socket,id=c,path=/run/a -netdev vhost-user,id=n,chardev=c,queues=4 \
        -device virtio-net-pci,netdev=n";
    let link = |index: u32, name: &str, more: Value| {
        let mut link = json!({"index": index, "name": name, "mtu": 1500, "up": true, "carrier": true, "addresses": []});
        if let (Some(link), Value::Object(more)) = (link.as_object_mut(), more) {
            link.extend(more);
        }
        link
    };
    let chain = json!({"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"});
    json!({
        "host": {"kvm": {"present": true, "mode": 384, "group": 2, "refused": "no"}, "tun": {}, "vhost_net": {},
            "iommu": true, "huge_pages": [{"node": 0, "size": 2048, "total": 4, "free": 1}], "huge_page_size": 2048},
        "networks": [{
            "id": 7, "entrance": 99, "forwarding": true, "bridges_filtered": true, "strict": ["br0"],
            "links": [
                link(1, "br0", json!({"kind": {"bridge": {"stp": true, "forward_delay": 1500, "nf_call_iptables": true, "vlan_filtering": false}}, "addresses": ["10.0.0.1/24"]})),
                link(2, "tap1", json!({"kind": {"tap": {"multi_queue": true, "queues": 1, "idle_queues": 3, "owner": 5}}, "master": 1, "mtu": 1400, "port": "listening"})),
                link(3, "tun2", json!({"kind": "tun"})),
                link(4, "eth0", json!({"addresses": ["192.0.2.2/24"]})),
                link(5, "mv", json!({"kind": {"macvtap": "vepa"}, "lower": 4})),
            ],
            "routes": [{"destination": "0.0.0.0/0", "link": 4, "gateway": "192.0.2.1", "metric": 0},
                {"destination": "10.0.0.0/25", "link": 4, "gateway": null, "metric": 0}],
            "firewall": [{"chain": chain, "closed": true, "owner": null, "rules": []}],
            "switched_off": {"br0": ["tx-scatter-gather"], "eth0": ["tx-tcp-segmentation"]},
        }],
        "holders": [{"tap": "tap1", "pid": 4, "name": "other", "namespace": 7}],
        "machines": [machine("runs", Some(99), taps), machine("to be", None, taps), machine("user", Some(100), user)],
        "switches": [{"pid": 4, "control": null, "ports": [{"name": "p", "spec": "", "socket": "/run/a", "queues": 1,
            "mac": "52:54:00:00:00:09", "connected": false, "features": 0, "drops": {"spoofed_mac": 3}}]}],
        "unseen": [],
    })
}

/// Every place of a tree.
fn places(value: &Value, here: &str, into: &mut Vec<String>) {
    into.push(here.to_owned());
    match value {
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                places(value, &format!("{here}/{index}"), into);
            }
        }
        Value::Object(object) => {
            for (key, value) in object {
                // RFC 6901.
                let key = key.replace('~', "~0").replace('/', "~1");
                places(value, &format!("{here}/{key}"), into);
            }
        }
        _ => {}
    }
}

fn check(facts: Value) -> usize {
    // What is not even facts is refused when it is read.
    let Ok(facts) = serde_json::from_value::<Facts>(facts) else {
        return 0;
    };
    let found = judge(&facts);
    for finding in &found {
        let machine = finding.machine.as_deref().unwrap_or_default();
        for text in [machine, &finding.subject, &finding.what] {
            assert_eq!(visible(text), text, "{finding:?}");
        }
        for line in &finding.cure {
            assert_eq!(visible(line), *line, "{finding:?}");
            let bare = unquoted(line);
            let harmless = line.starts_with('#') || !bare.contains([';', '`', '&', '|', '(']);
            assert!(harmless, "{line}");
        }
    }
    found.len()
}

/// A line without what stands in quotes.
fn unquoted(line: &str) -> String {
    let mut bare = String::new();
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '\'' => drop(letters.by_ref().find(|it| *it == '\'')),
            other => bare.push(other),
        }
    }
    bare
}

#[test]
fn the_facts_this_is_about_have_most_faults_in_them() {
    let facts: Facts = serde_json::from_value(sick()).unwrap();
    let mut faults: Vec<&str> = judge(&facts).iter().map(|it| it.fault).collect();
    faults.dedup();
    assert!(faults.len() > 25, "{faults:#?}");
    assert_eq!(check(sick()), judge(&facts).len());
}

#[test]
fn no_text_does_more_than_be_printed() {
    let hostile = [
        "",
        "'; reboot $(reboot) `reboot`; '",
        "a\nreboot\n\u{1b}]0;title\u{7}\u{202e}",
        "{\"a\":[",
        "-,,=,,",
    ];
    let mut all = Vec::new();
    places(&sick(), "", &mut all);
    let mut tried = 0;
    for text in hostile {
        let mut everywhere = sick();
        for place in &all {
            let mut facts = sick();
            if let Some(value @ Value::String(_)) = facts.pointer_mut(place) {
                *value = text.into();
                check(facts);
                tried += 1;
            }
            // Names that others refer to, and kinds, would hide most of it.
            let name =
                place.ends_with("/name") || place.contains("/status/") || place.ends_with("/mac");
            if let Some(value @ Value::String(_)) = everywhere.pointer_mut(place).filter(|_| name) {
                *value = text.into();
            }
        }
        check(everywhere);
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn links_of_any_name_are_cured_by_that_name_alone() {
    for text in ["x;reboot", "$(reboot)", "a'b", "a\u{1b}b"] {
        // Wherever the name of the link stands.
        let whole = sick().to_string();
        let quoted = Value::from(text).to_string();
        let inner = &quoted[1..quoted.len() - 1];
        let facts: Value = ["br0", "tap1", "tun2", "eth0"]
            .iter()
            .fold(whole, |whole, name| {
                whole.replace(name, &format!("{inner}{name}"))
            })
            .parse()
            .unwrap();
        assert!(check(facts) > 25);
    }
}

#[test]
fn no_number_is_too_large() {
    let mut all = Vec::new();
    places(&sick(), "", &mut all);
    let mut tried = 0;
    for number in [0, 65_535, u64::from(u32::MAX), u64::MAX] {
        for place in &all {
            let mut facts = sick();
            if let Some(value @ Value::Number(_)) = facts.pointer_mut(place) {
                *value = number.into();
                check(facts);
                tried += 1;
            }
            let mut facts = sick();
            if let Some(value @ Value::String(_)) = facts.pointer_mut(place)
                && let Some(text) = value
                    .as_str()
                    .filter(|it| it.contains(|c: char| c.is_ascii_digit()))
            {
                let digits = |c: char| c.is_ascii_digit();
                let first = text.find(digits).unwrap_or(0);
                let rest = text[first..].trim_start_matches(digits);
                *value = format!("{}{number}{rest}", &text[..first]).into();
                check(facts);
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
}

#[test]
fn facts_that_nest_without_end_are_refused() {
    let path = std::env::temp_dir().join(format!("ringway-facts-{}", std::process::id()));
    // What is unknown is skipped; a rule's expressions are kept.
    let mut facts = sick();
    facts["networks"][0]["firewall"][0]["rules"] =
        json!([{"chain": "a", "handle": 1, "expr": ["deep"]}]);
    let nested = facts.to_string().replace("\"deep\"", &"[".repeat(1 << 20));
    std::fs::write(&path, nested).unwrap();
    let deep = Facts::load(&path).unwrap_err().to_string();
    std::fs::write(&path, "{\"machines\":[{\"origin\":\"\u{1b}[2J\"}]}").unwrap();
    let odd = Facts::load(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(deep.contains("recursion limit"), "{deep}");
    assert_eq!(visible(&odd), odd);
    let endless = Facts::load("/dev/zero".as_ref()).unwrap_err().to_string();
    assert!(endless.contains("longer than"), "{endless}");
}
