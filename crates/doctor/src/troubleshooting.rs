//! The table of faults as a page for people: docs/TROUBLESHOOTING.md.

use std::fmt::Write as _;

use crate::faults::TABLE;

const HEAD: &str = "# Troubleshooting\n\n\
    What goes wrong between a virtual machine and its network, as `ringway doctor` knows it. It looks at the host and at every QEMU, whoever\n\
    started it, and prints the faults that are there, with the commands that cure them on this machine. Before a machine starts,\n\
    `ringway doctor -- qemu-system-x86_64 ...` judges its command line. `--save FILE` writes down what was seen, so that somebody else can\n\
    judge it with `--from FILE`; `--ignore NAME` leaves a fault out that is known. Where a machine has several faults, each printed command\n\
    line mends its own: take the first, ask again about that line, and so on until nothing is found; before it starts, a last line\n\
    mends all of them.\n\n\
    The project's tests make these faults for real, run the printed cure and look again, beside a machine that is well. Judged from saved\n\
    facts alone: `tcg-chosen`, `nft-missing`, `vhost-user-socket-guarded`, all of \"The guest's driver\", and `qemu-crashes` but for the version\n\
    that it asks for. Cures that are a reboot (`iommu-off`) are not run.\n\n\
    This page is made from the table in `crates/doctor/src/faults`: `ringway doctor --table > docs/TROUBLESHOOTING.md`.\n";

/// The page, in Markdown.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for chapter in TABLE {
        let _ = writeln!(page, "\n## {}", chapter.title);
        for fault in chapter.faults {
            let _ = writeln!(page, "\n### {}\n", fault.name);
            for seen in fault.seen {
                let _ = writeln!(page, "- Seen: {seen}");
            }
            let _ = writeln!(page, "- Cause: {}", fault.cause);
            let _ = writeln!(page, "- Matters because {}.", fault.why);
            let _ = writeln!(page, "- Cure:\n\n```\n{}\n```", fault.cure.join("\n"));
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_page_in_the_project_is_this_one() {
        assert_eq!(
            page(),
            include_str!("../../../docs/TROUBLESHOOTING.md"),
            "docs/TROUBLESHOOTING.md is old: ringway doctor --table > docs/TROUBLESHOOTING.md"
        );
    }

    #[test]
    fn every_fault_has_a_name_of_its_own_and_all_its_parts() {
        let mut names = BTreeSet::new();
        for fault in TABLE.iter().flat_map(|chapter| chapter.faults) {
            assert!(names.insert(fault.name), "{} is there twice", fault.name);
            let plain = |letter: char| letter.is_ascii_lowercase() || letter == '-';
            assert!(fault.name.chars().all(plain), "{}", fault.name);
            assert!(
                !fault.seen.is_empty() && !fault.cure.is_empty(),
                "{}",
                fault.name
            );
            assert!(
                !fault.cause.is_empty() && !fault.why.is_empty(),
                "{}",
                fault.name
            );
        }
    }
}
