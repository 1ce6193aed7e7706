//! The table at the demo's end.

use anyhow::{Context, Result};
use ringway_tests::{
    iperf::Measured,
    qemu::Accel,
    switch::{PortStatistics, Statistics},
};

use crate::screen::Screen;

/// Everything that was measured.
pub(crate) struct Report {
    pub(crate) accel: Accel,
    pub(crate) rtt: Rtt,
    /// From a to b, from b to a.
    pub(crate) tcp: [Measured; 2],
    pub(crate) statistics: Statistics,
}

/// What ping says at its end; milliseconds.
#[derive(Debug, PartialEq)]
pub(crate) struct Rtt {
    pub(crate) lost: u32,
    least: f64,
    average: f64,
    most: f64,
}

impl Rtt {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || format!("not what ping prints: {text:?}");
        let number = |mark: &str| -> Option<u32> {
            text.split(mark)
                .next()?
                .split_whitespace()
                .last()?
                .parse()
                .ok()
        };
        let sent = number(" packets transmitted").with_context(wrong)?;
        let received = number(" packets received").with_context(wrong)?;
        let times = text
            .split("min/avg/max = ")
            .nth(1)
            .and_then(|times| times.split_whitespace().next())
            .with_context(wrong)?;
        let mut times = times.split('/').map(str::parse);
        let mut next = || times.next().with_context(wrong)?.with_context(wrong);
        Ok(Self {
            lost: sent.saturating_sub(received),
            least: next()?,
            average: next()?,
            most: next()?,
        })
    }
}

impl Report {
    pub(crate) fn print(&self, screen: &Screen) -> Result<()> {
        let statistics = &self.statistics;
        let (a, b) = (statistics.port("default/a")?, statistics.port("default/b")?);
        let arrow = screen.arrow();
        let (forth, back) = (format!("a {arrow} b"), format!("b {arrow} a"));
        let Rtt {
            least,
            average,
            most,
            ..
        } = self.rtt;
        let both = |value: &dyn Fn(&PortStatistics) -> String| vec![value(a), value(b)];
        // Frames one guest sends are those of its port from the guest.
        let rows = [
            (
                "ping, least / average / most",
                vec![format!("{least:.2} / {average:.2} / {most:.2} ms")],
            ),
            (
                "TCP throughput (iperf3)",
                self.tcp
                    .map(|run| format!("{:.0} Mbit/s", run.megabits))
                    .to_vec(),
            ),
            ("frames sent", both(&|port| grouped(port.sum().rx_frames))),
            (
                "of these by queue pair",
                both(&|port| {
                    let pairs = port.queues.iter().map(|queue| grouped(queue.rx_frames));
                    pairs.collect::<Vec<_>>().join(" + ")
                }),
            ),
            (
                "kicks from the guest",
                both(&|port| grouped(port.sum().kicks)),
            ),
            ("deliveries", vec![grouped(statistics.delivered)]),
            ("drops", vec![grouped(statistics.dropped)]),
            (
                "bytes delivered",
                vec![grouped(a.sum().tx_bytes + b.sum().tx_bytes)],
            ),
            (
                "bytes copied (once each)",
                vec![grouped(statistics.copied_bytes)],
            ),
        ];
        screen.table(["measured", &forth, &back], &rows);
        let drops = [a, b].into_iter().flat_map(|port| {
            let reasons = port.drops.iter();
            reasons
                .map(|(reason, count)| format!("{} for {}: {reason}", grouped(*count), port.name))
        });
        let drops: Vec<String> = drops.collect();
        if !drops.is_empty() {
            screen.note(&format!("Drops by port and reason: {}.", drops.join(", ")));
        }
        if self.accel == Accel::Tcg {
            screen.note("The guests were emulated: this shows that it works, not how fast it is.");
        }
        screen.blank();
        Ok(())
    }
}

/// With a comma between thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn what_ping_prints_is_read() {
        let text = "PING 10.0.0.2 (10.0.0.2): 56 data bytes\n\n--- 10.0.0.2 ping statistics ---\n\
            100 packets transmitted, 98 packets received, 2% packet loss\n\
            round-trip min/avg/max = 0.310/0.452/1.201 ms\n";
        let rtt = Rtt::parse(text).unwrap();
        let expected = Rtt {
            lost: 2,
            least: 0.310,
            average: 0.452,
            most: 1.201,
        };
        assert_eq!(rtt, expected);
        assert!(Rtt::parse("ping: unknown host").is_err());
    }
}
