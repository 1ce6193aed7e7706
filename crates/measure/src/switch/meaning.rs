//! What figures mean for whoever sizes a machine, in sentences.

use super::placement::Sharing;
use super::sizing::{Limit, Outcome, Report};

/// Share of time without a processor from which on figures say less than they seem to.
const DISTURBED: f64 = 0.03;

/// The most important first.
pub(super) fn sentences(report: &Report) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(carries(&report.rows));
    all.extend(more_workers(&report.rows));
    all.extend(limits(&report.rows));
    all.extend(sharing(report));
    all.push(idle(report));
    if !report.rows.iter().all(|outcome| outcome.counters.agree()) {
        all.push(
            "Guests and switch did not count the same frames: something is wrong with the switch or with this measurement.".into(),
        );
    }
    all
}

/// One worker with the smallest and with the largest frames.
fn carries(rows: &[Outcome]) -> Option<String> {
    let least = rows.iter().map(|outcome| outcome.row.workers).min()?;
    let of = |outcome: &&Outcome| outcome.row.workers == least;
    let by_frame = |outcome: &&Outcome| outcome.row.frame;
    let small = rows.iter().filter(of).min_by_key(by_frame)?;
    let large = rows.iter().filter(of).max_by_key(by_frame)?;
    let who = match least {
        1 => "One worker carries".to_owned(),
        _ => format!("{least} workers carry"),
    };
    let mut text = format!(
        "{who} {} million frames of {} B a second here ({} Gbit/s)",
        figure(small.mpps.median),
        small.row.frame,
        figure(small.gbps.median)
    );
    if large.row.frame > small.row.frame {
        text += &format!(
            ", and {} Gbit/s of {} B",
            figure(large.gbps.median),
            large.row.frame
        );
    }
    Some(format!(
        "{text}; a million frames of {} B take {} s of processor time.",
        small.row.frame,
        figure(small.cpu_seconds_per_million_frames.median)
    ))
}

/// What the most workers carry against the fewest, where all else is the same.
fn more_workers(rows: &[Outcome]) -> Option<String> {
    let most = rows.iter().max_by_key(|outcome| outcome.row.workers)?;
    let same = |outcome: &&Outcome| {
        (outcome.row.frame, outcome.row.packed) == (most.row.frame, most.row.packed)
    };
    let few = rows
        .iter()
        .filter(same)
        .min_by_key(|outcome| outcome.row.workers)?;
    if few.row.workers == most.row.workers {
        return None;
    }
    Some(format!(
        "{} workers carry {:.1} times what {} carries at {} B.",
        most.row.workers,
        most.mpps.median / few.mpps.median,
        few.row.workers,
        most.row.frame
    ))
}

/// Who could not do more; where it was not the switch, what it could.
fn limits(rows: &[Outcome]) -> Vec<String> {
    let named = |limit| {
        let names = |is: bool| -> Vec<_> {
            let found = rows.iter().filter(|outcome| (outcome.limit == limit) == is);
            found.map(|outcome| outcome.row.to_string()).collect()
        };
        let (those, others) = (names(true), names(false));
        (!those.is_empty()).then(|| match others.len() {
            0 => "every row".to_owned(),
            few if few < those.len() => format!("every row but {}", others.join("; ")),
            _ => those.join("; "),
        })
    };
    let mut all = Vec::new();
    if let Some(names) = named(Limit::Switch) {
        all.push(format!(
            "The switch was the limit in {names}: plan with these figures."
        ));
    }
    let guests = rows.iter().filter(|outcome| outcome.limit == Limit::Guests);
    let guests = guests.filter(|outcome| outcome.worker_busy.median > 0.0);
    let spare = guests.min_by(|a, b| a.worker_busy.median.total_cmp(&b.worker_busy.median));
    if let (Some(names), Some(spare)) = (named(Limit::Guests), spare) {
        all.push(format!(
            "The guests' side, which this program plays, was the limit in {names}: the switch can do more than is shown, at {} about {} million frames a second, as its busiest worker had frames for {:.0} % of the time.",
            spare.row,
            figure(spare.mpps.median / spare.worker_busy.median),
            100.0 * spare.worker_busy.median
        ));
    }
    all
}

/// What makes figures smaller than they would be elsewhere.
fn sharing(report: &Report) -> Vec<String> {
    let mut all = Vec::new();
    let shared = |sharing| {
        let mut found = report.rows.iter();
        found.find(|outcome| outcome.placement.sharing == sharing)
    };
    if let Some(outcome) = shared(Sharing::Processors) {
        all.push(format!(
            "Guests and switch shared CPUs at {} worker{} (the switch had {}, the guests {}): figures of such rows are what is left of both, not what a worker can do.",
            outcome.row.workers,
            if outcome.row.workers == 1 { "" } else { "s" },
            cpus(&outcome.placement.switch),
            cpus(&outcome.placement.guests)
        ));
    }
    if let Some(outcome) = shared(Sharing::Cores) {
        all.push(format!(
            "CPUs of the switch ({}) and of the guests ({}) are threads of the same cores: --cpus on a core of its own gives more.",
            cpus(&outcome.placement.switch),
            cpus(&outcome.placement.guests)
        ));
    }
    let rows = report.rows.iter();
    let waits = rows.filter(|outcome| outcome.placement.sharing != Sharing::Processors);
    let waited = waits
        .map(|outcome| outcome.waited.median)
        .fold(0.0, f64::max);
    if waited > DISTURBED {
        all.push(format!(
            "Somebody else used these CPUs: the switch or the guests waited for one up to {:.0} % of the time. Measure again when the machine is quiet.",
            100.0 * waited
        ));
    }
    all
}

fn idle(report: &Report) -> String {
    format!(
        "With silent guests it takes {:.2} % of a CPU.",
        report.idle.cpu_percent.median
    )
}

fn cpus(list: &[usize]) -> String {
    let mut list = list.to_vec();
    list.sort_unstable();
    list.dedup();
    let list: Vec<_> = list.iter().map(usize::to_string).collect();
    format!("CPU {}", list.join(","))
}

/// Three digits.
pub fn figure(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        least if least >= 0.0995 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sizing::tests::report;
    use super::*;

    #[test]
    fn who_was_the_limit_is_told_and_what_the_switch_could_do() {
        let quiet = sentences(&report(Limit::Switch, Sharing::Nothing, 1.0));
        assert_eq!(
            quiet,
            [
                "One worker carries 10.0 million frames of 64 B a second here (5.12 Gbit/s), and 5.12 Gbit/s of 1518 B; a million frames of 64 B take 0.100 s of processor time.",
                "The switch was the limit in every row: plan with these figures.",
                "With silent guests it takes 0.01 % of a CPU.",
            ]
        );
        let slow = sentences(&report(Limit::Guests, Sharing::Nothing, 0.5));
        assert!(
            slow[1].contains("about 20.0 million frames a second"),
            "{slow:?}"
        );
        let few = sentences(&report(Limit::Processors, Sharing::Processors, 0.5));
        assert!(
            few[1].starts_with("Guests and switch shared CPUs at 1 worker"),
            "{few:?}"
        );
        let mut wrong = report(Limit::Switch, Sharing::Nothing, 1.0);
        wrong.rows[0].counters.sent += 1;
        assert!(sentences(&wrong)[3].starts_with("Guests and switch did not count"));
    }

    #[test]
    fn figures_have_three_digits() {
        let figures = [123.4, 12.34, 1.234, 0.1234, 0.01234, 0.0].map(figure);
        assert_eq!(
            figures,
            ["123", "12.3", "1.23", "0.123", "0.0123", "0.0000"]
        );
    }
}
