//! The structure of the project: which crate may use which, where unsafe code may stand, how long a file gets, what is linked.
//!
//! Every rule is a function from plain data to complaints. The tests at the end show each rule failing on something made up;
//! those at the beginning apply it to the project.

#![forbid(unsafe_code)]

#[path = "structure/licences.rs"]
mod licences;
#[path = "structure/metadata.rs"]
mod metadata;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use licences::Deny;
use metadata::{Package, metadata};
use ringway_tests::lab::checkout;

/// Who may use whom, as docs/ARCHITECTURE.md draws it: crate, crates it uses, further crates its tests use.
const LAYERS: &[(&str, &[&str], &[&str])] = &[
    ("ringway-wire", &[], &[]),
    ("ringway-api", &[], &[]),
    ("ringway-host", &[], &[]),
    ("ringway-mem", &[], &[]),
    ("ringway-ring", &["mem"], &[]),
    ("ringway-vhost", &["mem", "ring"], &[]),
    ("ringway-port", &["wire", "mem", "ring", "vhost"], &[]),
    // Tests of the switch drive it from outside: through rings in memory of their own, the front-end's end of a socket, and taps.
    (
        "ringway-switch",
        &["wire", "port", "api"],
        &["mem", "ring", "vhost", "host"],
    ),
    ("ringway-service", &["wire"], &[]),
    ("ringway-network", &["api"], &[]),
    ("ringway-vmm", &["api"], &[]),
    ("ringway-doctor", &["api", "host", "vmm"], &[]),
    // It plays guests, too: the driver's side of rings.
    (
        "ringway-measure",
        &["api", "mem", "ring", "vhost", "vmm", "wire"],
        &[],
    ),
    // The only place where control meets.
    (
        "ringway-daemon",
        &["api", "host", "network", "service", "wire"],
        &[],
    ),
    (
        "ringway",
        &[
            "api", "daemon", "doctor", "host", "measure", "switch", "vmm", "wire",
        ],
        &[],
    ),
    // Whole-program tests meet the program from outside; to talk to it they may use what its peers would.
    (
        "ringway-tests",
        &["api", "mem", "ring", "vhost", "wire"],
        &["host"],
    ),
    // The bench plays guests, too, and starts processes as the tests do.
    (
        "ringway-bench",
        &["measure", "mem", "ring", "vhost", "wire", "tests"],
        &["api", "switch"],
    ),
];

/// Crates with unsafe code, each with SAFETY notes: mapped memory, the rings in it, and ioctls that nothing safe wraps.
const UNSAFE: [&str; 5] = [
    "ringway-mem",
    "ringway-ring",
    "ringway-host",
    "ringway-vhost",
    "ringway-port",
];

/// Longest source file in lines; a longer one has more than one subject.
const SOURCE_LINES: usize = 500;
/// Longest file of tests.
const TEST_LINES: usize = 700;

// Put together here, so that this file does not complain about itself.
const STUBS: [&str; 3] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[ig", "nore"),
];

#[test]
fn crates_use_only_the_crates_below_them() -> Result<()> {
    let metadata = metadata()?;
    none(layering(&metadata.members(), LAYERS))
}

#[test]
fn unsafe_code_stands_only_where_it_has_to() -> Result<()> {
    let mut complaints = Vec::new();
    for package in metadata()?.members() {
        for root in package.roots() {
            complaints.extend(forbids_unsafe(
                &package.name,
                root,
                &fs::read_to_string(root)?,
            ));
        }
        let folder = package.manifest_path.with_file_name("src");
        let sources = rust_files(&folder)?;
        let texts: Vec<&str> = sources.iter().map(|(_, text)| text.as_str()).collect();
        complaints.extend(needs_its_exemption(&package.name, &texts));
        complaints.extend(inherits_lints(
            &package.manifest_path,
            &fs::read_to_string(&package.manifest_path)?,
        ));
    }
    none(complaints)
}

#[test]
fn files_have_one_subject_and_no_stubs() -> Result<()> {
    let mut complaints = Vec::new();
    for folder in ["crates", "tests", "bench", "fuzz"] {
        for (path, text) in rust_files(&checkout().join(folder))? {
            complaints.extend(length(&path, &text));
            complaints.extend(stubs(&path, &text));
        }
    }
    none(complaints)
}

#[test]
fn everything_linked_has_a_licence_and_a_source_that_are_allowed() -> Result<()> {
    let rules: Deny = toml::from_str(&fs::read_to_string(checkout().join("deny.toml"))?)?;
    none(
        metadata()?
            .packages
            .iter()
            .flat_map(|package| rules.judge(package))
            .collect(),
    )
}

#[test]
fn the_tests_that_keep_promises_exist() -> Result<()> {
    let mut promised = Vec::new();
    for document in ["docs/SECURITY.md", "docs/PROTOCOL.md"] {
        let names = promised_tests(&fs::read_to_string(checkout().join(document))?);
        promised.extend(names.into_iter().map(|name| (document, name)));
    }
    let mut sources = String::new();
    for folder in ["crates", "tests"] {
        for (_, text) in rust_files(&checkout().join(folder))? {
            sources.push_str(&text);
        }
    }
    assert!(promised.len() > 100, "promises without tests: {promised:?}");
    none(
        promised
            .into_iter()
            .filter(|(_, name)| !sources.contains(&format!("fn {name}(")))
            .map(|(document, name)| format!("{document}: no test {name}"))
            .collect(),
    )
}

#[test]
fn documents_point_at_files_that_exist() -> Result<()> {
    let mut documents = Vec::new();
    files(checkout(), "md", &mut documents)?;
    let mut complaints = Vec::new();
    for path in documents {
        let folder = path.parent().unwrap_or(checkout());
        for target in links(&fs::read_to_string(&path)?) {
            if !folder.join(&target).exists() {
                complaints.push(format!("{}: no file {target}", path.display()));
            }
        }
    }
    none(complaints)
}

fn none(complaints: Vec<String>) -> Result<()> {
    if complaints.is_empty() {
        return Ok(());
    }
    bail!("{}", complaints.join("\n"))
}

/// Edges between crates of the workspace that `layers` does not list, and crates it does not know.
fn layering(packages: &[&Package], layers: &[(&str, &[&str], &[&str])]) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages {
        let Some((_, uses, tests_use)) = layers.iter().find(|(name, ..)| *name == package.name)
        else {
            complaints.push(format!("{} is not in the list of layers", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.path.is_some()) {
            let short = dependency.name.trim_start_matches("ringway-");
            let in_tests = dependency.kind.as_deref() == Some("dev");
            let listed = uses.contains(&short) || in_tests && tests_use.contains(&short);
            if !listed {
                let user = if in_tests {
                    format!("tests of {}", package.name)
                } else {
                    package.name.clone()
                };
                complaints.push(format!("{user} may not use {}", dependency.name));
            }
        }
    }
    complaints
}

fn forbids_unsafe(package: &str, root: &Path, text: &str) -> Option<String> {
    let forbidden = text
        .lines()
        .any(|line| line.trim() == "#![forbid(unsafe_code)]");
    (!forbidden && !UNSAFE.contains(&package))
        .then(|| format!("{}: no #![forbid(unsafe_code)]", root.display()))
}

fn needs_its_exemption(package: &str, sources: &[&str]) -> Option<String> {
    let is_unsafe = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"]
            .iter()
            .any(|word| code.contains(word))
    };
    let used = sources.iter().any(|text| text.lines().any(is_unsafe));
    (!used && UNSAFE.contains(&package))
        .then(|| format!("{package} has no unsafe code: let it forbid it"))
}

fn inherits_lints(manifest: &Path, text: &str) -> Option<String> {
    let table: BTreeMap<String, toml::Value> = toml::from_str(text).unwrap_or_default();
    let inherits = table
        .get("lints")
        .and_then(|lints| lints.get("workspace")?.as_bool());
    (inherits != Some(true)).then(|| {
        format!(
            "{}: no `[lints] workspace = true`, which wants SAFETY notes",
            manifest.display()
        )
    })
}

fn length(path: &Path, text: &str) -> Option<String> {
    let of_tests = path.components().any(|part| {
        let part = part.as_os_str();
        part == "tests" || part == "tests.rs"
    });
    let limit = if of_tests { TEST_LINES } else { SOURCE_LINES };
    let lines = text.lines().count();
    (lines > limit).then(|| {
        format!(
            "{}: {lines} lines, more than {limit}: split it by subject",
            path.display()
        )
    })
}

fn stubs(path: &Path, text: &str) -> Vec<String> {
    let found = text.lines().enumerate().filter_map(|(number, line)| {
        let stub = STUBS.iter().find(|stub| line.contains(**stub))?;
        Some(format!("{}:{}: {stub}", path.display(), number + 1))
    });
    found.collect()
}

/// Names of tests in the last column of the tables of promises.
fn promised_tests(document: &str) -> Vec<String> {
    let column = |line: &str| {
        line.trim_end_matches('|')
            .rsplit('|')
            .next()
            .map(str::to_owned)
    };
    let cells = document.lines().filter(|line| line.starts_with("| "));
    cells
        .filter_map(column)
        .flat_map(|cell| {
            let quoted = cell.split('`').skip(1).step_by(2);
            quoted.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// Targets of Markdown links that are files of the project.
fn links(text: &str) -> Vec<String> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next());
    targets
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .map(str::to_owned)
        .collect()
}

fn rust_files(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut paths = Vec::new();
    files(folder, "rs", &mut paths)?;
    let read = |path: PathBuf| Ok((path.clone(), fs::read_to_string(&path)?));
    paths.into_iter().map(read).collect()
}

/// Files with this ending under `folder`, without what is built or hidden.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !["target", "corpus", "artifacts"].contains(&&*name) && !name.starts_with('.') {
                files(&path, ending, found)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == ending)
        {
            found.push(path);
        }
    }
    Ok(())
}

mod each_rule_can_fail {
    use super::metadata::Dependency;
    use super::*;

    pub(super) fn package(name: &str, license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            name: name.into(),
            id: name.into(),
            license: license.map(Into::into),
            source: source.map(Into::into),
            manifest_path: PathBuf::new(),
            dependencies: Vec::new(),
            targets: Vec::new(),
        }
    }

    fn edge(name: &str, kind: Option<&str>) -> Dependency {
        Dependency {
            name: name.into(),
            kind: kind.map(Into::into),
            path: Some(PathBuf::new()),
        }
    }

    #[test]
    fn an_edge_upwards_is_found_unless_only_tests_have_it() {
        let layers: &[(&str, &[&str], &[&str])] = &[("ringway-ring", &["mem"], &["switch"])];
        let mut ring = package("ringway-ring", None, None);
        ring.dependencies = vec![
            edge("ringway-mem", None),
            edge("ringway-switch", Some("dev")),
        ];
        assert!(layering(&[&ring], layers).is_empty());
        ring.dependencies.push(edge("ringway-switch", None));
        ring.dependencies.push(edge("ringway-api", Some("dev")));
        assert_eq!(
            layering(&[&ring, &package("ringway-new", None, None)], layers),
            [
                "ringway-ring may not use ringway-switch",
                "tests of ringway-ring may not use ringway-api",
                "ringway-new is not in the list of layers"
            ]
        );
    }

    #[test]
    fn a_crate_that_permits_unsafe_code_is_found() {
        let root = Path::new("lib.rs");
        let bare = "//! #![forbid(unsafe_code)] would be nice\n";
        assert!(forbids_unsafe("ringway-api", root, bare).is_some());
        assert!(forbids_unsafe("ringway-mem", root, bare).is_none());
        assert!(forbids_unsafe("ringway-api", root, "#![forbid(unsafe_code)]\n").is_none());
        assert!(needs_its_exemption("ringway-mem", &["// unsafe {"]).is_some());
        assert!(needs_its_exemption("ringway-mem", &["", "x = unsafe { 1 };"]).is_none());
        assert!(inherits_lints(root, "[lints]\nworkspace = false").is_some());
        assert!(inherits_lints(root, "[lints]\nworkspace = true").is_none());
    }

    #[test]
    fn long_files_and_stubs_are_found() {
        let lines = |count| "\n".repeat(count);
        let (source, test) = (
            Path::new("crates/a/src/b.rs"),
            Path::new("crates/a/tests/b.rs"),
        );
        assert!(length(source, &lines(SOURCE_LINES)).is_none());
        assert!(length(source, &lines(SOURCE_LINES + 1)).is_some());
        assert!(length(test, &lines(TEST_LINES)).is_none());
        assert!(length(test, &lines(TEST_LINES + 1)).is_some());
        assert!(length(Path::new("a/tests.rs"), &lines(TEST_LINES)).is_none());
        for stub in STUBS {
            assert_eq!(stubs(source, &format!("fn a() {{\n    {stub}")).len(), 1);
        }
    }

    #[test]
    fn links_are_read_from_documents() {
        let text = "[a](b.md#c) [d](https://e) [f](#g) ![h](i/j.svg)";
        assert_eq!(links(text), ["b.md", "i/j.svg"]);
    }
}
