//! From facts to findings.

use crate::{Facts, Finding, faults::TABLE, finding::visible};

/// What is wrong, in the order of the table.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for fault in TABLE.iter().flat_map(|chapter| chapter.faults) {
        let about = (fault.judge)(facts);
        // Machines, links and files may be called anything by anybody, and a cure is pasted.
        findings.extend(about.into_iter().map(|sign| Finding {
            fault: fault.name,
            machine: sign.machine.as_deref().map(visible),
            subject: visible(&sign.subject),
            what: visible(&sign.what),
            why: fault.why,
            cure: sign.cure.iter().map(|line| visible(line)).collect(),
        }));
    }
    findings
}

#[cfg(test)]
mod tests;
