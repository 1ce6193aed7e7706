//! Licences and sources of what is linked, by the rules of deny.toml.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::metadata::Package;

/// The parts of deny.toml that are checked here.
#[derive(Deserialize)]
pub(crate) struct Deny {
    licenses: Licenses,
    sources: Sources,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

impl Deny {
    pub(crate) fn judge(&self, package: &Package) -> Vec<String> {
        let mut complaints = Vec::new();
        let name = &package.name;
        if let Some(source) = &package.source {
            let from = |registry: &String| source == &format!("registry+{registry}");
            if !self.sources.allow_registry.iter().any(from) {
                complaints.push(format!("{name} comes from {source}"));
            }
        }
        let exception = self
            .licenses
            .exceptions
            .iter()
            .filter(|exception| exception.name == *name);
        let allowed: Vec<&str> = exception
            .flat_map(|exception| &exception.allow)
            .chain(&self.licenses.allow)
            .map(String::as_str)
            .collect();
        match &package.license {
            None => complaints.push(format!("{name} names no licence")),
            Some(text) => match satisfied(text, &allowed) {
                Ok(true) => {}
                Ok(false) => {
                    complaints.push(format!("{name}: {text} is not allowed by deny.toml"));
                }
                Err(error) => complaints.push(format!("{name}: {error}")),
            },
        }
        complaints
    }
}

/// Whether an SPDX expression can be met with the allowed licences; `/` is an old way to write OR.
fn satisfied(text: &str, allowed: &[&str]) -> Result<bool> {
    let spaced = text
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let met = any_of(&mut words, allowed).with_context(|| format!("licence {text:?}"))?;
    match words.next() {
        None => Ok(met),
        Some(word) => bail!("licence {text:?}: {word:?} was not expected"),
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn any_of(words: &mut Words<'_>, allowed: &[&str]) -> Result<bool> {
    let mut met = all_of(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        met |= all_of(words, allowed)?;
    }
    Ok(met)
}

fn all_of(words: &mut Words<'_>, allowed: &[&str]) -> Result<bool> {
    let mut met = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        met &= one(words, allowed)?;
    }
    Ok(met)
}

fn one(words: &mut Words<'_>, allowed: &[&str]) -> Result<bool> {
    match words.next() {
        Some("(") => {
            let met = any_of(words, allowed)?;
            if words.next() != Some(")") {
                bail!("a bracket is not closed");
            }
            Ok(met)
        }
        Some(name) if !["AND", "OR", "WITH", ")"].contains(&name) => {
            let mut name = name.to_owned();
            if words.next_if_eq(&"WITH").is_some() {
                name = format!("{name} WITH {}", words.next().unwrap_or_default());
            }
            Ok(allowed.contains(&name.as_str()))
        }
        other => bail!("a licence was expected, not {other:?}"),
    }
}

mod the_rule_can_fail {
    use super::super::each_rule_can_fail::package;
    use super::*;

    #[test]
    fn licences_and_sources_that_are_not_allowed_are_found() {
        let allowed = ["MIT", "Apache-2.0"];
        for good in [
            "MIT",
            "GPL-3.0 OR MIT",
            "MIT/Apache-2.0",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR MIT",
        ] {
            assert!(satisfied(good, &allowed).unwrap(), "{good}");
        }
        for bad in [
            "GPL-3.0",
            "MIT AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "MIT AND (GPL-3.0 OR Zlib)",
        ] {
            assert!(!satisfied(bad, &allowed).unwrap(), "{bad}");
        }
        for nonsense in ["", "MIT OR", "(MIT", "MIT MIT", "AND"] {
            assert!(satisfied(nonsense, &allowed).is_err(), "{nonsense}");
        }

        let rules: Deny = toml::from_str(
            "licenses = { allow = ['MIT'], exceptions = [{ crate = 'b', allow = ['Zlib'] }] }\n\
             sources = { allow-registry = ['https://here'] }",
        )
        .unwrap();
        let judge = |name, license, source| rules.judge(&package(name, license, source));
        assert!(judge("a", Some("MIT"), Some("registry+https://here")).is_empty());
        assert!(judge("b", Some("Zlib"), None).is_empty());
        assert_eq!(judge("a", Some("Zlib"), None).len(), 1);
        assert_eq!(judge("a", None, Some("git+https://there")).len(), 2);
    }
}
