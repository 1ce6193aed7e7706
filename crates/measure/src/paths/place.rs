//! Which processors of the host carry what.

use ringway_vmm::CpuList;

/// Where the threads of two guests and what is between them run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Virtual processors of each guest.
    pub(super) vcpus: [CpuList; 2],
    /// All other threads of each QEMU.
    pub(super) others: [CpuList; 2],
    /// The switch's workers, each on one; anywhere if absent.
    pub(super) switch: Option<CpuList>,
    /// For people.
    pub(super) words: String,
}

/// For guests of so many virtual processors each on these of the host's; `None` where there is only one.
///
/// Where there are enough, every virtual processor has one for itself, and what carries frames has at least two others. Else each guest
/// has half of them, with what its own QEMU does, and a switch between them goes where there is time.
pub(super) fn place(cpus: &[u16], vcpus: u16) -> Option<Place> {
    let list = |cpus: &[u16]| CpuList::new(cpus.iter().copied());
    let each = usize::from(vcpus);
    if cpus.len() >= 2 * each + 2 {
        let [a, b] = [list(&cpus[..each])?, list(&cpus[each..2 * each])?];
        let rest = list(&cpus[2 * each..])?;
        let words = format!(
            "guest A on CPUs {a}, guest B on {b}, one for each virtual processor; QEMU's other threads and the switch on {rest}"
        );
        return Some(Place {
            vcpus: [a, b],
            others: [rest.clone(), rest.clone()],
            switch: Some(rest),
            words,
        });
    }
    let half = cpus.len() / 2;
    let [a, b] = [list(&cpus[..half])?, list(&cpus[half..])?];
    let words = format!(
        "guest A and its QEMU on CPUs {a}, guest B and its QEMU on {b}, which are too few for one each; the switch on any"
    );
    Some(Place {
        vcpus: [a.clone(), b.clone()],
        others: [a, b],
        switch: None,
        words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(cpus: &[u16], vcpus: u16) -> Option<[String; 5]> {
        let place = place(cpus, vcpus)?;
        let [[a, b], [c, d]] = [place.vcpus, place.others];
        let switch = place.switch.map_or("any".into(), |list| list.to_string());
        let [a, b, c, d] = [a, b, c, d].map(|list| list.to_string());
        Some([a, b, c, d, switch])
    }

    #[test]
    fn each_has_its_own_where_there_are_enough() {
        let eight = [0, 1, 2, 3, 4, 5, 6, 7];
        assert_eq!(
            lists(&eight, 2).unwrap(),
            ["0-1", "2-3", "4-7", "4-7", "4-7"]
        );
        assert_eq!(
            lists(&eight, 3).unwrap(),
            ["0-2", "3-5", "6-7", "6-7", "6-7"]
        );
        assert_eq!(
            lists(&[4, 5, 6, 7], 1).unwrap(),
            ["4", "5", "6-7", "6-7", "6-7"]
        );
    }

    #[test]
    fn halves_where_there_are_few_and_nothing_where_there_is_one() {
        assert_eq!(lists(&[0, 1], 1).unwrap(), ["0", "1", "0", "1", "any"]);
        assert_eq!(
            lists(&[0, 1, 2], 2).unwrap(),
            ["0", "1-2", "0", "1-2", "any"]
        );
        assert_eq!(lists(&[3], 1), None);
        assert_eq!(lists(&[], 1), None);
    }
}
