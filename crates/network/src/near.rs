//! What somebody may have meant.

use ringway_api::v1::Name;

/// The one of `names` that differs from `name` in the fewest letters; none if all differ in more than two, or in half of it.
pub(crate) fn nearest<'a>(name: &Name, names: impl Iterator<Item = &'a Name>) -> Option<&'a Name> {
    let distances = names.map(|other| (distance(name.as_str(), other.as_str()), other));
    let (least, other) = distances.min_by_key(|(distance, _)| *distance)?;
    (least <= 2 && 2 * least <= name.as_str().len()).then_some(other)
}

/// Letters to insert, delete or replace (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_forgiven_and_another_word_is_not() {
        let names: Vec<Name> = ["default", "lan", "dmz"].map(|n| n.parse().unwrap()).into();
        let near = |text: &str| nearest(&text.parse().unwrap(), names.iter()).map(Name::as_str);
        for (text, meant) in [
            ("defualt", Some("default")),
            ("deflt", Some("default")),
            ("lann", Some("lan")),
            ("la", Some("lan")),
            ("web", None),
            ("a", None),
        ] {
            assert_eq!(near(text), meant, "{text}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
