//! A map as a picture: each way from left to right, its rates on the arrows.

use std::fmt::Write;

use super::path::{Arrow, Map, Path, Stage};
use crate::print::wrap;

/// Letters of the monospaced font are about this wide, in units of the picture.
const LETTER: f64 = 7.3;
const LINE: f64 = 17.0;
const PADDING: f64 = 12.0;
const MARGIN: f64 = 24.0;
/// Longest line in a box; longer ones go on in the next.
const WRAP: usize = 36;
const TITLE: f64 = 34.0;

pub(super) fn svg(map: &Map) -> String {
    let rows: Vec<Row<'_>> = map.paths.iter().map(Row::new).collect();
    let legend = format!(
        "Right: from the guest. Left: to it. Frames and bits per second, over {:.1} s.",
        map.seconds
    );
    let widths = rows.iter().map(Row::width);
    let widest = widths.fold(units(legend.chars().count()), f64::max);
    let height: f64 = rows.iter().map(Row::height).sum();
    let (width, height) = (widest + 2.0 * MARGIN, height + 2.0 * MARGIN + LINE);
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\">\n<style>{STYLE}</style>\n{MARKERS}\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let mut y = MARGIN;
    for row in &rows {
        row.draw(y, &mut out);
        y += row.height();
    }
    label(&mut out, MARGIN, y + LINE, "small", &legend);
    out.push_str("</svg>\n");
    out
}

const STYLE: &str = "text{font-family:'DejaVu Sans Mono',Menlo,Consolas,monospace;font-size:12px;fill:#1c2733}\
    .name{font-size:15px;font-weight:bold}.title{font-weight:bold}.small{font-size:11px;fill:#5a6875}\
    .drop{fill:#c62828;font-weight:bold}.mid{text-anchor:middle}\
    rect.stage{fill:#f3f6fa;stroke:#7f93a8;stroke-width:1.2}rect.broken{fill:#fdecea;stroke:#c62828;stroke-width:1.6}\
    line{stroke:#35506b;stroke-width:1.6}line.lost{stroke:#c62828}";

const MARKERS: &str = "<defs><marker id=\"a\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" \
    markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#35506b\"/></marker></defs>";

/// A way, with its lines broken and its widths known.
struct Row<'a> {
    path: &'a Path,
    boxes: Vec<(f64, Vec<String>)>,
    gaps: Vec<f64>,
}

impl<'a> Row<'a> {
    fn new(path: &'a Path) -> Self {
        let boxes = path.stages.iter().map(|stage| {
            let lines: Vec<String> = stage
                .details
                .iter()
                .flat_map(|line| wrap(line, WRAP))
                .collect();
            let longest = lines.iter().map(|line| line.chars().count());
            let longest = longest.chain([stage.title.chars().count(), 10]).max();
            (units(longest.unwrap_or(10)) + 2.0 * PADDING, lines)
        });
        let gaps = path.arrows.iter().map(|arrow| {
            let labels = Labels::of(arrow);
            let all = labels.above.iter().chain(&labels.below).chain(&labels.lost);
            units(all.map(|label| label.chars().count()).max().unwrap_or(0)).max(30.0) + 24.0
        });
        Self {
            path,
            boxes: boxes.collect(),
            gaps: gaps.collect(),
        }
    }

    fn width(&self) -> f64 {
        let boxes = self.boxes.iter().map(|(width, _)| width).sum::<f64>();
        let heading = self.name_width() + units(self.path.about.chars().count());
        heading.max(boxes + self.gaps.iter().sum::<f64>())
    }

    /// Of the name in its larger letters, and the space behind it.
    fn name_width(&self) -> f64 {
        units(self.path.name.chars().count()) * 1.25 + 12.0
    }

    /// Of its boxes.
    fn box_height(&self) -> f64 {
        let lines = self.boxes.iter().map(|(_, lines)| lines.len()).max();
        // Arrows have as many lines above and below them.
        units_of_lines(lines.unwrap_or(0) + 1).max(7.0 * LINE)
    }

    fn height(&self) -> f64 {
        TITLE + self.box_height() + 28.0
    }

    fn draw(&self, y: f64, out: &mut String) {
        label(out, MARGIN, y + 14.0, "name", &self.path.name);
        label(
            out,
            MARGIN + self.name_width(),
            y + 14.0,
            "small",
            &self.path.about,
        );
        let top = y + TITLE - 6.0;
        let mut x = MARGIN;
        for (index, stage) in self.path.stages.iter().enumerate() {
            let (width, lines) = &self.boxes[index];
            self.stage(stage, lines, (x, top, *width), out);
            x += width;
            if let (Some(arrow), Some(gap)) = (self.path.arrows.get(index), self.gaps.get(index)) {
                self.arrow(arrow, (x, top, *gap), out);
                x += gap;
            }
        }
    }

    fn stage(
        &self,
        stage: &Stage,
        lines: &[String],
        (x, y, width): (f64, f64, f64),
        out: &mut String,
    ) {
        let class = if stage.broken {
            "stage broken"
        } else {
            "stage"
        };
        let height = self.box_height();
        let _ = writeln!(
            out,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"6\"/>"
        );
        label(out, x + PADDING, y + 20.0, "title", &stage.title);
        let mut at = y + 20.0 + LINE;
        for line in lines {
            label(out, x + PADDING, at, "", line);
            at += LINE;
        }
    }

    fn arrow(&self, arrow: &Arrow, (x, y, width): (f64, f64, f64), out: &mut String) {
        let (middle, height) = (x + width / 2.0, self.box_height());
        let (right, left) = (y + height / 2.0 - 5.0, y + height / 2.0 + 5.0);
        let class = if arrow.drops.is_empty() {
            ""
        } else {
            " class=\"lost\""
        };
        for (from, to, at) in [
            (x + 3.0, x + width - 3.0, right),
            (x + width - 3.0, x + 3.0, left),
        ] {
            let _ = writeln!(
                out,
                "<line{class} x1=\"{from:.1}\" y1=\"{at:.1}\" x2=\"{to:.1}\" y2=\"{at:.1}\" marker-end=\"url(#a)\"/>"
            );
        }
        let labels = Labels::of(arrow);
        let mut at = right - 8.0 - 14.0 * (labels.above.len().saturating_sub(1)) as f64;
        for text in &labels.above {
            label(out, middle, at, "small mid", text);
            at += 14.0;
        }
        at = left + 16.0;
        for text in &labels.below {
            label(out, middle, at, "small mid", text);
            at += 14.0;
        }
        for text in &labels.lost {
            label(out, middle, at, "small drop mid", text);
            at += 14.0;
        }
    }
}

/// What stands at an arrow.
struct Labels {
    above: Vec<String>,
    below: Vec<String>,
    lost: Vec<String>,
}

impl Labels {
    fn of(arrow: &Arrow) -> Self {
        let split = |flow: Option<crate::live::Flow>| -> Vec<String> {
            let rate = crate::print::rate;
            let lines = flow.map(|flow| {
                [
                    format!("{} frames/s", rate(flow.frames)),
                    format!("{} bit/s", rate(flow.bits)),
                ]
            });
            lines.into_iter().flatten().collect()
        };
        let mut above = split(arrow.from_guest);
        let notes = arrow.note.iter().flat_map(|note| note.split(", "));
        above.splice(0..0, notes.map(str::to_owned));
        Self {
            above,
            below: split(arrow.to_guest),
            lost: arrow
                .lost()
                .into_iter()
                .flat_map(|lost| wrap(&lost, WRAP))
                .collect(),
        }
    }
}

// Lines are short and few.
fn units(letters: usize) -> f64 {
    letters as f64 * LETTER
}

fn units_of_lines(lines: usize) -> f64 {
    lines as f64 * LINE + 14.0
}

fn label(out: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
    );
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in crate::print::clean(text).chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            // No characters of XML.
            '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests;
