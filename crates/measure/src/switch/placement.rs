//! Which processors the switch and the guests get.

use std::fs;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Who runs where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// One for each worker of the switch.
    pub switch: Vec<usize>,
    /// One for each pair of guests.
    pub guests: Vec<usize>,
    /// What makes figures smaller than they would be elsewhere.
    pub sharing: Sharing,
}

/// What the switch and the guests have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// Nothing.
    Nothing,
    /// Cores: some are two threads of one.
    Cores,
    /// Processors: there are too few.
    Processors,
}

impl Placement {
    /// Of `workers` and `pairs` of guests among the processors `allowed`; workers get those of `wanted` if there are any.
    pub fn new(allowed: &[usize], wanted: &[usize], workers: usize, pairs: usize) -> Result<Self> {
        if let Some(cpu) = wanted.iter().find(|cpu| !allowed.contains(cpu)) {
            bail!("CPU {cpu} is not there or may not be used: of the CPUs there are {allowed:?}");
        }
        let Some(&last) = allowed.last() else {
            bail!("there is no CPU to run on");
        };
        let turn = |among: &[usize], number: usize| among[number % among.len()];
        // Guests begin at the front, workers at the back.
        let switch: Vec<_> = (0..workers)
            .map(|number| match wanted {
                [] => turn(allowed, allowed.len() - 1 - number % allowed.len()),
                _ => turn(wanted, number),
            })
            .collect();
        let free = allowed.iter().copied().filter(|cpu| !switch.contains(cpu));
        let mut free: Vec<_> = free.collect();
        if free.is_empty() {
            free.push(last);
            free.extend(allowed.iter().copied().filter(|&cpu| cpu != last));
            free.rotate_left(1);
        }
        let guests: Vec<_> = (0..pairs).map(|number| turn(&free, number)).collect();
        let sharing = sharing(&switch, &guests, &siblings);
        Ok(Self {
            switch,
            guests,
            sharing,
        })
    }
}

fn sharing(
    switch: &[usize],
    guests: &[usize],
    siblings: &dyn Fn(usize) -> Option<String>,
) -> Sharing {
    let mut all = [switch, guests].concat();
    all.sort_unstable();
    if all.windows(2).any(|pair| pair[0] == pair[1]) {
        return Sharing::Processors;
    }
    let mut cores: Vec<_> = all.iter().filter_map(|&cpu| siblings(cpu)).collect();
    cores.sort_unstable();
    match cores.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Sharing::Cores,
        false => Sharing::Nothing,
    }
}

/// The threads of the core that a processor is one of.
fn siblings(cpu: usize) -> Option<String> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_and_guests_have_their_own_where_there_are_enough() {
        let placed = Placement::new(&[0, 2, 4, 6], &[], 2, 2).unwrap();
        assert_eq!((placed.switch, placed.guests), (vec![6, 4], vec![0, 2]));
        let placed = Placement::new(&[0, 1, 2, 3], &[1, 0], 2, 1).unwrap();
        assert_eq!((placed.switch, placed.guests), (vec![1, 0], vec![2]));
    }

    #[test]
    fn too_few_are_shared_and_that_is_told() {
        let alone = Placement::new(&[3], &[], 1, 1).unwrap();
        assert_eq!(alone.sharing, Sharing::Processors);
        let two = Placement::new(&[0, 1], &[], 2, 2).unwrap();
        assert_eq!((two.switch, two.guests), (vec![1, 0], vec![0, 1]));
        assert_eq!(two.sharing, Sharing::Processors);
        assert!(Placement::new(&[0, 1], &[7], 1, 1).is_err());
        assert!(Placement::new(&[], &[], 1, 1).is_err());
    }

    #[test]
    fn threads_of_one_core_are_found() {
        let core = |cpu: usize| Some(format!("{}-{}", cpu & !1, cpu | 1));
        assert_eq!(sharing(&[1], &[0], &core), Sharing::Cores);
        assert_eq!(sharing(&[2], &[0], &core), Sharing::Nothing);
        assert_eq!(sharing(&[2], &[0], &|_| None), Sharing::Nothing);
    }
}
