//! `ringway completions` and `ringway man`: what packages install beside the program.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::{Failure, print};

/// Print completions for a shell, to be put where it looks for them
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Write the manual pages, one for each verb
#[derive(Args)]
pub(crate) struct Man {
    /// The directory to write to; made if it is missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

pub(crate) fn completions(arguments: &Completions, mut command: Command) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "ringway", &mut text);
    print::out(&String::from_utf8(text)?)
}

pub(crate) fn man(arguments: &Man, command: Command) -> Result<(), Failure> {
    let directory = &arguments.directory;
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(command, directory))
        .with_context(|| format!("manual pages in {}", directory.display()))?;
    Ok(())
}
