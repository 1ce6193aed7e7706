//! `ringway doctor`: what is slow or broken, why, and what cures it.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use ringway_doctor::{
    Facts, at_once, faults,
    gather::{self, Which},
    judge, troubleshooting,
};

use crate::{Failure, ask::Form, print};

/// Say what is slow or broken between virtual machines and their network, why, and the command that cures it
///
/// Looks at the host and at every QEMU, whoever started it; at one with --vm or --pid; or at a command line before it is run, after
/// `--`. Ends with exit code 1 if something is wrong.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Only the machine of this name
    #[arg(long, value_name = "NAME", conflicts_with = "pid")]
    vm: Option<String>,
    /// Only the machine with this process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pid: Option<i32>,
    /// Look at what QEMU wrote into FILE, too (several times for several)
    #[arg(long, value_name = "FILE")]
    messages: Vec<PathBuf>,
    /// Write down what was seen, to be judged elsewhere
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    save: Option<PathBuf>,
    /// Judge what --save wrote, in place of this host
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vm", "pid", "messages", "command"])]
    from: Option<PathBuf>,
    /// Leave out a fault that is known, by its name (several times for several)
    #[arg(long, value_name = "FAULT", value_parser = fault)]
    ignore: Vec<String>,
    /// Print all faults that it knows, as a page in Markdown
    #[arg(long, exclusive = true)]
    table: bool,
    /// A command line of QEMU that is judged and not run
    #[arg(last = true, value_name = "COMMAND", conflicts_with_all = ["vm", "pid"])]
    command: Vec<String>,
    #[command(flatten)]
    form: Form,
}

fn fault(name: &str) -> Result<String, String> {
    let mut all = faults::TABLE.iter().flat_map(|chapter| chapter.faults);
    match all.any(|fault| fault.name == name) {
        true => Ok(name.to_owned()),
        false => Err("no fault has this name: `ringway doctor --table` lists them".into()),
    }
}

pub(crate) fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    if arguments.table {
        print::out(&troubleshooting::page())?;
        return Ok(ExitCode::SUCCESS);
    }
    let facts = match &arguments.from {
        Some(path) => Facts::load(path)?,
        None => gather::gather(&which(&arguments)?, &arguments.messages),
    };
    if let Some(path) = &arguments.save {
        let text = serde_json::to_string_pretty(&facts)? + "\n";
        std::fs::write(path, text)
            .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    }
    let mut findings = judge(&facts);
    findings.retain(|finding| !arguments.ignore.iter().any(|name| name == finding.fault));
    if arguments.form.json {
        // Programs read findings alone; that there may be more is for who looks.
        facts
            .unseen
            .iter()
            .for_each(|it| print::hint(&print::unseen(it)));
    }
    print::answer(arguments.form.json, &findings, |findings| {
        let at_once = at_once(&facts, &arguments.ignore);
        print::findings(&facts, findings, at_once.as_deref())
    })?;
    Ok(match findings.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn which(arguments: &Arguments) -> Result<Which, Failure> {
    if !arguments.command.is_empty() {
        return Ok(Which::Command(arguments.command.clone()));
    }
    if let Some(pid) = arguments.pid {
        return match gather::qemus().contains(&pid) {
            true => Ok(Which::Process(pid)),
            false => Err(Failure::Failed(anyhow::anyhow!(
                "process {pid} is no QEMU: `ringway vm list` shows machines of ours, `pgrep -a qemu` all"
            ))),
        };
    }
    match &arguments.vm {
        None => Ok(Which::All),
        Some(name) => match gather::find(name) {
            Some(pid) => Ok(Which::Process(pid)),
            None => Err(Failure::Failed(anyhow::anyhow!(
                "no QEMU runs with the name {name}: `pgrep -a qemu` shows which do, --pid takes a process"
            ))),
        },
    }
}
