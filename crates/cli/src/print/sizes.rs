//! What a measurement of the switch found.

use ringway_measure::{
    statistics::Spread,
    switch::{
        figure,
        sizing::{Limit, Report},
    },
};

use super::table::{Align, Table};

/// A table and what it means.
pub(crate) fn sizes(report: &Report) -> String {
    let mut table = Table::new([
        ("FRAME", Align::Right),
        ("RING", Align::Left),
        ("WORKERS", Align::Right),
        ("MPPS", Align::Right),
        ("+-", Align::Right),
        ("GBIT/S", Align::Right),
        ("P50 US", Align::Right),
        ("P99 US", Align::Right),
        ("S/MFRAME", Align::Right),
        ("S/GBIT", Align::Right),
        ("SWITCHES", Align::Right),
        ("WAKEUPS", Align::Right),
        ("LIMIT", Align::Left),
    ]);
    for outcome in &report.rows {
        let row = outcome.row;
        table.row([
            row.frame.to_string(),
            if row.packed { "packed" } else { "split" }.into(),
            row.workers.to_string(),
            figure(outcome.mpps.median),
            width(outcome.mpps),
            figure(outcome.gbps.median),
            figure(outcome.latency_p50_us.median),
            figure(outcome.latency_p99_us.median),
            figure(outcome.cpu_seconds_per_million_frames.median),
            figure(outcome.cpu_seconds_per_gbit.median),
            figure(outcome.context_switches_per_1000_frames.median),
            figure(outcome.wakeups_per_1000_frames.median),
            match outcome.limit {
                Limit::Switch => "switch",
                Limit::Guests => "guests",
                Limit::Processors => "shared CPUs",
            }
            .into(),
        ]);
    }
    let machine = &report.machine;
    let huge = if report.huge_pages {
        "huge"
    } else {
        "ordinary"
    };
    let mut text = format!(
        "{}, {} CPUs, Linux {}, guests' memory in {huge} pages\n",
        machine.model, machine.processors, machine.kernel
    );
    let mut said = Vec::new();
    for outcome in &report.rows {
        let placed = (outcome.row.workers, &outcome.placement);
        if !said.contains(&placed) {
            text += &format!(
                "{} of the switch on CPU {}, guests on CPU {}\n",
                match outcome.row.workers {
                    1 => "1 worker".into(),
                    many => format!("{many} workers"),
                },
                list(&outcome.placement.switch),
                list(&outcome.placement.guests)
            );
            said.push(placed);
        }
    }
    text += &format!(
        "\n{table}\n\
         Medians of {} rounds of {:.1} s; +- is half of what lies between the slowest and the fastest. MPPS: million frames a second \
         that arrived. P50, P99: microseconds under way, at half that rate and at most 1 MPPS. S: seconds of processor time of the switch, for \
         a million frames and for a Gbit. SWITCHES, WAKEUPS: of its threads, for 1,000 frames.\n",
        report.rounds, report.window_seconds
    );
    for sentence in &report.meaning {
        text += &format!("\n- {sentence}");
    }
    text + "\n"
}

/// Half of what lies between the extremes, in per cent of the median.
fn width(of: Spread) -> String {
    format!("{:.0}%", 50.0 * (of.max - of.min) / of.median)
}

fn list(cpus: &[usize]) -> String {
    let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
    cpus.join(",")
}
