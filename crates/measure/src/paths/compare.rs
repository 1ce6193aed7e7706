//! Two runs beside each other: whether one says what the other said.

use super::{Figure, Kind, Report, Row, table::name};
use crate::statistics::Spread;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Rows that both have.
    pub rows: usize,
    /// Those whose spreads do not meet, each in a sentence.
    pub apart: Vec<String>,
    /// Rows with a ratio to the plain tap in both, which machines that drift change less.
    pub ratios: usize,
    /// Those whose ratios' spreads do not meet.
    pub ratios_apart: usize,
}

impl Report {
    /// Whether the main figures of an earlier run agree with these: their spreads meet.
    pub fn agreement(&self, earlier: &Self) -> Agreement {
        let mut agreement = Agreement::default();
        for row in &self.rows {
            let Some(before) = earlier.row(row.path, row.queues, row.load) else {
                continue;
            };
            let figure = Figure::main_of(row.load);
            let of = |row: &Row| row.figures.get(&figure).copied();
            let (Some(now), Some(then)) = (of(row), of(before)) else {
                continue;
            };
            if let (Some(now), Some(then)) = (self.ratio(row), earlier.ratio(before))
                && row.path != Kind::Tap
            {
                agreement.ratios += 1;
                agreement.ratios_apart += usize::from(!meet(now, then));
            }
            agreement.rows += 1;
            if !meet(now, then) {
                agreement.apart.push(format!(
                    "{}, {}: {:.2} [{:.2}..{:.2}] now, {:.2} [{:.2}..{:.2}] then",
                    name(row),
                    row.load.title(),
                    now.median,
                    now.min,
                    now.max,
                    then.median,
                    then.min,
                    then.max
                ));
            }
        }
        agreement
    }
}

/// Whether the medians are no further apart than what is printed beside both of them.
fn meet(a: Spread, b: Spread) -> bool {
    let reach = |of: Spread| (of.median - of.min).max(of.max - of.median);
    (a.median - b.median).abs() <= reach(a) + reach(b)
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let agree = self.rows - self.apart.len();
        let ratios = self.ratios - self.ratios_apart;
        writeln!(
            f,
            "{agree} of {} figures and {ratios} of {} ratios to tap agree with the earlier run\nwithin the spread of both.",
            self.rows, self.ratios
        )?;
        self.apart
            .iter()
            .try_for_each(|line| writeln!(f, "  {line}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::paths::{Load, report::example};

    #[test]
    fn runs_agree_while_their_spreads_meet() {
        let (now, mut then) = (example(), example());
        assert_eq!(
            (now.agreement(&then).rows, now.agreement(&then).apart.len()),
            (4, 0)
        );
        // Each goes 5 % from its median: 8 % less is near enough, 20 % is not.
        for (percent, apart) in [(92, 0), (80, 2)] {
            then = example();
            for row in then.rows.iter_mut().filter(|row| row.load == Load::Tcp1) {
                row.samples
                    .iter_mut()
                    .for_each(|sample| sample.bytes = sample.bytes * percent / 100);
            }
            then.count();
            let agreement = now.agreement(&then);
            assert_eq!(agreement.apart.len(), apart, "{agreement}");
        }
        then.rows.truncate(1);
        let text = now.agreement(&then).to_string();
        assert!(
            text.starts_with("0 of 1 figures and 0 of 0 ratios"),
            "{text}"
        );
        assert!(
            text.contains("vhost-user x2, TCP, 1 stream, A to B: 2.00 [1.90..2.10] now, 1.60"),
            "{text}"
        );
    }
}
