//! Long lines.

/// Lines of at most `width` letters, broken at words, and within those that are too long.
pub(crate) fn wrap(line: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines: Vec<String> = vec![String::new()];
    for word in line.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        while !word.is_empty() {
            let last = lines.last().map_or(0, |line| line.chars().count());
            let space = usize::from(last > 0);
            if last + space + word.len() <= width {
                if let Some(line) = lines.last_mut() {
                    line.extend([" "].iter().take(space).copied());
                    line.extend(word.drain(..));
                }
            } else if last > 0 {
                lines.push(String::new());
            } else if let Some(line) = lines.last_mut() {
                line.extend(word.drain(..width));
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_at_words_or_else_within() {
        assert_eq!(
            wrap("worker-0 on CPU 3, 98.7 %, and so on and on", 36),
            ["worker-0 on CPU 3, 98.7 %, and so on", "and on"]
        );
        assert_eq!(
            wrap(&"x".repeat(77), 36),
            ["x".repeat(36), "x".repeat(36), "x".repeat(5)]
        );
        assert_eq!(wrap("", 36), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }
}
