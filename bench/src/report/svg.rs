//! A bar plot: per row one bar for each middle, as long as its rate against the largest of the row.

use std::fmt::Write as _;

use crate::compare::Outcome;

const WIDTH: usize = 860;
const LABEL: usize = 210;
const BARS: usize = 470;
const BAR: usize = 13;
const GAP: usize = 12;
/// Fill of each middle by name, in the legend's order. The second equal one is left out: it is the noise, not a competitor.
const FILLS: [(&str, &str); 4] = [
    ("ringway", "#0b6e99"),
    ("ringway adaptive", "#6fb7d6"),
    ("testpmd io", "#b0752a"),
    ("OVS-DPDK NORMAL", "#8a8a8a"),
];

pub fn plot(outcomes: &[Outcome]) -> String {
    let mut body = String::new();
    let mut y = 40;
    let mut x = LABEL;
    for (name, fill) in FILLS {
        let _ = writeln!(
            body,
            r#"<rect x="{x}" y="12" width="12" height="12" fill="{fill}"/>"#
        );
        text(&mut body, x + 17, 22, "start", name);
        x += 150;
    }
    for outcome in outcomes {
        // Of a latency, less is better: it has no place among rates.
        if outcome.middles.iter().any(|found| found.latency.is_some()) {
            continue;
        }
        let top = outcome.middles.iter().map(|found| found.mpps.median);
        let top = top.fold(f64::MIN_POSITIVE, f64::max);
        let begin = y;
        for (name, fill) in FILLS {
            let Some(found) = outcome.middles.iter().find(|found| found.name == name) else {
                continue;
            };
            let length = found.mpps.median / top * BARS as f64;
            let _ = writeln!(
                body,
                r#"<rect x="{LABEL}" y="{y}" width="{length:.1}" height="{}" fill="{fill}"/>"#,
                BAR - 2
            );
            let label = format!("{:.2} Mpps  {:.1} Gbit/s", found.mpps.median, found.gbps);
            let _ = writeln!(
                body,
                r#"<text x="{:.1}" y="{}">{label}</text>"#,
                LABEL as f64 + length + 6.0,
                y + BAR - 4
            );
            y += BAR;
        }
        let middle = usize::midpoint(begin, y) + 4;
        text(&mut body, LABEL - 8, middle, "end", &outcome.title);
        y += GAP;
    }
    text(
        &mut body,
        LABEL,
        y + 4,
        "start",
        "Medians of windows that took turns; in each row the best rate is as long as in any other.",
    );
    y += 2 * GAP;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn text(out: &mut String, x: usize, y: usize, anchor: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _ = writeln!(
        out,
        r#"<text x="{x}" y="{y}" text-anchor="{anchor}">{words}</text>"#
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Figures;
    use ringway_measure::statistics::spread;

    #[test]
    fn bars_are_as_long_as_their_share_of_the_longest() {
        let figures = |name: &str, mpps: f64| Figures {
            name: name.into(),
            mpps: spread([mpps].into_iter()),
            gbps: 1.0,
            generator_busy: 1.0,
            lost: 0.0,
            wrong: 0,
            latency: None,
        };
        let outcome = Outcome {
            row: "a".into(),
            title: "a < b".into(),
            rounds: 1,
            tried: 1,
            huge_pages: true,
            handover: [60.0, 70.0],
            middles: vec![figures("ringway", 20.0), figures("testpmd io", 10.0)],
            ratios: Vec::new(),
        };
        let svg = plot(&[outcome]);
        assert!(svg.contains(r#"width="470.0""#) && svg.contains(r#"width="235.0""#));
        assert!(svg.contains("a &lt; b"));
    }
}
