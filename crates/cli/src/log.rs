//! What is said on standard error while the command runs.

use std::{fmt, io};

use clap::{ArgAction, Args, ValueEnum};
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// How much is said, and in which form.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Say more; twice for still more
    #[arg(short, long, action = ArgAction::Count, global = true, display_order = 930)]
    verbose: u8,
    /// How messages are written: text, a sentence a line, or json, an object a line
    #[arg(long, value_enum, value_name = "FORM", default_value_t = Form::Text, global = true, hide_possible_values = true, display_order = 931)]
    log: Form,
}

#[derive(Clone, Copy, ValueEnum)]
enum Form {
    /// One sentence per line
    Text,
    /// One JSON object per line
    Json,
}

/// Starts logging; a second call changes nothing.
pub(crate) fn start(arguments: &Arguments) {
    let level = match arguments.verbose {
        0 => LevelFilter::INFO,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr);
    let started = match arguments.log {
        Form::Text => {
            tracing::subscriber::set_global_default(subscriber.event_format(Sentence).finish())
        }
        Form::Json => {
            tracing::subscriber::set_global_default(subscriber.json().flatten_event(true).finish())
        }
    };
    debug_assert!(started.is_ok(), "logging is started once");
}

/// `ringway: MESSAGE key=value`, without time and target: the reader sits in front of it.
struct Sentence;

impl<S, N> FormatEvent<S, N> for Sentence
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(match *event.metadata().level() {
            Level::ERROR => "ringway: error: ",
            Level::WARN => "ringway: warning: ",
            _ => "ringway: ",
        })?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
