//! Switches of ours: found by their command lines, asked over their control sockets.

use std::{fs, path::Path, time::Duration};

use ringway_api::{
    control::Client,
    port_spec::{Mode, PortKind, PortSpec},
};

use super::sockets::resolve;
use crate::facts::{Switch, SwitchPort};

/// How long a switch may take for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// All that run, and what could not be seen of them.
pub(super) fn switches(unseen: &mut Vec<String>) -> Vec<Switch> {
    let found = super::processes().into_iter().filter_map(|pid| {
        let words = super::words(pid);
        is_ours(&words, "switch").then_some((pid, words))
    });
    found
        .map(|(pid, words)| {
            let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
            let control = after(&words, "--control").next();
            let mut switch = Switch {
                pid,
                control: control.map(|path| resolve(&folder, Path::new(path))),
                ports: Vec::new(),
            };
            let asked = switch
                .control
                .as_deref()
                .map(|control| ask(control, &folder));
            switch.ports = match asked {
                Some(Ok(ports)) => ports,
                other => {
                    if let Some(Err(error)) = other {
                        unseen.push(format!("the ports of switch {pid}: {error}"));
                    }
                    // What it was started with is known all the same.
                    let specs = after(&words, "--port").filter_map(|text| text.parse().ok());
                    specs.map(|spec| port(&spec, &folder)).collect()
                }
            };
            switch
        })
        .collect()
}

/// Processes of daemons of ours.
pub(super) fn daemons() -> Vec<i32> {
    let mut found = super::processes();
    found.retain(|pid| is_ours(&super::words(*pid), "daemon"));
    found.sort_unstable();
    found
}

fn is_ours(words: &[String], wanted: &str) -> bool {
    let [program, verb, ..] = words else {
        return false;
    };
    let name = Path::new(program).file_name();
    verb == wanted && name.is_some_and(|name| name.to_string_lossy().starts_with("ringway"))
}

/// What follows an option, each time.
fn after<'a>(words: &'a [String], option: &'a str) -> impl Iterator<Item = &'a str> {
    words.iter().enumerate().filter_map(move |(index, word)| {
        match word.strip_prefix(option)?.strip_prefix('=') {
            Some(value) => Some(value),
            None if word == option => words.get(index + 1).map(String::as_str),
            None => None,
        }
    })
}

fn ask(
    control: &Path,
    folder: &Path,
) -> Result<Vec<SwitchPort>, ringway_api::control::ClientError> {
    let mut client = Client::connect(control, PATIENCE)?;
    let statistics = client.statistics(None)?;
    let ports = client.ports()?.into_iter().map(|info| {
        let counted = statistics.ports.iter().find(|it| it.name == info.name);
        SwitchPort {
            name: info.name.clone(),
            connected: Some(info.connected),
            features: Some(info.features),
            drops: counted.map(|it| it.drops.clone()).unwrap_or_default(),
            faults: counted.map(|it| it.faults.clone()).unwrap_or_default(),
            ..port(&info.spec, folder)
        }
    });
    Ok(ports.collect())
}

fn port(spec: &PortSpec, folder: &Path) -> SwitchPort {
    let mut port = SwitchPort {
        name: spec.name.clone().unwrap_or_default(),
        spec: spec.to_string(),
        mac: spec.mac.map(|mac| mac.to_string()),
        ..SwitchPort::default()
    };
    match &spec.kind {
        PortKind::VhostUser(user) => {
            port.socket = Some(resolve(folder, &user.path));
            port.connects = user.mode == Mode::Client;
            port.queues = user.queues;
        }
        PortKind::Tap { queues, .. } => port.queues = *queues,
        _ => port.queues = 1,
    }
    port
}
