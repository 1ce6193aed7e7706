//! What may be asked, and how.

use std::net::Ipv4Addr;

use ringway_api::{
    control::Setting,
    v1::{
        CaptureRequest, Code, Document, Failure, PortPatch, StaticLease, client::ClientError,
        openapi,
    },
};
use serde_json::json;

use super::{super::routes::OPENAPI, Served, double::name};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

#[tokio::test]
async fn each_request_of_the_client_is_the_operation_it_names() {
    let served = Served::new("each");
    let client = served.client();
    let asked = tokio::task::spawn_blocking(move || -> Result<(), ClientError> {
        let (lan, web) = (name("lan"), name("web"));
        let patch = PortPatch {
            rate: Setting::Clear,
            ..PortPatch::default()
        };
        let bound = StaticLease {
            mac: Some("02:00:00:00:00:01".parse().unwrap()),
            client_id: None,
            address: ADDRESS,
            name: None,
        };
        client.info()?;
        client.networks()?;
        client.create_network(&serde_json::from_value(json!({ "name": "lan" })).unwrap())?;
        client.network(&lan)?;
        client.delete_network(&lan, true)?;
        client.apply(&Document::default(), true)?;
        client.ports(None)?;
        client.ports(Some(&lan))?;
        client.create_port(
            &lan,
            &serde_json::from_value(json!({ "name": "web" })).unwrap(),
        )?;
        client.port(&lan, &web)?;
        client.patch_port(&lan, &web, &patch)?;
        client.delete_port(&lan, &web)?;
        client.leases(Some(&lan))?;
        client.resolve("web.lan ringway&x=1")?;
        client.bind(&lan, &bound)?;
        client.unbind(&lan, ADDRESS)?;
        client.forwards(None)?;
        let forward = json!({ "ports": "80-81", "to": ADDRESS });
        client.add_forward(&lan, &serde_json::from_value(forward).unwrap())?;
        client.delete_forward(&lan, 7)?;
        client.stats()?;
        client.addresses(Some("lan/web"))?;
        let gone = client.network(&name("gone"));
        assert!(
            matches!(gone, Err(ClientError::Refused(failure)) if failure.code == Code::NotFound)
        );
        Ok(())
    });
    asked.await.unwrap().unwrap();
    assert_eq!(
        served.daemon.asked(),
        [
            "info",
            "networks",
            "create_network lan",
            "network lan",
            "delete_network lan true",
            "apply 0 true",
            "ports None",
            r#"ports Some(Name("lan"))"#,
            "create_port lan web",
            "port lan web",
            "patch_port lan web Clear",
            "delete_port lan web",
            r#"leases Some(Name("lan"))"#,
            "resolve web.lan ringway&x=1",
            "bind lan 10.0.0.9",
            "unbind lan 10.0.0.9",
            "forwards None",
            "add_forward lan 80-81",
            "delete_forward lan 7",
            "stats",
            r#"addresses Some("lan/web")"#,
            "network gone",
        ]
    );
}

/// What was refused: its status and the failure.
fn refused(answer: &str) -> (u16, Failure) {
    let (head, body) = answer.split_once("\r\n\r\n").expect(answer);
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).expect(answer))
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_in_a_sentence() {
    let served = Served::new("bad");
    let long = "x".repeat(2 << 20);
    let cases: &[(&str, &str, u16, Code, &str)] = &[
        ("GET /", "", 404, Code::NotFound, "there is no GET /:"),
        ("GET /v2/networks", "", 404, Code::NotFound, "/v2/networks"),
        ("PUT /v1/networks", "{}", 405, Code::Invalid, "takes no PUT"),
        ("POST /v1/info", "{}", 405, Code::Invalid, "takes no POST"),
        ("POST /v1/networks", "", 400, Code::Invalid, "EOF"),
        ("POST /v1/networks", "{", 400, Code::Invalid, "line 1"),
        ("POST /v1/networks", "[]", 400, Code::Invalid, "the body"),
        ("POST /v1/networks", "\u{0}", 400, Code::Invalid, "the body"),
        (
            "POST /v1/networks",
            r#"{"name":"a b"}"#,
            400,
            Code::Invalid,
            "is no name",
        ),
        (
            "POST /v1/networks",
            r#"{"name":"a","x":1}"#,
            400,
            Code::Invalid,
            "unknown field `x`",
        ),
        (
            "POST /v1/networks",
            &long,
            413,
            Code::Invalid,
            "longer than 1048576 bytes",
        ),
        (
            "POST /v1/networks/a/ports",
            r#"{"name":"w","rate":"9x"}"#,
            400,
            Code::Invalid,
            "bits per second",
        ),
        ("GET /v1/networks/a_b", "", 400, Code::Invalid, "is no name"),
        ("GET /v1/networks/%ff", "", 400, Code::Invalid, "the path"),
        (
            "DELETE /v1/networks/a?force=perhaps",
            "",
            400,
            Code::Invalid,
            "the query",
        ),
        (
            "DELETE /v1/networks/a?forse=true",
            "",
            400,
            Code::Invalid,
            "unknown field `forse`",
        ),
        (
            "GET /v1/leases/resolve",
            "",
            400,
            Code::Invalid,
            "missing field `name`",
        ),
        (
            "DELETE /v1/networks/a/leases/10.0.0",
            "",
            400,
            Code::Invalid,
            "the path",
        ),
        (
            "DELETE /v1/networks/a/forwards/-1",
            "",
            400,
            Code::Invalid,
            "the path",
        ),
        (
            "GET /v1/networks/gone",
            "",
            404,
            Code::NotFound,
            "no network gone",
        ),
    ];
    for (request, body, status, code, part) in cases {
        let length = body.len();
        let bytes = format!("{request} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}");
        let (found, failure) = refused(&served.raw(bytes.as_bytes()).await);
        assert_eq!(
            (found, failure.code),
            (*status, *code),
            "{request}: {failure}"
        );
        assert!(failure.message.contains(part), "{request}: {failure}");
    }
    assert_eq!(served.daemon.asked(), ["network gone"]);
}

#[tokio::test]
async fn a_capture_streams_until_either_side_has_enough() {
    use std::io::{Read, Write};
    use std::time::{Duration, Instant};
    let mut served = Served::new("capture");
    let request = |port: &str| CaptureRequest { port: port.into() };
    let begin = |port: &str| {
        let (client, request) = (served.client(), request(port));
        async {
            tokio::task::spawn_blocking(move || client.capture(&request))
                .await
                .unwrap()
        }
    };
    let refused = begin("gone").await;
    assert!(
        matches!(&refused, Err(ClientError::Refused(failure)) if failure.code == Code::NotFound),
        "{refused:?}"
    );

    let mut stream = begin("web").await.unwrap();
    let mut written = served.daemon.captured();
    written.write_all(b"frames").unwrap();
    let (begun, mut stream) = tokio::task::spawn_blocking(move || {
        let mut begun = stream.begin;
        while begun.len() < 6 {
            let mut more = [0; 6];
            let count = stream.rest.read(&mut more).unwrap();
            assert_ne!(count, 0);
            begun.extend_from_slice(&more[..count]);
        }
        (begun, stream.rest)
    })
    .await
    .unwrap();
    assert_eq!(begun, b"frames");
    drop(written);
    let rest = tokio::task::spawn_blocking(move || stream.read(&mut [0; 6]).unwrap());
    assert_eq!(rest.await.unwrap(), 0, "the port's end is the stream's end");

    // A client that leaves closes the pipe, though nothing is written to it.
    drop(begin("web").await.unwrap());
    let written = served.daemon.captured();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut fds = [PollFd::new(&written, PollFlags::empty())];
        let now = rustix::event::Timespec::default();
        if poll(&mut fds, Some(&now)).unwrap() > 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the pipe is still read");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    // The server's end is the stream's end, too.
    let mut stream = begin("web").await.unwrap();
    let _written = served.daemon.captured();
    served.end().await;
    let rest = tokio::task::spawn_blocking(move || stream.rest.read(&mut [0; 6]).unwrap());
    assert_eq!(rest.await.unwrap(), 0);
}

#[test]
fn the_document_that_is_checked_in_is_the_one_the_types_make() {
    assert!(
        OPENAPI == openapi::text(),
        "docs/openapi.json is old: cargo run -p ringway-api --features openapi --example openapi > docs/openapi.json"
    );
}

#[tokio::test]
async fn what_the_document_describes_is_there() {
    let served = Served::new("document");
    for (method, path) in openapi::requests() {
        let path = path
            .replace("{network}", "lan")
            .replace("{port}", "web")
            .replace("{address}", "10.0.0.9")
            .replace("{id}", "1");
        let method = method.to_uppercase();
        let answer = served
            .raw(format!("{method} {path} HTTP/1.0\r\n\r\n").as_bytes())
            .await;
        let status = answer.split(' ').nth(1).unwrap();
        // Without its body a request is not understood, but it was somebody's.
        assert!(
            ["200", "204", "400"].contains(&status),
            "{method} {path}: {answer}"
        );
    }
    let answer = served.raw(b"GET /v1/openapi.json HTTP/1.0\r\n\r\n").await;
    assert!(
        answer
            .to_lowercase()
            .contains("content-type: application/json")
    );
    assert!(answer.ends_with(OPENAPI));
}
