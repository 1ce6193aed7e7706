//! Chains and rules as `nft --json` prints them, as far as it matters here. What is written otherwise is passed over.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;

/// A chain.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Chain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    /// Only base chains have one.
    pub(super) hook: Option<String>,
    pub(super) policy: Option<String>,
}

/// A rule of a chain.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Rule {
    pub(super) chain: String,
    pub(super) handle: u64,
    #[serde(default)]
    pub(super) comment: String,
    #[serde(default)]
    expr: Vec<Value>,
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

impl Chain {
    /// Whether it sees IPv4 packets that cross the host or are for it, and is not ours.
    pub(super) fn judges(&self) -> bool {
        matches!(self.hook.as_deref(), Some("forward" | "input"))
            && matches!(self.family.as_str(), "ip" | "inet")
            && format!("{} {}", self.family, self.table) != ringway_network::firewall::TABLE
    }

    pub(super) fn same_table(&self, other: &Self) -> bool {
        (&self.family, &self.table) == (&other.family, &other.table)
    }
}

impl Rule {
    /// Whether it drops or rejects whatever comes to it.
    pub(super) fn refuses_all(&self) -> bool {
        let is = |value: &Value, what: &str| value.get(what).is_some();
        let last = self.expr.last();
        last.is_some_and(|verdict| is(verdict, "drop") || is(verdict, "reject"))
            && self.expr[..self.expr.len() - 1]
                .iter()
                .all(|value| is(value, "counter") || is(value, "log"))
    }

    /// Whether it names the interface, as that of `key`, and does not refuse; what a zone or a chain of the owner's then does is
    /// the owner's will.
    pub(super) fn lets_pass(&self, key: &str, interface: &str) -> bool {
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

    /// Which of `iifname` and `oifname` it asks for.
    pub(super) fn side(&self) -> Option<&'static str> {
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
pub(super) fn chains(json: &str) -> Vec<Chain> {
    objects(json, "chain")
}

/// Every rule in what nft printed, in order.
pub(super) fn rules(json: &str) -> Vec<Rule> {
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
