//! A daemon that dies or is refused in the middle of a change, on a real host: what is there afterwards is what was there before, or
//! what was asked for.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use ringway_tests::{Daemon, Lab, Need, Netns, picture};

const NO_DEFAULT: &str = "default_network = false";
const NEEDS: [Need; 4] = [
    Need::Root,
    Need::Namespaces,
    Need::Program("nft"),
    Need::Program("socat"),
];

const FIRST: &str = "
[[network]]
name = 'lan'
subnet = '10.66.1.0/24'
[[network.port]]
name = 'web'
address = '10.66.1.10'
[[network.port]]
name = 'db'
[[network.lease]]
mac = '52:54:00:00:00:99'
address = '10.66.1.99'
[[network.forward]]
ports = '8080'
to = '10.66.1.10'
to_port = 80
";

/// Another port, another forward, another lease, and another network.
const SECOND: &str = "
[[network]]
name = 'lan'
subnet = '10.66.1.0/24'
[[network.port]]
name = 'web'
address = '10.66.1.10'
rate = '10M'
[[network.port]]
name = 'mail'
[[network.lease]]
mac = '52:54:00:00:00:98'
address = '10.66.1.98'
[[network.forward]]
ports = '9000-9010'
to = '10.66.1.10'
[[network]]
name = 'quiet'
kind = 'isolated'
subnet = '10.66.2.0/24'
mtu = 9000
[[network.port]]
name = 'a'
";

/// Lines of `ringway`, each a change.
fn changes(lab: &Lab) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (name, text) in [("first.toml", FIRST), ("second.toml", SECOND)] {
        fs::write(lab.path(name), text)?;
        lines.push(format!("net apply {}", lab.path(name).display()));
    }
    lines.insert(
        0,
        "net create free --kind routed --subnet 10.66.9.0/24".into(),
    );
    lines.insert(2, "port set lan web --rate 5M".into());
    lines.push("net delete lan --force".into());
    lines.push("net delete quiet --force".into());
    lines.push("net delete free".into());
    Ok(lines)
}

#[test]
fn a_daemon_that_dies_anywhere_in_a_change_leaves_before_or_after() -> Result<()> {
    let Some(lab) = Lab::with("faults-die", &NEEDS)? else {
        return Ok(());
    };
    let begun = Instant::now();
    let changes = changes(&lab)?;
    // As it is where nobody dies.
    let mut pictures = Vec::new();
    {
        let netns = Netns::new()?;
        let daemon = Daemon::configured(&lab, &netns, NO_DEFAULT)?;
        pictures.push(picture::all(&netns, &daemon)?);
        for change in &changes {
            daemon.ringway(change)?;
            pictures.push(picture::all(&netns, &daemon)?);
        }
    }
    for folder in ["run", "state"] {
        fs::remove_dir_all(lab.path(folder))?;
    }

    let netns = Netns::new()?;
    let mut daemon = Daemon::configured(&lab, &netns, NO_DEFAULT)?;
    let (mut deaths, mut slowest) = (0, Duration::ZERO);
    for (change, pictures) in changes.iter().zip(pictures.windows(2)) {
        let mut place = 0;
        loop {
            let start = Instant::now();
            daemon.start_again_with(&[("RINGWAY_DIE", format!("change:{place}"))])?;
            slowest = slowest.max(start.elapsed());
            let found = picture::all(&netns, &daemon)?;
            if place > 0 && picture::same(&pictures[1], &found).is_ok() {
                break;
            }
            picture::same(&pictures[0], &found)
                .with_context(|| format!("{change}: before place {place}"))?;
            ensure!(
                daemon.ringway(change).is_err(),
                "{change}: it did not die at place {place}"
            );
            place += 1;
        }
        ensure!(place > 4, "{change}: {place}");
        deaths += place;
    }
    lab.report(&format!(
        "{deaths} deaths in {} changes, the slowest start {slowest:.0?}, in all {:.0?}",
        changes.len(),
        begun.elapsed()
    ));
    Ok(())
}

#[test]
fn a_daemon_that_dies_while_it_sets_right_is_followed_by_one_that_does() -> Result<()> {
    let Some(lab) = Lab::with("faults-start", &NEEDS)? else {
        return Ok(());
    };
    let changes = changes(&lab)?;
    let netns = Netns::new()?;
    let mut daemon = Daemon::configured(&lab, &netns, NO_DEFAULT)?;
    daemon.ringway(&changes[1])?;
    let before = picture::all(&netns, &daemon)?;
    // In the middle of the second document, which is taken back at the start.
    daemon.start_again_with(&[("RINGWAY_DIE", "change:12".to_owned())])?;
    ensure!(daemon.ringway(&changes[3]).is_err(), "it did not die");
    let mut deaths = 0;
    while daemon
        .start_again_with(&[("RINGWAY_DIE", format!("start:{deaths}"))])
        .is_err()
    {
        deaths += 1;
        ensure!(deaths < 100, "it dies of itself");
    }
    picture::same(&before, &picture::all(&netns, &daemon)?)?;
    ensure!(deaths > 5, "{deaths}");
    lab.report(&format!("{deaths} deaths"));
    Ok(())
}

#[test]
fn a_step_that_is_refused_takes_the_others_back() -> Result<()> {
    let Some(lab) = Lab::with("faults-refused", &NEEDS)? else {
        return Ok(());
    };
    let changes = changes(&lab)?;
    let netns = Netns::new()?;
    // An nft that refuses when told to.
    let flag = lab.path("refuse");
    let folder = lab.path("bin");
    fs::create_dir(&folder)?;
    let program = folder.join("nft");
    let path = std::env::var("PATH").unwrap_or_default();
    fs::write(
        &program,
        format!(
            "#!/bin/sh\n[ ! -e {} ] || {{ echo 'Error: no' >&2; exit 1; }}\nPATH={path} exec nft \"$@\"\n",
            flag.display()
        ),
    )?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let mut daemon = Daemon::configured(&lab, &netns, NO_DEFAULT)?;
    daemon.start_again_with(&[("PATH", format!("{}:{path}", folder.display()))])?;
    daemon.ringway(&changes[1])?;
    let before = picture::all(&netns, &daemon)?;
    let apply = &changes[3];
    let refused = |daemon: &Daemon<'_>, line: &str, says: &[&str]| -> Result<()> {
        let error = daemon.ringway(line).err().context("it was not refused")?;
        let error = format!("{error:#}");
        for part in says {
            ensure!(error.contains(part), "{part}: {error}");
        }
        picture::same(&before, &picture::all(&netns, daemon)?).context(error)
    };

    fs::write(&flag, "")?;
    refused(&daemon, apply, &["firewall", "nft refused: Error: no"])?;
    fs::remove_file(&flag)?;
    // A name that is somebody's.
    netns.sh("ip tuntap add rw-quiet mode tap")?;
    let error = daemon.ringway(apply).err().context("it was taken")?;
    ensure!(
        format!("{error:#}").contains("rw-quiet that is not ours"),
        "{error:#}"
    );
    netns.sh("ip link delete rw-quiet")?;
    picture::same(&before, &picture::all(&netns, &daemon)?)?;
    // A file where a port's directory would be: ports of the switch come late.
    fs::write(lab.path("run").join("quiet"), "")?;
    let error = daemon
        .ringway(apply)
        .err()
        .context("a file was no obstacle")?;
    ensure!(
        format!("{error:#}").contains("cannot make the directory"),
        "{error:#}"
    );
    fs::remove_file(lab.path("run").join("quiet"))?;
    picture::same(&before, &picture::all(&netns, &daemon)?)?;
    // A bridge that is not there.
    refused(
        &daemon,
        "net create office --kind bridge --bridge br9",
        &["br9"],
    )?;
    // The last step of all: somebody else answers DNS there.
    netns.sh("ip address add 10.66.2.1/32 dev lo")?;
    let server = netns.keep("dns", "exec socat -u UDP-RECV:53,bind=10.66.2.1 -")?;
    netns.sh("until ss -Hanu 'src 10.66.2.1:53' | grep -q .; do sleep 0.02; done")?;
    let error = daemon.ringway(apply).err().context("port 53 was free")?;
    ensure!(
        format!("{error:#}").contains("another DNS server"),
        "{error:#}"
    );
    drop(server);
    netns.sh("ip address delete 10.66.2.1/32 dev lo")?;
    picture::same(&before, &picture::all(&netns, &daemon)?)?;

    daemon.ringway(apply)?;
    let steps = daemon.json(apply)?;
    ensure!(steps["steps"] == serde_json::json!([]), "twice: {steps}");
    Ok(())
}
