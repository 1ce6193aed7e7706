//! The steps from one state to another, in an order in which each finds what it needs; undone, they go back the same way.

use std::collections::BTreeMap;
use std::fmt;

use ringway_api::v1::Name;

use crate::error::plural;
use crate::things::{Firewall, Link, LinkKind, Service, SwitchPort, Things};

/// Something that was one way and will be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<T> {
    /// As it was; `None` = not there.
    pub old: Option<T>,
    /// As it will be; `None` = not there.
    pub new: Option<T>,
}

impl<T> Change<T> {
    fn back(self) -> Self {
        Self {
            old: self.new,
            new: self.old,
        }
    }

    fn verb(&self) -> &'static str {
        match (&self.old, &self.new) {
            (None, _) => "create",
            (_, None) => "remove",
            _ => "change",
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An interface of the host.
    Link(String, Box<Change<Link>>),
    /// A port of the switch.
    Port(String, Box<Change<SwitchPort>>),
    /// The firewall, as a whole.
    Firewall(Box<Change<Firewall>>),
    /// What answers in a network.
    Service(Name, Box<Change<Service>>),
}

impl Step {
    /// The step that takes this one back.
    pub fn back(self) -> Self {
        match self {
            Self::Link(name, change) => Self::Link(name, Box::new(change.back())),
            Self::Port(name, change) => Self::Port(name, Box::new(change.back())),
            Self::Firewall(change) => Self::Firewall(Box::new(change.back())),
            Self::Service(name, change) => Self::Service(name, Box::new(change.back())),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name, change) => {
                let kind = change.new.as_ref().or(change.old.as_ref());
                let what = kind.map_or("interface", |link| link.kind.label());
                write!(f, "{} {what} {name}", change.verb())?;
                let link = change.new.as_ref();
                if let Some(address) = link.and_then(|link| link.address) {
                    write!(f, " with address {address}")?;
                }
                if let Some(bridge) = link.and_then(|link| link.bridge.as_ref()) {
                    write!(f, " on bridge {bridge}")?;
                }
                Ok(())
            }
            Self::Port(name, change) => {
                write!(f, "{} port {name} of the switch", change.verb())?;
                change
                    .new
                    .as_ref()
                    .map_or(Ok(()), |port| write!(f, ": {}", port.spec))
            }
            Self::Firewall(change) => {
                let count = change.new.as_ref().map_or(0, |f| f.networks.len());
                write!(
                    f,
                    "{} the firewall table for {count} network{}",
                    change.verb(),
                    plural(count)
                )
            }
            Self::Service(name, change) => match change.verb() {
                "create" => write!(f, "start answering in network {name}"),
                "remove" => write!(f, "stop answering in network {name}"),
                _ => write!(f, "change the answers in network {name}"),
            },
        }
    }
}

/// Steps in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
}

impl Plan {
    /// From `old` to `new`: what goes is taken down from the outside in, what comes is built from the inside out. The firewall
    /// changes between the two, so that no new network is ever open.
    pub fn between(old: &Things, new: &Things) -> Self {
        let services = changes(&old.services, &new.services);
        let ports = changes(&old.switch_ports, &new.switch_ports);
        // A bridge comes before its ports and goes after everything else: until the gateway has its address elsewhere again.
        let mut links = changes(&old.links, &new.links);
        links.sort_by_key(|(_, change)| !is_bridge(change));
        let (bridges, links_gone): (Vec<_>, Vec<_>) = links
            .iter()
            .filter(|(_, change)| change.new.is_none())
            .cloned()
            .partition(|(_, change)| is_bridge(change));
        let mut steps = Vec::new();
        let goes = |change: &Change<Service>| change.new.is_none();
        steps.extend(
            services
                .iter()
                .filter(|(_, c)| goes(c))
                .cloned()
                .map(|(n, c)| Step::Service(n, Box::new(c))),
        );
        steps.extend(
            ports
                .iter()
                .filter(|(_, c)| c.new.is_none())
                .cloned()
                .map(|(n, c)| Step::Port(n, Box::new(c))),
        );
        steps.extend(
            links_gone
                .into_iter()
                .map(|(n, c)| Step::Link(n, Box::new(c))),
        );
        if old.firewall != new.firewall {
            steps.push(Step::Firewall(Box::new(Change {
                old: old.firewall.clone(),
                new: new.firewall.clone(),
            })));
        }
        steps.extend(
            links
                .into_iter()
                .filter(|(_, c)| c.new.is_some())
                .map(|(n, c)| Step::Link(n, Box::new(c))),
        );
        steps.extend(
            ports
                .into_iter()
                .filter(|(_, c)| c.new.is_some())
                .map(|(n, c)| Step::Port(n, Box::new(c))),
        );
        steps.extend(
            services
                .into_iter()
                .filter(|(_, c)| !goes(c))
                .map(|(n, c)| Step::Service(n, Box::new(c))),
        );
        steps.extend(bridges.into_iter().map(|(n, c)| Step::Link(n, Box::new(c))));
        Self { steps }
    }
}

fn is_bridge(change: &Change<Link>) -> bool {
    let link = change.new.as_ref().or(change.old.as_ref());
    link.is_some_and(|link| matches!(link.kind, LinkKind::Bridge(_)))
}

fn changes<K: Ord + Clone, V: PartialEq + Clone>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> Vec<(K, Change<V>)> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let keys = gone.chain(new.keys());
    keys.filter(|key| old.get(*key) != new.get(*key))
        .map(|key| {
            (
                key.clone(),
                Change {
                    old: old.get(key).cloned(),
                    new: new.get(key).cloned(),
                },
            )
        })
        .collect()
}
