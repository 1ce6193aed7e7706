//! What `doctor` found, for people.

use std::fmt::Write as _;

use ringway_doctor::{Facts, Finding};

/// Each finding: what, why, and the cure.
pub(crate) fn findings(facts: &Facts, findings: &[Finding]) -> String {
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
    let machines = match facts.machines.len() {
        0 => "the host; no machine runs".to_owned(),
        1 => format!("the host and {}", facts.machines[0].name),
        count => format!("the host and {count} machines"),
    };
    let count = match findings.len() {
        0 => "nothing is wrong".to_owned(),
        1 => "one fault".to_owned(),
        count => format!("{count} faults"),
    };
    let _ = writeln!(text, "Looked at {machines}: {count}.");
    let of_one = |finding: &Finding| {
        let same = findings.iter().filter(|it| it.machine == finding.machine);
        finding.machine.is_some() && same.count() > 1
    };
    if findings.iter().any(of_one) {
        text.push_str(
            "A command line mends its own fault alone: take the first, and ask again about that.\n",
        );
    }
    for unseen in &facts.unseen {
        let _ = writeln!(text, "Not seen: {unseen}");
    }
    text
}
