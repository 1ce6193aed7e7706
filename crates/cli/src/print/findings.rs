//! What `doctor` found, for people.

use std::fmt::Write as _;

use ringway_doctor::{Facts, Finding, visible};

/// Each finding: what, why, and the cure; then the command line with all of them cured, where there is one.
pub(crate) fn findings(facts: &Facts, findings: &[Finding], at_once: Option<&str>) -> String {
    let mut text = String::new();
    for finding in findings {
        let place = finding.machine.as_deref().unwrap_or("host");
        let _ = writeln!(text, "{place}: {} [{}]", finding.what, finding.fault);
        let _ = writeln!(text, "  why it matters: {}\n  cure:", finding.why);
        for line in &finding.cure {
            let _ = writeln!(text, "    {line}");
        }
        text.push('\n');
    }
    if let Some(line) = at_once {
        let _ = writeln!(text, "All of its command line at once:\n    {line}\n");
    }
    let machines = match facts.machines.len() {
        0 => "the host; no machine runs".to_owned(),
        1 => format!("the host and {}", visible(&facts.machines[0].name)),
        count => format!("the host and {count} machines"),
    };
    let count = match (findings.len(), facts.unseen.is_empty()) {
        (0, true) => "nothing is wrong".to_owned(),
        (0, false) => "nothing is wrong with what could be seen, and not all could be".to_owned(),
        (1, _) => "one fault".to_owned(),
        (count, _) => format!("{count} faults"),
    };
    let _ = writeln!(text, "Looked at {machines}: {count}.");
    let of_one = |finding: &Finding| {
        let same = findings.iter().filter(|it| it.machine == finding.machine);
        finding.machine.is_some() && same.count() > 1
    };
    if at_once.is_none() && findings.iter().any(of_one) {
        text.push_str(
            "A command line mends its own fault alone: take the first, and ask again about that.\n",
        );
    }
    for it in &facts.unseen {
        let _ = writeln!(text, "{}", unseen(it));
    }
    text
}

/// What could not be looked at.
pub(crate) fn unseen(what: &str) -> String {
    format!("Not seen: {}", visible(what))
}
