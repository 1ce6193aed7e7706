//! Numbers per second for people.

/// Three digits that count, and the thousands they are of: `0`, `7.5`, `999`, `12.3k`, `9.41G`.
pub(crate) fn rate(value: f64) -> String {
    if value < 0.05 {
        return "0".into();
    }
    let mut value = value;
    let mut units = ["", "k", "M", "G", "T"].into_iter().peekable();
    let mut unit = "";
    while let Some(next) = units.next() {
        unit = next;
        // What would be rounded to 1000 belongs to the next.
        if value < 999.5 || units.peek().is_none() {
            break;
        }
        value /= 1000.0;
    }
    let decimals = match value {
        _ if value >= 99.95 => 0,
        _ if value >= 9.995 || unit.is_empty() => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    // Whole numbers below a thousand stand as such.
    let whole = text.strip_suffix(".0").filter(|_| unit.is_empty());
    format!("{}{unit}", whole.unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_are_enough_for_people() {
        for (value, text) in [
            (0.0, "0"),
            (0.04, "0"),
            (0.5, "0.5"),
            (1.0, "1"),
            (12.34, "12.3"),
            (999.4, "999"),
            (999.6, "1.00k"),
            (1234.0, "1.23k"),
            (12_345.0, "12.3k"),
            (999_499.0, "999k"),
            (1_000_000.0, "1.00M"),
            (9_414_000_000.0, "9.41G"),
            (5e15, "5000T"),
        ] {
            assert_eq!(rate(value), text, "{value}");
        }
    }
}
