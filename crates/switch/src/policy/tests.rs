use super::*;

/// Within this part of what was asked for.
const EXACT: f64 = 0.001;

#[test]
fn a_limit_admits_its_rate_over_time_however_often_it_is_asked() {
    for (bits_per_second, step, steps, len) in [
        (80_000_000, Duration::from_millis(1), 100_000, 1500),
        (10_000_000, Duration::from_micros(1), 1_000_000, 64),
        (3_333_333, Duration::from_nanos(700), 1_000_000, 100),
        (1_000, Duration::from_millis(100), 10_000, 1500),
        (40_000_000_000, Duration::from_micros(50), 100_000, 65_000),
    ] {
        let start = Instant::now();
        let limiter = Limiter::new(bits_per_second, None, start);
        let mut now = start;
        // The bucket is full at first.
        while limiter.admit([len].into_iter(), now) > 0 {}
        let mut bits = 0;
        for _ in 0..steps {
            now += step;
            bits += 8 * u64::from(len) * limiter.admit(std::iter::repeat_n(len, 1000), now) as u64;
        }
        let expected = bits_per_second as f64 * (now - start).as_secs_f64();
        // What was started may be a frame ahead, or behind what is owed for the last one before.
        let slack = 16.0 * f64::from(len) + expected * EXACT;
        assert!(
            (bits as f64 - expected).abs() < slack,
            "{bits_per_second}: {bits}, {expected}"
        );
    }
}

#[test]
fn a_guest_is_delayed_to_its_rate_whatever_it_sends() {
    for (bits_per_second, len) in [(8_000_000, 60), (100_000_000, 1514), (1_000_000, 65_000)] {
        let start = Instant::now();
        let limiter = Limiter::new(bits_per_second, None, start);
        let mut now = start;
        let mut bytes = 0;
        while now < start + Duration::from_secs(60) {
            match limiter.grant(now) {
                Ok(room) => {
                    let burst = room.div_ceil(len) * len;
                    bytes += burst;
                    assert!(burst < 48_000 + len || burst <= room + len);
                    limiter.delay(burst, now);
                }
                Err(rest) => now += rest,
            }
        }
        let rate = bytes as f64 * 8.0 / 60.0 / bits_per_second as f64;
        assert!((0.99..1.03).contains(&rate), "{bits_per_second}: {rate}");
    }
}

#[test]
fn a_guest_that_sent_too_much_rests_until_it_is_even() {
    let start = Instant::now();
    let limiter = Limiter::new(8_000_000, None, start); // 1 MB/s
    assert_eq!(limiter.delay(10_000, start), None, "the bucket was full");
    let rest = limiter.delay(100_000, start).expect("the bucket is empty");
    assert!((40..50).contains(&rest.as_millis()), "{rest:?}");
    assert_eq!(limiter.grant(start).unwrap_err(), rest);
    assert!(limiter.grant(start + rest).is_ok());
}

#[test]
fn a_burst_is_as_large_as_was_said() {
    let start = Instant::now();
    for burst in [1, 10_000, 1_000_000] {
        let limiter = Limiter::new(8_000_000, Some(burst), start);
        let admitted = limiter.admit(std::iter::repeat_n(1000, 5000), start) as u64;
        assert_eq!(admitted, burst.div_ceil(1000));
    }
}

#[test]
fn a_storm_is_cut_to_so_many_frames_per_second() {
    let start = Instant::now();
    let storm = Storm::new(1000, start);
    assert_eq!(storm.admit(1500, start), 1000, "a second's worth");
    let mut admitted = 0;
    for step in 1..=300_000 {
        admitted += storm.admit(32, start + Duration::from_micros(step * 10));
    }
    assert!((2995..=3000).contains(&admitted), "{admitted}");
}
