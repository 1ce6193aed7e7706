//! `make soak`: a switch among hostile guests and front-ends, and two honest ones that must not lose a frame. Seconds as the argument.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use ringway_tests::{Lab, hostile::soak};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let seconds = std::env::args().nth(1).unwrap_or_else(|| "600".to_owned());
    let seconds = seconds
        .parse()
        .with_context(|| format!("'{seconds}' is no number of seconds"))?;
    // The first signal ends it in order, with what came of it so far; the second ends it.
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let lab = Lab::new("soak")?;
    println!("{}", soak::run(&lab, seconds, &stop)?);
    Ok(())
}
