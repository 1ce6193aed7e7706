//! How far a median of a few rounds may lie from the true one.
//!
//! Smallest and largest of few rounds do not say it: both of three lie on the same side of the true median once in four times, and only
//! from six on do they enclose it in 19 of 20 (an interval of order statistics; Le Boudec, *Performance Evaluation of Computer and
//! Communication Systems*, section 2.2). A row's own deviation is as uncertain: three rounds that happen to be alike would promise what
//! the next run does not keep. So rows help each other. What disturbs one path on a machine disturbs the others too, and deviations of
//! one load resemble each other; the variance of each row is drawn towards the median of all rows' variances, as if that had been seen
//! in [`PRIOR`] more rounds (the moderated t-statistic of Smyth, *Statistical Applications in Genetics and Molecular Biology* 3, 2004).
//! The median of the rows, not their mean, because a single row that was disturbed must not widen all of them.
//!
//! Everything is counted in logarithms: rates and times are disturbed in proportion, upwards more than downwards. So the interval is a
//! factor, and the true median lies between `median / factor` and `median * factor`.
//!
//! Rounds are taken for independent. A machine that is slower for minutes, longer than a run, is in no round's deviation; for that there
//! are ratios within a round.

/// Rounds for which what other rows say counts.
const PRIOR: f64 = 4.0;
/// Of normal figures, what the deviation of a median is to that of a mean: the root of half of pi, and less with few figures.
const OF_MEDIAN: f64 = 1.2533;

/// For each row of figures the factor within which the true median lies 19 of 20 times; `None` of fewer than two figures, and where one
/// is not above 0.
pub fn factors(rows: &[Vec<f64>]) -> Vec<Option<f64>> {
    let variances: Vec<Option<f64>> = rows.iter().map(|row| variance(row)).collect();
    let mut known: Vec<f64> = variances.iter().copied().flatten().collect();
    known.sort_by(f64::total_cmp);
    let factor = |(row, own): (&Vec<f64>, &Option<f64>)| {
        let (count, own) = (row.len() as f64, (*own)?);
        // A row alone has nobody to learn from.
        let prior = if known.len() > 1 { PRIOR } else { 0.0 };
        let freedom = count - 1.0;
        let variance = (prior * middle(&known) + freedom * own) / (prior + freedom);
        let deviation = OF_MEDIAN * (variance / count).sqrt();
        Some((quantile(prior + freedom) * deviation).exp())
    };
    rows.iter().zip(&variances).map(factor).collect()
}

/// Whether two medians with these factors may be of the same truth: whether their distance lies within the interval of a difference,
/// the root of the sum of both squares.
pub fn agree(a: (f64, f64), b: (f64, f64)) -> bool {
    let reach = a.1.ln().hypot(b.1.ln());
    // Equal figures agree even if they never vary.
    (a.0 / b.0).ln().abs() <= reach + 1e-9
}

/// Of logarithms.
fn variance(figures: &[f64]) -> Option<f64> {
    let is_fit = |figure: &f64| figure.is_finite() && *figure > 0.0;
    if figures.len() < 2 || !figures.iter().all(is_fit) {
        return None;
    }
    let count = figures.len() as f64;
    let mean = figures.iter().map(|figure| figure.ln()).sum::<f64>() / count;
    let squares = figures.iter().map(|figure| (figure.ln() - mean).powi(2));
    Some(squares.sum::<f64>() / (count - 1.0))
}

/// Of sorted figures, at least one.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// What Student's t with so many degrees of freedom exceeds once in 40 times; within a hundredth (Abramowitz and Stegun, 26.7.5).
fn quantile(freedom: f64) -> f64 {
    const NORMAL: f64 = 1.959_964;
    // The series needs some; the exact ones below.
    match freedom {
        freedom if freedom < 1.5 => 12.706,
        freedom if freedom < 2.5 => 4.303,
        freedom if freedom < 3.5 => 3.182,
        _ => {
            let x2 = NORMAL * NORMAL;
            let first = (x2 + 1.0) * NORMAL / 4.0;
            let second = ((5.0 * x2 + 16.0) * x2 + 3.0) * NORMAL / 96.0;
            let third = (((3.0 * x2 + 19.0) * x2 + 17.0) * x2 - 15.0) * NORMAL / 384.0;
            NORMAL + first / freedom + second / freedom.powi(2) + third / freedom.powi(3)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures as machines give them: disturbed in proportion by about `deviation`, and one in twenty far off.
    struct Machine(u64);

    impl Machine {
        /// Evenly from 0 to 1 (Knuth's MMIX generator).
        fn even(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005);
            self.0 = self.0.wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }

        fn figures(&mut self, truth: f64, deviation: f64, rounds: usize) -> Vec<f64> {
            let mut figure = || {
                // Twelve even ones are a normal one nearly.
                let normal = (0..12).map(|_| self.even()).sum::<f64>() - 6.0;
                let is_far = self.even() < 0.05;
                let far = if is_far { self.even() - 0.7 } else { 0.0 };
                truth * (normal * deviation + far).exp()
            };
            (0..rounds).map(|_| figure()).collect()
        }

        /// Nine rows, some steadier than others, measured twice; the second time `change` times as fast. The share that agrees.
        fn share(&mut self, rounds: [usize; 2], change: f64) -> f64 {
            let mut agreed = 0;
            let runs = 200;
            for _ in 0..runs {
                let deviations = [0.06, 0.08, 0.1, 0.12, 0.14, 0.15, 0.17, 0.2, 0.3];
                let mut run = |rounds, truth| {
                    let rows = deviations.map(|it| self.figures(truth, it, rounds));
                    let factors = factors(&rows);
                    let medians = rows.map(|mut row| {
                        row.sort_by(f64::total_cmp);
                        middle(&row)
                    });
                    let both = medians.into_iter().zip(factors);
                    both.map(|(median, factor)| (median, factor.unwrap()))
                        .collect::<Vec<_>>()
                };
                let (then, now) = (run(rounds[0], 1.0), run(rounds[1], change));
                let pairs = then.into_iter().zip(now);
                agreed += pairs.filter(|&(then, now)| agree(then, now)).count();
            }
            agreed as f64 / f64::from(9 * runs)
        }
    }

    #[test]
    fn what_did_not_change_agrees_19_of_20_times_however_few_the_rounds() {
        let mut machine = Machine(1);
        for rounds in [[2, 2], [3, 2], [3, 3], [5, 5], [8, 4]] {
            let share = machine.share(rounds, 1.0);
            assert!(share >= 0.95, "{rounds:?}: {share}");
        }
    }

    #[test]
    fn half_as_much_again_is_told_in_most_rows_and_twice_in_nearly_all() {
        let mut machine = Machine(2);
        for (rounds, change, most) in [
            ([5, 5], 1.5, 0.3),
            ([5, 5], 1.0 / 1.5, 0.3),
            ([3, 3], 2.0, 0.3),
            ([6, 6], 2.0, 0.05),
        ] {
            let share = machine.share(rounds, change);
            assert!(share <= most, "{rounds:?}, {change}: {share}");
        }
    }

    #[test]
    fn a_disturbed_row_widens_itself_and_hardly_the_others() {
        let steady = vec![1.0, 1.1, 0.9, 1.05, 0.95];
        let mut rows = vec![steady; 7];
        let before = factors(&rows)[0].unwrap();
        rows[6] = vec![1.0, 0.05, 1.1, 0.9, 1.0];
        let after = factors(&rows);
        assert!((after[0].unwrap() / before - 1.0).abs() < 0.01, "{after:?}");
        assert!(after[6].unwrap() > 2.0, "{after:?}");
    }

    #[test]
    fn rounds_that_happen_to_be_alike_promise_no_more_than_their_neighbours() {
        let rows = vec![
            vec![1.0, 1.0, 1.0],
            vec![1.0, 1.2, 0.8],
            vec![2.0, 2.5, 1.7],
        ];
        assert!(factors(&rows)[0].unwrap() > 1.2);
        // Alone it has only itself.
        assert_eq!(factors(&rows[..1]), [Some(1.0)]);
    }

    #[test]
    fn one_round_has_no_spread_and_nothing_is_no_figure() {
        let rows = [vec![1.0], vec![], vec![0.0, 1.0], vec![f64::NAN, 1.0]];
        assert_eq!(factors(&rows), [None; 4]);
        assert!(agree((1.0, 1.0), (1.0, 1.0)) && !agree((1.0, 1.0), (1.1, 1.0)));
    }

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (freedom, exact) in [
            (1.0, 12.706),
            (3.0, 3.182),
            (4.0, 2.776),
            (5.0, 2.571),
            (8.0, 2.306),
            (60.0, 2.0),
        ] {
            assert!(
                (quantile(freedom) - exact).abs() < 0.01,
                "{freedom}: {}",
                quantile(freedom)
            );
        }
    }
}
