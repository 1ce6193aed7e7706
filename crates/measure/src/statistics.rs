//! Medians.

use serde::{Deserialize, Serialize};

/// Median, smallest and largest of some figures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The one in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

/// Of at least one figure.
pub fn spread(figures: impl Iterator<Item = f64>) -> Spread {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    let median = if figures.is_empty() {
        f64::NAN
    } else if figures.len() % 2 == 1 {
        figures[middle]
    } else {
        f64::midpoint(figures[middle - 1], figures[middle])
    };
    Spread {
        median,
        min: figures.first().copied().unwrap_or(f64::NAN),
        max: figures.last().copied().unwrap_or(f64::NAN),
    }
}

/// The figure that `share` per cent are not above; 0 of none.
pub fn percentile(figures: &[u32], share: usize) -> u32 {
    let mut figures = figures.to_vec();
    let at = figures.len() * share / 100;
    if figures.is_empty() {
        return 0;
    }
    let at = at.min(figures.len() - 1);
    *figures.select_nth_unstable(at).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_lies_between() {
        let of = |figures: &[f64]| spread(figures.iter().copied());
        assert_eq!(of(&[3.0, 1.0, 2.0]).median, 2.0);
        let even = of(&[4.0, 1.0, 2.0, 3.0]);
        assert_eq!((even.median, even.min, even.max), (2.5, 1.0, 4.0));
        assert!(of(&[]).median.is_nan());
    }

    #[test]
    fn percentiles_are_figures_that_were_there() {
        let figures: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(percentile(&figures, 50), 51);
        assert_eq!(percentile(&figures, 99), 100);
        assert_eq!(percentile(&[7], 99), 7);
        assert_eq!(percentile(&[], 50), 0);
    }
}
