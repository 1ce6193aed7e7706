//! A bar for each row, as long as its frames per second, with a line from the slowest round to the fastest.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::meaning::figure;
use super::sizing::{Limit, Outcome, Report};

const WIDTH: i32 = 900;
/// Where bars begin, and how long the longest is.
const LEFT: i32 = 190;
const LONGEST: f64 = 430.0;
const BAR: i32 = 16;
const STEP: i32 = 24;
const TOP: i32 = 70;

const SPLIT: RGBColor = RGBColor(0x0b, 0x6e, 0x99);
const PACKED: RGBColor = RGBColor(0xb0, 0x75, 0x2a);

/// As SVG.
pub fn svg(report: &Report) -> Result<String> {
    let mut text = String::new();
    let height = TOP + STEP * i32::try_from(report.rows.len())? + 50;
    let size = (WIDTH.unsigned_abs(), height.unsigned_abs());
    draw(report, SVGBackend::with_string(&mut text, size), height)
        .map_err(|error| anyhow!("the plot cannot be drawn: {error}"))?;
    Ok(text)
}

fn draw(
    report: &Report,
    backend: SVGBackend<'_>,
    height: i32,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = backend.into_drawing_area();
    area.fill(&WHITE)?;
    let write = |text: &str, at: (i32, i32), size: i32, right: bool| {
        let side = if right { HPos::Right } else { HPos::Left };
        let style = TextStyle::from(("sans-serif", size).into_font());
        let style = style.pos(Pos::new(side, VPos::Center));
        area.draw(&Text::new(text.to_owned(), at, style))
    };
    write(
        "ringway switch: million frames per second",
        (20, 20),
        17,
        false,
    )?;
    let machine = &report.machine;
    let place = format!(
        "{}, {} CPUs, Linux {}; medians of {} rounds, lines from the slowest to the fastest",
        machine.model, machine.processors, machine.kernel, report.rounds
    );
    write(&place, (20, 44), 12, false)?;
    let rates = report.rows.iter().map(|outcome| outcome.mpps.max);
    let most = rates.fold(f64::MIN_POSITIVE, f64::max);
    let at = |mpps: f64| {
        let pixels = (mpps / most * LONGEST).clamp(0.0, LONGEST).round();
        // As long as the longest at most.
        #[expect(clippy::cast_possible_truncation)]
        let pixels = pixels as i32;
        LEFT + pixels
    };
    let mut y = TOP;
    for outcome in &report.rows {
        let Outcome { mpps, row, .. } = outcome;
        let middle = y + BAR / 2;
        write(&row.to_string(), (LEFT - 8, middle), 12, true)?;
        let color = if row.packed { PACKED } else { SPLIT };
        let style = match outcome.limit {
            Limit::Processors => color.mix(0.45).filled(),
            _ => color.filled(),
        };
        area.draw(&Rectangle::new(
            [(LEFT, y), (at(mpps.median), y + BAR)],
            style,
        ))?;
        let whisker = [(at(mpps.min), middle), (at(mpps.max), middle)];
        area.draw(&PathElement::new(whisker, BLACK.stroke_width(1)))?;
        let label = format!(
            "{} Mpps, {} Gbit/s",
            figure(mpps.median),
            figure(outcome.gbps.median)
        );
        write(&label, (at(mpps.max) + 8, middle), 12, false)?;
        y += STEP;
    }
    let shared = report
        .rows
        .iter()
        .any(|outcome| outcome.limit == Limit::Processors);
    if shared {
        let text = "Pale: guests and switch shared CPUs.";
        write(text, (20, height - 22), 12, false)?;
    }
    area.present()?;
    Ok(())
}
