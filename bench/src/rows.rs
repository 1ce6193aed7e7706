//! The rows of the table.

use crate::traffic::Traffic;

/// A row: how it is called on the command line and in the table.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub title: String,
    pub traffic: Traffic,
}

/// Frames under way at most where large ones would otherwise be lost, or touched ones would wait in rings.
const WINDOW: Option<u64> = Some(96);

/// All rows of the table.
pub fn rows() -> Vec<Row> {
    let plain = Traffic::default;
    let sized = |size, packed| Traffic {
        size,
        packed,
        ..plain()
    };
    let touched = |size, packed| Traffic {
        touched: true,
        window: WINDOW,
        ..sized(size, packed)
    };
    let bulk = |packed| Traffic {
        tso: true,
        burst: 4,
        window: Some(24),
        ..sized(65_226, packed)
    };
    vec![
        row("64s", "64 B, split", plain()),
        row("64p", "64 B, packed", sized(64, true)),
        row("512s", "512 B, split", sized(512, false)),
        row("512p", "512 B, packed", sized(512, true)),
        row("1518s", "1518 B, split", sized(1518, false)),
        row("1518p", "1518 B, packed", sized(1518, true)),
        row(
            "9000s",
            "9000 B, split, closed loop",
            Traffic {
                window: WINDOW,
                ..sized(9000, false)
            },
        ),
        row(
            "9000p",
            "9000 B, packed, closed loop",
            Traffic {
                window: WINDOW,
                ..sized(9000, true)
            },
        ),
        row("tso", "65,226 B TSO, split", bulk(false)),
        row("tsop", "65,226 B TSO, packed", bulk(true)),
        row("t1518s", "1518 B, split, touched", touched(1518, false)),
        row("t1518p", "1518 B, packed, touched", touched(1518, true)),
        row("t9000p", "9000 B, packed, touched", touched(9000, true)),
        row(
            "bi",
            "64 B, both ways",
            Traffic {
                both_ways: true,
                ..plain()
            },
        ),
        row(
            "b8",
            "64 B, bursts of 8",
            Traffic {
                burst: 8,
                ..plain()
            },
        ),
        row(
            "r256",
            "64 B, ring of 256",
            Traffic {
                ring: 256,
                ..plain()
            },
        ),
        row(
            "macs",
            "64 B, 1000 MAC pairs",
            Traffic {
                pairs: 1000,
                ..plain()
            },
        ),
        row(
            "inorder",
            "64 B, split, in order",
            Traffic {
                in_order: true,
                ..plain()
            },
        ),
        row(
            "latency",
            "64 B at 1 Mpps, one way",
            Traffic {
                latency: true,
                rate: Some(1.0),
                burst: 1,
                ..plain()
            },
        ),
    ]
}

/// The rows that say most in a minute.
pub const QUICK: [&str; 4] = ["64s", "64p", "1518s", "t1518s"];

fn row(name: &str, title: &str, traffic: Traffic) -> Row {
    Row {
        name: name.into(),
        title: title.into(),
        traffic,
    }
}
