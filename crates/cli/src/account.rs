//! Users and groups by name, as the host's files have them.

use std::fs;

/// A user's number, from its number or name.
pub(crate) fn user(text: &str) -> Result<u32, String> {
    number(text, "/etc/passwd", "user")
}

/// A group's number, from its number or name.
pub(crate) fn group(text: &str) -> Result<u32, String> {
    number(text, "/etc/group", "group")
}

fn number(text: &str, file: &str, what: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let table = fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
    find(&table, text).ok_or_else(|| {
        format!("there is no {what} {text} in {file}; give the number that `getent` says")
    })
}

/// Lines are `NAME:PASSWORD:NUMBER:...` in both files.
fn find(table: &str, name: &str) -> Option<u32> {
    let mut lines = table.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        (fields.next() == Some(name))
            .then(|| fields.nth(1))??
            .parse()
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_numbers() {
        let table = "root:x:0:0::/root:/bin/sh\nkvm:x:104:\nbroken\n";
        assert_eq!(find(table, "kvm"), Some(104));
        assert_eq!(find(table, "root"), Some(0));
        assert_eq!(find(table, "broken"), None);
        assert_eq!(find(table, "nobody"), None);
        assert_eq!(user("1000"), Ok(1000));
        assert!(
            group("no such")
                .unwrap_err()
                .contains("there is no group no such")
        );
    }
}
