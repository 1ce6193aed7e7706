//! Columns for people: as wide as they have to be, two spaces apart.

use std::fmt;

use super::clean;

/// Where the text of a column stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    /// Numbers.
    Right,
}

/// A heading and rows of as many cells.
pub(super) struct Table<const N: usize> {
    align: [Align; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    pub(super) fn new(columns: [(&str, Align); N]) -> Self {
        Self {
            align: columns.map(|(_, align)| align),
            rows: vec![columns.map(|(heading, _)| heading.to_owned())],
        }
    }

    pub(super) fn row(&mut self, cells: [String; N]) {
        // Some of them are names that guests and other programs gave themselves.
        self.rows.push(cells.map(|cell| clean(&cell).into_owned()));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = |cell: &String| cell.chars().count();
        let widths: [usize; N] = std::array::from_fn(|column| {
            let cells = self.rows.iter().map(|row| length(&row[column]));
            cells.max().unwrap_or_default()
        });
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let space = " ".repeat(widths[column] - length(cell));
                match self.align[column] {
                    Align::Left => line += &format!("{cell}{space}  "),
                    Align::Right => line += &format!("{space}{cell}  "),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// What stands in a cell: the value, or `-`.
pub(super) fn cell<T: ToString>(value: &Option<T>) -> String {
    value
        .as_ref()
        .map_or_else(|| "-".into(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_starts_and_numbers_end_in_one_column() {
        let columns = [
            ("NAME", Align::Left),
            ("PORTS", Align::Right),
            ("BRIDGE", Align::Left),
        ];
        let mut table = Table::new(columns);
        table.row(["büro".into(), "7".into(), cell::<u8>(&None)]);
        table.row(["default".into(), "123456".into(), String::new()]);
        assert_eq!(
            table.to_string(),
            "NAME      PORTS  BRIDGE\n\
             büro          7  -\n\
             default  123456\n"
        );
    }
}
