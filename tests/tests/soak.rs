//! Half a minute of `make soak`.

use std::sync::Arc;

use anyhow::Result;
use ringway_tests::{Lab, hostile::soak};

#[test]
fn an_honest_pair_loses_nothing_while_others_play_every_lie() -> Result<()> {
    let Some(lab) = Lab::with("soak", &[])? else {
        return Ok(());
    };
    let report = soak::run(&lab, 30, &Arc::default())?;
    for line in report.to_string().lines() {
        lab.report(line);
    }
    Ok(())
}
