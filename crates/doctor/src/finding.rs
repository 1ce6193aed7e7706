//! What is wrong.

use std::fmt::Write as _;

use serde::Serialize;

/// One thing that is wrong, in sentences for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which fault of the table: its name.
    pub fault: &'static str,
    /// The machine it concerns; `None` = the host.
    pub machine: Option<String>,
    /// The thing: a NIC, a tap, a bridge, a file.
    pub subject: String,
    /// What is wrong with it.
    pub what: String,
    /// Why that matters: what a person sees of it.
    pub why: &'static str,
    /// What to run, or to change, to have it gone: shell commands, each complete. Those that begin with `#` say what to do by hand.
    pub cure: Vec<String>,
}

/// Text of a name, a file or a program that is not known, as one line of a terminal: what would move its cursor, end the line or turn
/// the direction of writing stands there as its number.
pub fn visible(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for letter in text.chars() {
        match hides(letter) {
            true => write!(seen, "{}", letter.escape_unicode()).unwrap_or_default(),
            false => seen.push(letter),
        }
    }
    seen
}

/// Controls, separators of lines, and what changes the direction (Unicode 15, section 23.2 and 23.3).
fn hides(letter: char) -> bool {
    let turns = matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    letter.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_draw_on_the_terminal_or_begin_a_line() {
        assert_eq!(visible("wéb 1"), "wéb 1");
        assert_eq!(
            visible("a\u{1b}[2Jb\nrm\u{202e}"),
            r"a\u{1b}[2Jb\u{a}rm\u{202e}"
        );
    }
}
