//! From facts to findings.

use crate::{Facts, Finding, faults::TABLE};

/// What is wrong, in the order of the table.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for fault in TABLE.iter().flat_map(|chapter| chapter.faults) {
        let about = (fault.judge)(facts);
        findings.extend(about.into_iter().map(|sign| Finding {
            fault: fault.name,
            machine: sign.machine,
            subject: sign.subject,
            what: sign.what,
            why: fault.why,
            cure: sign.cure,
        }));
    }
    findings
}
