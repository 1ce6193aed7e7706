//! Text of others on a terminal: names of processes, of guests, of files.

use std::borrow::Cow;

/// The same with `?` for what would move the cursor, change colours or turn the direction of writing around.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    match text.contains(acts) {
        false => Cow::Borrowed(text),
        true => Cow::Owned(text.replace(acts, "?")),
    }
}

/// Not shown but obeyed: controls, and marks of direction (Unicode, Bidi_Control).
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_as_a_question() {
        for (text, shown) in [
            ("büro 1", "büro 1"),
            ("a\x1b[2Jb\r\n\u{9b}c\u{7f}", "a?[2Jb???c?"),
            ("txt\u{202e}gpj", "txt?gpj"),
        ] {
            assert_eq!(clean(text), shown, "{text:?}");
        }
    }
}
