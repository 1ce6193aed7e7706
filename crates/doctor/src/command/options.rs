//! What follows an option: `kind,key=value,...` or a JSON object.

use std::collections::BTreeMap;

use serde_json::Value;

/// Keys and values; the first word may stand without a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    kind: String,
    values: BTreeMap<String, String>,
}

impl Options {
    /// Reads either form. A comma within a value is written twice.
    pub fn parse(text: &str) -> Self {
        if text.starts_with('{')
            && let Ok(Value::Object(object)) = serde_json::from_str(text)
        {
            let mut values = BTreeMap::new();
            for (key, value) in &object {
                flatten(key, value, &mut values);
            }
            let kind = ["type", "driver", "qom-type"]
                .iter()
                .find_map(|key| values.get(*key));
            return Self {
                kind: kind.cloned().unwrap_or_default(),
                values,
            };
        }
        let mut options = Self::default();
        for (index, part) in split(text).into_iter().enumerate() {
            match part.split_once('=') {
                Some((key, value)) => {
                    if index == 0 && ["type", "driver", "qom-type"].contains(&key) {
                        options.kind = value.to_owned();
                    }
                    options.values.insert(key.to_owned(), value.to_owned());
                }
                None if index == 0 => options.kind = part,
                // `server` is short for `server=on`, `nowait` for `wait=off`.
                None => {
                    let (key, value) = match part.strip_prefix("no") {
                        Some(key) if ["wait", "delay"].contains(&key) => (key.to_owned(), "off"),
                        _ => (part, "on"),
                    };
                    options.values.insert(key, value.to_owned());
                }
            }
        }
        options
    }

    /// The word without a key, or the type.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The same with another kind.
    pub fn with_kind(&self, kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            values: self.values.clone(),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The value of a key that is on or off.
    pub fn is_on(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            Some(value) => ["on", "yes", "true", "y"].contains(&value),
            None => default,
        }
    }
}

pub(super) fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = parts.len() - 1;
        match letter {
            ',' if letters.next_if_eq(&',').is_some() => parts[last].push(','),
            ',' => parts.push(String::new()),
            letter => parts[last].push(letter),
        }
    }
    parts
}

/// `{"addr": {"type": "unix"}}` becomes `addr.type=unix`; what stands alone in a list of objects with `str` is joined by colons, as
/// in `fds`.
fn flatten(key: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let text = match value {
        Value::Object(object) => {
            for (inner, value) in object {
                flatten(&format!("{key}.{inner}"), value, into);
            }
            return;
        }
        Value::Array(list) => {
            let words = list.iter().map(|it| match it {
                Value::Object(object) => object.get("str").map(word).unwrap_or_default(),
                other => word(other),
            });
            words.collect::<Vec<_>>().join(":")
        }
        other => word(other),
    };
    into.insert(key.to_owned(), text);
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "on".into(),
        Value::Bool(false) => "off".into(),
        other => other.to_string(),
    }
}
