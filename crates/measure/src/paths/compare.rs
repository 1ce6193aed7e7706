//! Two runs beside each other: whether one says what the other said.

use super::{Estimate, Figure, Report, Row, table::name};
use crate::confidence::agree;

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Agreement {
    /// Rows that both have, with two rounds or more in each.
    pub rows: usize,
    /// Those whose medians are too far apart for chance, each in a sentence.
    pub apart: Vec<String>,
    /// Rows with a ratio to the plain tap in both, which machines that drift change less.
    pub ratios: usize,
    /// Those whose ratios are too far apart for chance, each in a sentence.
    pub ratios_apart: Vec<String>,
    /// Rows that only one of them has, or of one round.
    pub alone: usize,
    /// How fast the row in the middle is now, against then.
    pub speed: f64,
    /// What else differs, in words.
    pub differs: Vec<String>,
}

impl Report {
    /// Whether main figures and ratios agree with those of an earlier run.
    pub fn agreement(&self, earlier: &Self) -> Agreement {
        let mut agreement = Agreement {
            differs: self.differs(earlier),
            speed: 1.0,
            ..Agreement::default()
        };
        let mut speeds = Vec::new();
        for row in &self.rows {
            let Some(before) = earlier.row(row.path, row.queues, row.load) else {
                continue;
            };
            let figure = Figure::main_of(row.load);
            let of = |row: &Row| row.figures.get(&figure).copied();
            let Some(pair) = of(row).zip(of(before)) else {
                continue;
            };
            let Some(agrees) = judge(pair) else { continue };
            agreement.rows += 1;
            let faster = pair.0.median / pair.1.median;
            speeds.push(match figure {
                Figure::Median => faster.recip(),
                _ => faster,
            });
            if !agrees {
                agreement.apart.push(sentence(row, "", pair));
            }
            let ratios = row.to_tap.zip(before.to_tap);
            if let Some((pair, agrees)) = ratios.and_then(|pair| Some((pair, judge(pair)?))) {
                agreement.ratios += 1;
                if !agrees {
                    agreement.ratios_apart.push(sentence(row, ", to tap", pair));
                }
            }
        }
        speeds.sort_by(f64::total_cmp);
        if let Some(speed) = speeds.get(speeds.len() / 2) {
            agreement.speed = *speed;
        }
        agreement.alone = self.rows.len() + earlier.rows.len() - 2 * agreement.rows;
        agreement
    }

    /// What makes figures differ that nobody has to wonder about.
    fn differs(&self, earlier: &Self) -> Vec<String> {
        let (now, then) = (&self.machine, &earlier.machine);
        let all = [
            ("processor", &now.model, &then.model),
            ("kernel", &now.kernel, &then.kernel),
            ("QEMU", &now.qemu, &then.qemu),
            ("accelerator", &now.accel, &then.accel),
            ("guests' kernel", &now.guest_kernel, &then.guest_kernel),
            ("Ringway", &now.ringway, &then.ringway),
        ];
        let mut found: Vec<String> = all
            .into_iter()
            .filter(|(_, now, then)| now != then)
            .map(|(what, now, then)| format!("{what}: {now} now, {then} then"))
            .collect();
        if now.processors != then.processors {
            let (now, then) = (now.processors, then.processors);
            found.push(format!("CPUs: {now} now, {then} then"));
        }
        found
    }
}

/// `None` if one of them is of a single round.
fn judge((now, then): (Estimate, Estimate)) -> Option<bool> {
    let both = now.factor.zip(then.factor)?;
    Some(agree((now.median, both.0), (then.median, both.1)))
}

fn sentence(row: &Row, what: &str, (now, then): (Estimate, Estimate)) -> String {
    format!(
        "{}, {}{what}: {:.2} [{:.2}..{:.2}] now, {:.2} [{:.2}..{:.2}] then",
        name(row),
        row.load.title(),
        now.median,
        now.low(),
        now.high(),
        then.median,
        then.low(),
        then.high()
    )
}

impl std::fmt::Display for Agreement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.rows == 0 {
            return f.write_str(
                "Nothing can be compared with the earlier run: no row has two rounds in both.\n",
            );
        }
        let agree = self.rows - self.apart.len();
        let ratios = self.ratios - self.ratios_apart.len();
        writeln!(
            f,
            "{agree} of {} figures and {ratios} of {} ratios to tap agree with the earlier run;\n\
             where nothing changed, 19 of 20 do. The row in the middle is {:.2} times as fast.",
            self.rows, self.ratios, self.speed
        )?;
        if self.alone > 0 {
            let s = if self.alone == 1 { "" } else { "s" };
            writeln!(
                f,
                "{} row{s} of the two runs could not be compared.",
                self.alone
            )?;
        }
        let differs = self.differs.iter().map(|line| ("other ", line));
        let apart = self.apart.iter().chain(&self.ratios_apart);
        let mut lines = differs.chain(apart.map(|line| ("", line)));
        lines.try_for_each(|(what, line)| writeln!(f, "  {what}{line}"))
    }
}

#[cfg(test)]
mod tests {
    use crate::paths::{Kind, Load, Report, report::example};

    /// Everything of these rows is so many per cent of what it was.
    fn changed(percent: u64, is_it: impl Fn(Kind) -> bool) -> Report {
        let mut report = example();
        let rows = report.rows.iter_mut();
        for row in rows.filter(|row| row.load == Load::Tcp1 && is_it(row.path)) {
            for sample in &mut row.samples {
                sample.bytes = sample.bytes * percent / 100;
            }
        }
        report.count();
        report
    }

    #[test]
    fn what_is_half_as_fast_again_is_told_and_what_chance_does_is_not() {
        let agreement = example().agreement(&example());
        assert_eq!((agreement.rows, agreement.apart.len()), (4, 0));
        assert_eq!((agreement.ratios, agreement.alone), (2, 0));
        // Rounds differ by 5 %.
        for (percent, apart) in [(92, 0), (108, 0), (150, 2), (66, 2)] {
            let agreement = changed(percent, |_| true).agreement(&example());
            assert_eq!(agreement.apart.len(), apart, "{agreement}");
            // All paths changed alike.
            assert_eq!(agreement.ratios_apart.len(), 0, "{agreement}");
        }
        let agreement = changed(150, |kind| kind == Kind::VhostUser).agreement(&example());
        assert_eq!(
            (agreement.apart.len(), agreement.ratios_apart.len()),
            (1, 1)
        );
    }

    #[test]
    fn a_comparison_says_what_it_could_not_compare() {
        let mut then = changed(50, |_| true);
        then.rows.truncate(1);
        then.count();
        then.machine.qemu = "7.2".into();
        let text = example().agreement(&then).to_string();
        assert!(
            text.starts_with("0 of 1 figures and 0 of 0 ratios"),
            "{text}"
        );
        assert!(text.contains("\n3 rows of the two runs"), "{text}");
        assert!(text.contains("\n  other QEMU:  now, 7.2 then\n"), "{text}");
        assert!(
            text.contains("vhost-user x2, TCP, 1 stream, A to B: 2.00 [1.8"),
            "{text}"
        );
        then.rows[0].samples.truncate(1);
        then.count();
        let text = example().agreement(&then).to_string();
        assert!(text.starts_with("Nothing can be compared"), "{text}");
    }
}
