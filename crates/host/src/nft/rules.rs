//! Chains that judge what passes, and rules, as `nft --json` prints them, as far as it matters here. What is written otherwise is passed over.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::NftError;

/// Chains in which a firewall's owner has its own rules, by the base chain that leads there.
const OWNERS: [(&str, &str); 3] = [
    ("FORWARD", "DOCKER-USER"),
    ("FORWARD", "ufw-user-forward"),
    ("INPUT", "ufw-user-input"),
];

/// A chain that judges what crosses the host or is for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    /// The chain.
    pub chain: Chain,
    /// Whether it refuses what none of its rules accepts.
    pub closed: bool,
    /// Where its owner has rules, if not in the chain itself.
    pub owner: Option<Chain>,
    /// Of both.
    pub rules: Vec<Rule>,
    /// Of the chains of its table to which rules may lead.
    #[serde(default)]
    pub further: Vec<Rule>,
}

impl Judge {
    /// Whether it lets pass what comes from an interface (`iifname`), or goes to one (`oifname`).
    pub fn lets_pass(&self, key: &str, interface: &str) -> bool {
        !self.closed || self.rules.iter().any(|rule| rule.lets_pass(key, interface))
    }

    /// The same, and what is accepted by its address or in a chain that it may lead to counts as well: for who does not want to be
    /// wrong when saying that it is dropped.
    pub fn may_pass(&self, key: &str, interface: &str) -> bool {
        let all = || self.rules.iter().chain(&self.further);
        let passes = |rule: &Rule| {
            rule.lets_pass(key, interface)
                || rule.accepts_unseen()
                || (key == "oifname" && rule.accepts_answers())
        };
        !self.closed || all().any(passes)
    }

    /// Where rules that let more pass belong.
    pub fn place(&self) -> &Chain {
        self.owner.as_ref().unwrap_or(&self.chain)
    }
}

/// Those of all tables but this one, as they are now.
pub fn judges(ours: &str) -> Result<Vec<Judge>, NftError> {
    let all = chains(&super::list_json(&["chains"])?);
    let mut judges = Vec::new();
    for chain in all.iter().filter(|chain| chain.judges(ours)) {
        let mut rules = list(chain)?;
        let closed =
            chain.policy.as_deref() == Some("drop") || rules.last().is_some_and(Rule::refuses_all);
        let owner = OWNERS
            .iter()
            .filter(|(base, _)| *base == chain.name)
            .find_map(|(_, name)| {
                all.iter()
                    .find(|other| other.name == *name && chain.same_table(other))
            });
        if let Some(owner) = owner {
            rules.extend(list(owner)?);
        }
        // Its zones name interfaces in chains of their own.
        if chain.table == "firewalld" {
            for zones in all
                .iter()
                .filter(|c| c.same_table(chain) && c.name.ends_with("_ZONES"))
            {
                rules.extend(list(zones)?);
            }
        }
        judges.push(Judge {
            chain: chain.clone(),
            closed,
            owner: owner.cloned(),
            rules,
            further: Vec::new(),
        });
    }
    Ok(judges)
}

/// Those of all tables but this one, with all that they may lead to.
pub fn judges_in_full(ours: &str) -> Result<Vec<Judge>, NftError> {
    let mut judges = judges(ours)?;
    for judge in judges.iter_mut().filter(|judge| judge.closed) {
        let Chain {
            family,
            table,
            name,
            ..
        } = &judge.chain;
        judge.further = rules(&super::list_json(&["table", family, table])?);
        judge.further.retain(|rule| rule.chain != *name);
    }
    Ok(judges)
}

fn list(chain: &Chain) -> Result<Vec<Rule>, NftError> {
    let Chain {
        family,
        table,
        name,
        ..
    } = chain;
    Ok(rules(&super::list_json(&["chain", family, table, name])?))
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chain {
    /// `ip`, `inet`...
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets come to it; only base chains have one.
    pub hook: Option<String>,
    /// What becomes of packets that no rule of a base chain decides about.
    pub policy: Option<String>,
}

/// A rule of a chain.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Its chain.
    pub chain: String,
    /// Its number, by which it is deleted.
    pub handle: u64,
    /// What somebody wrote to it.
    #[serde(default)]
    pub comment: String,
    #[serde(default)]
    expr: Vec<Value>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

impl Chain {
    /// Whether it sees IPv4 packets that cross the host or are for it, and is not of this table.
    fn judges(&self, ours: &str) -> bool {
        matches!(self.hook.as_deref(), Some("forward" | "input"))
            && matches!(self.family.as_str(), "ip" | "inet")
            && format!("{} {}", self.family, self.table) != ours
    }

    /// Whether another chain is in its table.
    pub fn same_table(&self, other: &Self) -> bool {
        (&self.family, &self.table) == (&other.family, &other.table)
    }
}

impl Rule {
    /// Whether it drops or rejects whatever comes to it.
    pub fn refuses_all(&self) -> bool {
        let is = |value: &Value, what: &str| value.get(what).is_some();
        let last = self.expr.last();
        last.is_some_and(|verdict| is(verdict, "drop") || is(verdict, "reject"))
            && self.expr[..self.expr.len() - 1]
                .iter()
                .all(|value| is(value, "counter") || is(value, "log"))
    }

    /// Whether it names the interface, as that of `key`, and does not refuse; what a zone or a chain of the owner's then does is
    /// the owner's will.
    pub fn lets_pass(&self, key: &str, interface: &str) -> bool {
        let last = self.expr.last();
        let verdict = |name| last.is_some_and(|value| value.get(name).is_some());
        (verdict("accept") || verdict("goto") || verdict("jump"))
            && self
                .matched(key)
                .any(|named| match named.strip_suffix('*') {
                    Some(beginning) => interface.starts_with(beginning),
                    None => interface == named,
                })
    }

    /// Whether it accepts by source or destination, or anything, whatever interface that comes by.
    fn accepts_unseen(&self) -> bool {
        let by_address = |value: &Value| {
            let field = &value["match"]["left"]["payload"]["field"];
            field == "saddr" || field == "daddr"
        };
        let matches = || {
            self.expr
                .iter()
                .filter(|value| value.get("match").is_some())
        };
        self.accepts()
            && self.side().is_none()
            && (matches().next().is_none() || matches().any(by_address))
    }

    /// Whether it accepts what belongs to connections that are there.
    fn accepts_answers(&self) -> bool {
        let of_state = |value: &Value| value["match"]["left"]["ct"]["key"] == "state";
        self.accepts()
            && self
                .expr
                .iter()
                .any(|value| of_state(value) && value.to_string().contains("established"))
    }

    fn accepts(&self) -> bool {
        self.expr
            .last()
            .is_some_and(|value| value.get("accept").is_some())
    }

    /// Which of `iifname` and `oifname` it asks for.
    pub fn side(&self) -> Option<&'static str> {
        ["iifname", "oifname"]
            .into_iter()
            .find(|key| self.matched(key).next().is_some())
    }

    fn matched<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.expr
            .iter()
            .filter_map(|value| value.get("match"))
            .filter(move |value| value["op"] == "==" && value["left"]["meta"]["key"] == key)
            .flat_map(|value| match &value["right"] {
                Value::String(name) => vec![name.as_str()],
                set => set["set"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect(),
            })
    }
}

/// Every chain in what nft printed.
pub fn chains(json: &str) -> Vec<Chain> {
    objects(json, "chain")
}

/// Every rule in what nft printed, in order.
pub fn rules(json: &str) -> Vec<Rule> {
    objects(json, "rule")
}

fn objects<T: for<'de> Deserialize<'de>>(json: &str, what: &str) -> Vec<T> {
    let printed: Value = serde_json::from_str(json).unwrap_or_default();
    let all = printed["nftables"].as_array().into_iter().flatten();
    all.filter_map(|object| T::deserialize(object.get(what)?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(expr: &str) -> Rule {
        let text = format!(
            r#"{{"nftables": [{{"metainfo": {{}}}}, {{"rule": {{"family": "inet", "table": "t", "chain": "c", "handle": 3, "expr": {expr}}}}}]}}"#
        );
        rules(&text).remove(0)
    }

    #[test]
    fn a_rule_that_refuses_everything_is_known_from_one_that_asks() {
        assert!(rule(r#"[{"counter": {}}, {"drop": null}]"#).refuses_all());
        assert!(rule(r#"[{"reject": {"type": "icmpx"}}]"#).refuses_all());
        let asks = r#"[{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"drop": null}]"#;
        assert!(!rule(asks).refuses_all());
        assert!(!rule(r#"[{"accept": null}]"#).refuses_all());
        assert!(!rule("[]").refuses_all());
    }

    #[test]
    fn interfaces_are_named_alone_in_sets_and_by_their_beginning() {
        let named = |op: &str, right: &str, verdict: &str| {
            rule(&format!(
                r#"[{{"match": {{"op": "{op}", "left": {{"meta": {{"key": "iifname"}}}}, "right": {right}}}}}, {{"{verdict}": null}}]"#
            ))
        };
        for right in [r#""rw-lan""#, r#""rw-*""#, r#"{"set": ["eth0", "rw-lan"]}"#] {
            let rule = named("==", right, "accept");
            assert!(rule.lets_pass("iifname", "rw-lan"), "{right}");
            assert!(!rule.lets_pass("oifname", "rw-lan"), "{right}");
            assert!(!rule.lets_pass("iifname", "eth1"), "{right}");
        }
        assert!(!named("!=", r#""rw-lan""#, "accept").lets_pass("iifname", "rw-lan"));
        assert!(!named("==", r#""rw-lan""#, "drop").lets_pass("iifname", "rw-lan"));
    }
}
