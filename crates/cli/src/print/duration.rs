//! Times, as somebody who waits would say them.

/// The two largest units, of which nobody needs the third.
pub(super) fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, rest) = (seconds / 60 % 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest} s"),
        (0, 0, _) => format!("{minutes} min {rest} s"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// How far off a time is, both in seconds since 1970.
pub(super) fn until(time: u64, now: u64) -> String {
    match time.checked_sub(now) {
        Some(left) if left > 0 => format!("in {}", duration(left)),
        _ => "over".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_units_say_enough() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_599, "59 min 59 s"),
            (3_600, "1 h 0 min"),
            (86_399, "23 h 59 min"),
            (90_000, "1 d 1 h"),
            (u64::MAX, "213503982334601 d 7 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(until(100, 55), "in 45 s");
        assert_eq!(until(100, 100), "over");
        assert_eq!(until(100, u64::MAX), "over");
    }
}
