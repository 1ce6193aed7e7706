//! What a measurement of the switch found.

use ringway_measure::{
    statistics::Spread,
    switch::{
        figure,
        sizing::{Limit, Outcome, Report},
        window::Row,
    },
};

use super::table::{Align, Table};

/// Tables and what they mean.
pub(crate) fn sizes(report: &Report) -> String {
    let mut text = format!("{}\n{}\n{}", machine(report), rates(report), costs(report));
    text += &format!(
        "\nMedians of {} rounds of {:.1} s; +- is half of slowest to fastest.\n\
         MPPS: million frames a second that arrived. P50, P99: microseconds under way,\n\
         at half that rate and at most 1 MPPS. S: seconds of processor time of the\n\
         switch, for a million frames and for a Gbit. SWITCHES, WAKEUPS: of its\n\
         threads, for 1,000 frames. BUSY: time a worker had frames.\n",
        report.rounds, report.window_seconds
    );
    for sentence in &report.meaning {
        text += &format!("\n- {sentence}");
    }
    text + "\n"
}

/// Where it was measured, and who ran where.
fn machine(report: &Report) -> String {
    let machine = &report.machine;
    let pages = match report.huge_pages {
        true => "huge",
        false => "ordinary",
    };
    let mut text = format!(
        "{}, {} CPUs, Linux {}, guests' memory in {pages} pages\n",
        machine.model, machine.processors, machine.kernel
    );
    let mut said = Vec::new();
    for outcome in &report.rows {
        let placed = (outcome.row.workers, &outcome.placement);
        if !said.contains(&placed) {
            let s = if placed.0 == 1 { "" } else { "s" };
            text += &format!(
                "{} worker{s} of the switch on CPU {}, guests on CPU {}\n",
                placed.0,
                list(&outcome.placement.switch),
                list(&outcome.placement.guests)
            );
            said.push(placed);
        }
    }
    text
}

fn rates(report: &Report) -> String {
    let columns = [
        FRAME,
        RING,
        WORKERS,
        ("MPPS", Align::Right),
        ("+-", Align::Right),
        ("GBIT/S", Align::Right),
        ("P50 US", Align::Right),
        ("P99 US", Align::Right),
        ("LIMIT", Align::Left),
    ];
    table(report, columns, |[frame, ring, workers], outcome| {
        let limit = match outcome.limit {
            Limit::Switch => "switch",
            Limit::Guests => "guests",
            Limit::Processors => "shared CPUs",
        };
        [
            frame,
            ring,
            workers,
            figure(outcome.mpps.median),
            width(outcome.mpps),
            figure(outcome.gbps.median),
            figure(outcome.latency_p50_us.median),
            figure(outcome.latency_p99_us.median),
            limit.into(),
        ]
    })
}

fn costs(report: &Report) -> String {
    let columns = [
        FRAME,
        RING,
        WORKERS,
        ("S/MFRAME", Align::Right),
        ("S/GBIT", Align::Right),
        ("SWITCHES", Align::Right),
        ("WAKEUPS", Align::Right),
        ("BUSY", Align::Right),
    ];
    table(report, columns, |[frame, ring, workers], outcome| {
        [
            frame,
            ring,
            workers,
            figure(outcome.cpu_seconds_per_million_frames.median),
            figure(outcome.cpu_seconds_per_gbit.median),
            figure(outcome.context_switches_per_1000_frames.median),
            figure(outcome.wakeups_per_1000_frames.median),
            format!("{:.0}%", 100.0 * outcome.worker_busy.median),
        ]
    })
}

/// What a row is of.
const FRAME: (&str, Align) = ("FRAME", Align::Right);
const RING: (&str, Align) = ("RING", Align::Left);
const WORKERS: (&str, Align) = ("WORKERS", Align::Right);

/// A row for each that was measured: `cells` has what it is of, and what was found.
fn table<const N: usize>(
    report: &Report,
    columns: [(&str, Align); N],
    cells: impl Fn([String; 3], &Outcome) -> [String; N],
) -> String {
    let mut table = Table::new(columns);
    for outcome in &report.rows {
        table.row(cells(names(&outcome.row), outcome));
    }
    table.to_string()
}

fn names(row: &Row) -> [String; 3] {
    let ring = if row.packed { "packed" } else { "split" };
    [row.frame.to_string(), ring.into(), row.workers.to_string()]
}

/// Half of what lies between the extremes, in per cent of the median.
fn width(of: Spread) -> String {
    format!("{:.0}%", 50.0 * (of.max - of.min) / of.median)
}

fn list(cpus: &[usize]) -> String {
    let cpus: Vec<_> = cpus.iter().map(usize::to_string).collect();
    cpus.join(",")
}
