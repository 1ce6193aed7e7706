//! `ringway daemon` and the commands that ask it, as people and scripts use them.

use std::fs;

use anyhow::{Result, ensure};
use ringway_tests::{Daemon, Lab, Need, Netns};
use rustix::process::Signal;
use serde_json::json;

const NEEDS: &[Need] = &[Need::Namespaces, Need::Root];
const NO_DEFAULT: &str = "default_network = false";

#[test]
fn a_network_is_created_listed_shown_and_deleted() -> Result<()> {
    let Some(lab) = Lab::with("daemon-net", NEEDS)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    let daemon = Daemon::configured(&lab, &netns, NO_DEFAULT)?;
    let socket = daemon.socket();
    let refused = |line: &str, parts: &[&str]| -> Result<()> {
        let words: Vec<_> = line.split(' ').chain(["--socket", &socket]).collect();
        lab.attempt(&words).refused()?.says(1, parts)
    };
    ensure!(daemon.json("net list")? == json!([]));
    let before = netns.sh("ip -o link | wc -l")?;

    let printed = daemon.ringway("net create lan --subnet 10.66.0.0/24")?;
    ensure!(printed.contains("ringway port create lan"), "{printed}");
    let networks = daemon.json("net list")?;
    ensure!(networks.as_array().is_some_and(|list| list.len() == 1));
    for (key, value) in [
        ("name", json!("lan")),
        ("kind", json!("nat")),
        ("subnet", json!("10.66.0.0/24")),
        ("gateway", json!("10.66.0.1")),
        ("ports", json!(0)),
    ] {
        ensure!(networks[0][key] == value, "{key}: {networks}");
    }
    ensure!(daemon.json("net show lan")? == networks[0]);
    let table = daemon.ringway("net list")?;
    ensure!(
        table.starts_with("NAME") && table.contains("10.66.0.0/24"),
        "{table}"
    );
    refused("net create lan", &["lan"])?;

    let port = daemon.json("port create lan web --address 10.66.0.9")?;
    ensure!(
        port["address"] == "10.66.0.9" && port["tap"].is_null(),
        "{port}"
    );
    ensure!(
        port["socket"].is_string() && port["mac"].is_string(),
        "{port}"
    );
    let printed = daemon.ringway("port create lan db")?;
    ensure!(printed.contains("qemu-system-x86_64 -M q35 "), "{printed}");
    ensure!(daemon.json("port list lan")?.as_array().map(Vec::len) == Some(2));
    let changed = daemon.json("port set lan web --rate 10M")?;
    ensure!(changed["rate"] == "10M" && changed["address"] == "10.66.0.9");

    refused("net delete lan", &["lan", "--force"])?;
    daemon.ringway("net delete lan --force")?;
    refused("net delete lan", &["lan"])?;
    refused("net show lan", &["lan"])?;
    ensure!(daemon.json("port list")? == json!([]));
    ensure!(
        netns.sh("ip -o link | wc -l")? == before,
        "an interface stayed"
    );
    daemon.end_by(Signal::TERM)
}

#[test]
fn a_file_is_applied_once_and_told_before() -> Result<()> {
    let Some(lab) = Lab::with("daemon-apply", NEEDS)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    let daemon = Daemon::configured(&lab, &netns, NO_DEFAULT)?;
    let file = lab.path("lan.toml").display().to_string();
    fs::write(
        &file,
        "[[network]]\nname = 'lan'\nsubnet = '10.66.0.0/24'\n[[network.port]]\nname = 'web'\n",
    )?;
    let planned = daemon.json(&format!("net apply {file} --dry-run"))?;
    ensure!(planned["done"] == false, "{planned}");
    ensure!(daemon.json("net list")? == json!([]));
    let done = daemon.json(&format!("net apply {file}"))?;
    ensure!(
        done["steps"] == planned["steps"] && done["done"] == true,
        "{done}"
    );
    ensure!(daemon.json("port show lan web")?["name"] == "web");
    let again = daemon.json(&format!("net apply {file}"))?;
    ensure!(again["steps"] == json!([]), "{again}");

    fs::write(
        &file,
        "[[network]]\nname = 'lan'\nsubnett = '10.66.0.0/24'\n",
    )?;
    lab.attempt(&["net", "apply", &file, "--socket", &daemon.socket()])
        .refused()?
        .says(1, &[&file, "line 3", "`subnett`"])?;
    daemon.end_by(Signal::INT)
}

#[test]
fn others_than_root_look_if_the_group_lets_them_and_change_nothing() -> Result<()> {
    let Some(lab) = Lab::with("daemon-peers", NEEDS)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    let asked = |daemon: &Daemon<'_>, words: &[&str]| {
        let socket = daemon.socket();
        let words = [words, &["--socket", &socket]].concat();
        lab.attempt(&words).unprivileged().refused()
    };
    let daemon = Daemon::configured(&lab, &netns, NO_DEFAULT)?;
    asked(&daemon, &["net", "list"])?.says(1, &["no right to open", &daemon.socket()])?;
    daemon.end_by(Signal::TERM)?;

    let daemon = Daemon::configured(&lab, &netns, &format!("{NO_DEFAULT}\ngroup = '65534'"))?;
    asked(&daemon, &["net", "create", "lan"])?.says(1, &["user 65534", "only root"])?;
    asked(&daemon, &["net", "delete", "lan"])?.says(1, &["user 65534", "only root"])?;
    // It was looked for.
    let looked = asked(&daemon, &["net", "show", "lan"])?;
    looked.says(1, &["lan"])?;
    ensure!(!looked.sentence.contains("only root"), "{looked:?}");
    ensure!(daemon.json("net list")? == json!([]));
    daemon.end_by(Signal::TERM)
}

#[test]
fn a_socket_has_one_daemon_and_a_dead_ones_is_taken_over() -> Result<()> {
    let Some(lab) = Lab::with("daemon-socket", NEEDS)? else {
        return Ok(());
    };
    let netns = Netns::new()?;
    let missing = lab.path("api.sock").display().to_string();
    let list = ["net", "list", "--socket", &missing];
    let way_out = [&missing[..], "`ringway daemon`", "--socket"];
    lab.attempt(&list).refused()?.says(1, &way_out)?;

    let mut daemon = Daemon::configured(&lab, &netns, NO_DEFAULT)?;
    let (run, state) = (lab.path("run2"), lab.path("state2"));
    lab.attempt(&[
        "daemon",
        "--socket",
        &daemon.socket(),
        "--run",
        &run.display().to_string(),
        "--state",
        &state.display().to_string(),
    ])
    .within(&netns)
    .refused()?
    .says(1, &[&daemon.socket(), "in use"])?;
    ensure!(!run.exists() && !state.exists(), "it did not end at once");

    daemon.kill();
    lab.attempt(&list).refused()?.says(1, &way_out)?;
    daemon.start_again()?;
    ensure!(daemon.json("net list")? == json!([]));
    daemon.end_by(Signal::TERM)
}
