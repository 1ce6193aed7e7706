//! A panel for each load: bars as long as the median, a line where the true one lies 19 of 20 times.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{Figure, Kind, Load, Report, Row, table::name};

/// A panel's own size, without its bars.
const WIDTH: i32 = 470;
const HEAD: i32 = 34;
const BAR: i32 = 15;
const STEP: i32 = 21;
/// Where bars begin, and how long the longest is.
const LEFT: i32 = 104;
const LONGEST: f64 = 250.0;
/// Above all panels.
const TITLE: i32 = 58;
const COLUMNS: usize = 2;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// What a panel shows.
struct Panel<'a> {
    title: String,
    figure: Figure,
    rows: Vec<&'a Row>,
}

impl Report {
    /// As SVG.
    pub fn svg(&self) -> Result<String> {
        let panels = self.panels();
        let bars = panels
            .iter()
            .map(|panel| panel.rows.len())
            .max()
            .unwrap_or(0);
        let height = HEAD + STEP * i32::try_from(bars)? + 12;
        let lines = i32::try_from(panels.len().div_ceil(COLUMNS))?;
        let size = (
            (WIDTH * 2).unsigned_abs(),
            (TITLE + lines * height + 8).unsigned_abs(),
        );
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let drawn = self.draw(&area, &panels, height);
        let drawn = drawn.and_then(|()| Ok(area.present()?));
        drop(area);
        drawn.map_err(|error| anyhow!("the plot cannot be drawn: {error}"))?;
        Ok(text)
    }

    /// One for each load, and one of what the first of them costs.
    fn panels(&self) -> Vec<Panel<'_>> {
        let panel = |load: Load, figure: Figure, unit: &str| {
            let rows = self.rows.iter().filter(|row| row.load == load);
            let rows = rows
                .filter(|row| row.figures.contains_key(&figure))
                .collect::<Vec<_>>();
            let title = format!("{}: {unit}", load.title());
            (!rows.is_empty()).then_some(Panel {
                title,
                figure,
                rows,
            })
        };
        let main = Load::ALL.into_iter().filter_map(|load| {
            let figure = Figure::main_of(load);
            panel(load, figure, unit(figure))
        });
        let costs = panel(
            Load::Tcp1,
            Figure::SecondsPerGigabit,
            "CPU seconds of the host per Gbit",
        );
        main.chain(costs).collect()
    }

    fn draw(&self, area: &Area, panels: &[Panel], height: i32) -> Drawn {
        area.fill(&WHITE)?;
        write(
            area,
            "What the paths between two guests carry",
            (16, 20),
            17,
            HPos::Left,
        )?;
        let machine = &self.machine;
        // The reason in full stands in the tables.
        let accel = machine.accel.split(',').next().unwrap_or_default();
        let place = format!(
            "{}, {} CPUs, Linux {}, QEMU {}, {accel}; medians of {} rounds, lines where the true ones lie 19 of 20 times",
            machine.model, machine.processors, machine.kernel, machine.qemu, self.rounds
        );
        write(area, &place, (16, 42), 12, HPos::Left)?;
        for (index, panel) in panels.iter().enumerate() {
            let (line, column) = (
                i32::try_from(index / COLUMNS)?,
                i32::try_from(index % COLUMNS)?,
            );
            panel.draw(area, (column * WIDTH, TITLE + line * height))?;
        }
        Ok(())
    }
}

impl Panel<'_> {
    fn draw(&self, area: &Area, (left, top): (i32, i32)) -> Drawn {
        write(area, &self.title, (left + 16, top + 14), 13, HPos::Left)?;
        let spread = |row: &Row| row.figures.get(&self.figure).copied();
        let most = self
            .rows
            .iter()
            .filter_map(|row| spread(row))
            .map(|of| of.high());
        let most = most.fold(f64::MIN_POSITIVE, f64::max);
        let at = |value: f64| {
            let pixels = (value / most * LONGEST).clamp(0.0, LONGEST).round();
            // As long as the longest at most.
            #[expect(clippy::cast_possible_truncation)]
            let pixels = pixels as i32;
            left + LEFT + pixels
        };
        let mut y = top + HEAD;
        for row in &self.rows {
            let Some(of) = spread(row) else { continue };
            let middle = y + BAR / 2;
            write(area, &name(row), (left + LEFT - 8, middle), 12, HPos::Right)?;
            let bar = [(at(0.0), y), (at(of.median), y + BAR)];
            area.draw(&Rectangle::new(bar, color(row.path).filled()))?;
            let line = [(at(of.low()), middle), (at(of.high()), middle)];
            area.draw(&PathElement::new(line, BLACK.stroke_width(1)))?;
            let label = match of.median {
                value if value >= 100.0 => format!("{value:.0}"),
                value if value >= 10.0 => format!("{value:.1}"),
                value => format!("{value:.2}"),
            };
            write(area, &label, (at(of.high()) + 8, middle), 12, HPos::Left)?;
            y += STEP;
        }
        Ok(())
    }
}

fn write(area: &Area, text: &str, at: (i32, i32), size: i32, side: HPos) -> Drawn {
    let style = TextStyle::from(("sans-serif", size).into_font());
    let style = style.pos(Pos::new(side, VPos::Center));
    Ok(area.draw(&Text::new(text.to_owned(), at, style))?)
}

fn unit(figure: Figure) -> &'static str {
    match figure {
        Figure::Kiloframes => "1,000 frames/s",
        Figure::Median => "µs, less is better",
        _ => "Gbit/s",
    }
}

/// By who serves the guest's device.
fn color(kind: Kind) -> RGBColor {
    match kind {
        Kind::VhostUser => RGBColor(0x0b, 0x6e, 0x99),
        Kind::VhostNet | Kind::Vfio | Kind::User | Kind::Passt => RGBColor(0x3f, 0x8f, 0x4f),
        Kind::Tap | Kind::Macvtap => RGBColor(0xb0, 0x75, 0x2a),
        Kind::Igb | Kind::E1000e | Kind::E1000 => RGBColor(0x8a, 0x8a, 0x8a),
    }
}

#[cfg(test)]
mod tests {
    use crate::paths::report::example;

    #[test]
    fn bars_are_as_long_as_their_share_of_the_longest_interval() {
        let svg = example().svg().unwrap();
        // 2.0 and 1.0 of at most 2.19 Gbit/s.
        assert!(svg.contains(r#"width="229" height="15""#), "{svg}");
        assert!(svg.contains(r#"width="114" height="15""#), "{svg}");
        for text in [
            "vhost-user x2",
            "TCP, 1 stream, A to B: Gbit/s",
            "µs, less is better",
            "CPU seconds",
        ] {
            assert!(svg.contains(text), "{text} is not in {svg}");
        }
    }
}
