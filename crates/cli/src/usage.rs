//! A command line that cannot be meant: what clap found, in one sentence.

use std::{error::Error as _, path::PathBuf};

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use ringway_api::port_spec::MAX_SOCKET_PATH;

use crate::Failure;

/// A path that a unix socket can have.
pub(crate) fn socket_path(text: &str) -> Result<PathBuf, String> {
    match text.len() {
        0 => Err("the path is empty".into()),
        len if len > MAX_SOCKET_PATH => Err(format!(
            "the path has {len} bytes, a unix socket's path at most {MAX_SOCKET_PATH}: take a shorter one"
        )),
        _ => Ok(text.into()),
    }
}

/// Help and version are printed and no failure.
pub(crate) fn explain(error: &Error) -> Result<(), Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(error.print()?),
        _ => Err(Failure::Usage(sentence(error))),
    }
}

fn sentence(error: &Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    if let (Some(reason), Some(argument), Some(value)) = (
        error.source(),
        context(ContextKind::InvalidArg),
        context(ContextKind::InvalidValue),
    ) {
        let option = argument
            .split(' ')
            .next()
            .unwrap_or_default()
            .trim_matches(['<', '>']);
        return format!("{option} {}: {reason}", value.escape_debug());
    }
    // The first paragraph says what is wrong, the others are hints and usage.
    let text = error.render().to_string();
    let first: Vec<_> = text
        .lines()
        .take_while(|line| !line.is_empty())
        .map(str::trim)
        .collect();
    let wrong = first.join(" ");
    let wrong = wrong.strip_prefix("error: ").unwrap_or(&wrong);
    let suggested = [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedValue,
    ];
    match suggested.into_iter().find_map(context) {
        Some(better) => {
            format!("{wrong}, did you mean {better}? `ringway --help` lists what there is")
        }
        None => format!("{wrong}: `ringway --help` lists what there is"),
    }
}
