//! A map in a terminal: boxes below each other, arrows with rates between them.

use super::path::{Arrow, Kind, Map, Path, Stage};

/// How it may look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Columns there are.
    pub(super) width: usize,
    pub(super) ascii: bool,
    pub(super) colours: bool,
}

/// Wider boxes are not easier to read.
const WIDEST: usize = 78;
/// Below that boxes are cut off by the terminal.
const NARROWEST: usize = 24;

struct Signs {
    corners: [&'static str; 4],
    across: &'static str,
    down: &'static str,
    from_guest: &'static str,
    to_guest: &'static str,
}

const DRAWN: Signs = Signs {
    corners: ["┌", "┐", "└", "┘"],
    across: "─",
    down: "│",
    from_guest: "▼",
    to_guest: "▲",
};

const ASCII: Signs = Signs {
    corners: ["+", "+", "+", "+"],
    across: "-",
    down: "|",
    from_guest: "v",
    to_guest: "^",
};

pub(super) fn text(map: &Map, look: Look) -> String {
    let mut text = String::new();
    let mut before = None;
    for path in &map.paths {
        if before.is_some() {
            text.push('\n');
        }
        look.path(path, before, &mut text);
        before = Some(path);
    }
    text
}

impl Look {
    fn signs(self) -> &'static Signs {
        if self.ascii { &ASCII } else { &DRAWN }
    }

    /// Columns of a box.
    fn columns(self) -> usize {
        self.width.clamp(NARROWEST, WIDEST)
    }

    /// A guest that stands in the way before as well is not told about twice.
    fn path(self, path: &Path, before: Option<&Path>, text: &mut String) {
        let title = format!("{}  {}", path.name, path.about);
        let fits = title.chars().count() <= self.columns();
        let lines = match fits {
            true => vec![title],
            false => vec![path.name.clone(), path.about.clone()],
        };
        for line in lines {
            *text += &self.painted(&self.cut(&line, self.columns()), BOLD);
            text.push('\n');
        }
        for (index, stage) in path.stages.iter().enumerate() {
            let known = stage.kind == Kind::Guest && path.pid.is_some();
            match before.filter(|before| known && before.pid == path.pid) {
                Some(_) => {
                    let short = Stage::new(stage.kind, stage.title.as_str());
                    self.stage(&short.detail("as above"), text);
                }
                None => self.stage(stage, text),
            }
            if let Some(arrow) = path.arrows.get(index) {
                self.arrow(arrow, text);
            }
        }
    }

    fn stage(self, stage: &Stage, text: &mut String) {
        let signs = self.signs();
        let inner = self.columns() - 4;
        let title = self.cut(&stage.title, inner - 2);
        let rest = signs.across.repeat(inner - 1 - title.chars().count());
        let [left, right, low_left, low_right] = signs.corners;
        let title = if stage.broken {
            self.painted(&title, RED)
        } else {
            self.painted(&title, BOLD)
        };
        *text += &format!("{left}{} {title} {rest}{right}\n", signs.across);
        for line in &stage.details {
            let line = self.cut(line, inner);
            let space = " ".repeat(inner - line.chars().count());
            let line = if stage.broken {
                self.painted(&line, RED)
            } else {
                line
            };
            *text += &format!("{0} {line}{space} {0}\n", signs.down);
        }
        *text += &format!("{low_left}{}{low_right}\n", signs.across.repeat(inner + 2));
    }

    fn arrow(self, arrow: &Arrow, text: &mut String) {
        let signs = self.signs();
        let [from, to] = arrow.flows();
        let from = from.map_or_else(
            || signs.from_guest.into(),
            |it| format!("{} {it}", signs.from_guest),
        );
        let to = to.map_or_else(
            || signs.to_guest.into(),
            |it| format!("{} {it}", signs.to_guest),
        );
        let half = (self.columns() / 2).saturating_sub(2);
        let both = from.chars().count().max(to.chars().count()) <= half.saturating_sub(2);
        let mut lines = Vec::new();
        let note = arrow.note.as_deref().unwrap_or_default();
        match both || arrow.from_guest.is_none() {
            true if arrow.from_guest.is_none() => lines.push(format!("{from} {to}  {note}")),
            true => lines.push(format!("{from:<half$}{to}")),
            false => lines.extend([from, to]),
        }
        if arrow.from_guest.is_some() && !note.is_empty() {
            let last = lines
                .last_mut()
                .filter(|line| line.chars().count() + note.chars().count() + 8 <= self.columns());
            match last {
                Some(line) => *line += &format!("  ({note})"),
                None => lines.push(format!("  ({note})")),
            }
        }
        for line in lines {
            let line = self.cut(&line, self.columns() - 2);
            *text += &format!("  {}\n", line.trim_end());
        }
        if let Some(lost) = arrow.lost() {
            let lost = self.cut(&lost, self.columns() - 4);
            *text += &format!("    {}\n", self.painted(&lost, RED));
        }
    }

    fn painted(self, text: &str, sequence: &str) -> String {
        match self.colours {
            true => format!("\x1b[{sequence}m{text}\x1b[0m"),
            false => text.to_owned(),
        }
    }

    /// At most `width` characters.
    fn cut(self, text: &str, width: usize) -> String {
        let foreign = |c: char| self.ascii && !c.is_ascii();
        let text = crate::print::clean(text).replace(foreign, "?");
        if text.chars().count() <= width {
            return text;
        }
        let kept: String = text.chars().take(width.saturating_sub(1)).collect();
        kept + "~"
    }
}

const BOLD: &str = "1";
const RED: &str = "31";

#[cfg(test)]
mod tests;
