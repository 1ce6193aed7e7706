//! A command line with all that is wrong with it put right.

use std::collections::BTreeSet;

use crate::{Facts, command::Edit, facts::Origin, judge};

/// Corrections that are made one after the other.
const MOST: usize = 16;

/// The command line that was judged, with everything corrected that its own words can; `None` where one cure alone does that, or
/// where there is no end to it. Faults of these names stay.
pub fn at_once(facts: &Facts, ignored: &[String]) -> Option<String> {
    let mut facts = facts.clone();
    let of_command = |it: &crate::facts::Machine| it.origin == Origin::Command;
    let index = facts.machines.iter().position(of_command)?;
    let mut seen = BTreeSet::new();
    for round in 0..MOST {
        let command = facts.machines[index].command.clone();
        let name = facts.machines[index].name.clone();
        let found = judge(&facts).into_iter().filter(|it| {
            it.machine.as_ref() == Some(&name) && !ignored.iter().any(|name| name == it.fault)
        });
        let mut lines = found.flat_map(|it| it.cure);
        let next = lines.find_map(|line| {
            let edit = Edit::read(&line)?;
            let other = edit.words().first() == command.first() && edit.words() != command;
            other.then_some(edit)
        });
        let Some(next) = next else {
            return (round > 1).then(|| Edit::new(&command).line());
        };
        if !seen.insert(command) {
            return None;
        }
        facts.machines[index].command = next.words().to_vec();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Machine;

    fn facts(line: &str) -> Facts {
        Facts {
            machines: vec![Machine {
                name: "the command".into(),
                origin: Origin::Command,
                command: line.split_whitespace().map(str::to_owned).collect(),
                ..Machine::default()
            }],
            ..Facts::default()
        }
    }

    const THREE: &str = "qemu-system-x86_64 -smp 4 -m 512 -chardev socket,id=c,path=/run/a -netdev vhost-user,id=n,chardev=c,queues=4 \
        -device virtio-net-pci,netdev=n,csum=off -append a;b";

    #[test]
    fn all_corrections_are_in_one_line_and_nothing_is_wrong_with_that() {
        let facts = facts(THREE);
        let of_words = |facts: &Facts| {
            let all = judge(facts);
            all.into_iter()
                .filter(|it| it.fault != "kvm-unusable")
                .count()
        };
        assert!(of_words(&facts) >= 3);
        let line = at_once(&facts, &[]).unwrap();
        for part in ["share=on", "mq=on", "vectors=10", "-append 'a;b'"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(!line.contains("csum=off"));
        let mut cured = facts;
        cured.machines[0].command = Edit::read(&line).unwrap().words().to_vec();
        assert_eq!(of_words(&cured), 0);
    }

    #[test]
    fn what_is_ignored_stays_and_one_cure_needs_no_other() {
        let line = at_once(&facts(THREE), &["nic-offload-off".into()]).unwrap();
        assert!(line.contains("csum=off"), "{line}");
        let one = facts(
            "qemu-system-x86_64 -netdev tap,id=n,ifname=t -device virtio-net-pci,netdev=n,csum=off",
        );
        assert_eq!(at_once(&one, &[]), None);
        assert_eq!(at_once(&Facts::default(), &[]), None);
    }
}
