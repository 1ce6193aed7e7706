//! The switch's sandbox, as the command line asks for it.

use clap::{Args, ValueEnum};
use ringway_switch::Sandbox;

#[derive(Args)]
pub(crate) struct Sandboxed {
    /// Give up all rights once the first ports stand
    #[arg(long, value_enum, value_name = "on|off", default_value_t = Choice::On, hide_possible_values = true)]
    sandbox: Choice,
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    On,
    Off,
}

impl Sandboxed {
    /// Says on standard error what is given up without it.
    pub(crate) fn decide(&self) -> Sandbox {
        match self.sandbox {
            Choice::On => Sandbox::On,
            Choice::Off => {
                tracing::warn!(
                    "no sandbox: who breaks in through a guest or its front-end has all rights of this process, \
                     to files, to the network, to other processes and to start programs"
                );
                Sandbox::Off
            }
        }
    }
}
