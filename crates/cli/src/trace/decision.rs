//! What the switch decided about a frame: the words of a capture's comment, read.

use serde::Serialize;

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "decision", rename_all = "kebab-case")]
pub(crate) enum Decision {
    /// It went to the port behind which its destination was learned.
    Forwarded { to: String },
    /// It went to `to` of `of` ports; `reason` is why not to the others.
    Flooded {
        #[serde(rename = "reached")]
        to: u32,
        of: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// It went nowhere; it was to go to `to`, if that was found out.
    Dropped {
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        reason: String,
    },
    /// It came from a port, for the one that is traced.
    Received { from: String },
    /// It came from a port, and the one that is traced did not get it.
    Missed { from: String, reason: String },
    /// A switch of another version says something else.
    Other { words: String },
}

/// A decision and why it was that one.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    #[serde(flatten)]
    pub(crate) decision: Decision,
    /// In words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Seconds since a frame came from the destination, where it went to one port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) heard_seconds_ago: Option<u32>,
    /// What of the network itself answers such frames, or sent this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<&'static str>,
}

impl Decision {
    pub(super) fn new(inbound: bool, comment: &str) -> Self {
        let read = if inbound { sent(comment) } else { got(comment) };
        read.unwrap_or_else(|| Self::Other {
            words: comment.to_owned(),
        })
    }

    /// Whether somebody did not get the frame.
    pub(super) fn is_drop(&self) -> bool {
        match self {
            Self::Dropped { .. } | Self::Missed { .. } => true,
            Self::Flooded { reason, .. } => reason.is_some(),
            Self::Forwarded { .. } | Self::Received { .. } | Self::Other { .. } => false,
        }
    }
}

const DROPPED: &str = "dropped: ";

/// Of what the traced port sent.
fn sent(comment: &str) -> Option<Decision> {
    if let Some(reason) = comment.strip_prefix(DROPPED) {
        return Some(Decision::Dropped {
            to: None,
            reason: reason.into(),
        });
    }
    let (rest, reason) = split(comment);
    if let Some(to) = rest.strip_prefix("to ") {
        let to = to.to_owned();
        return Some(match reason {
            None => Decision::Forwarded { to },
            Some(reason) => Decision::Dropped {
                to: Some(to),
                reason,
            },
        });
    }
    let rest = rest.strip_prefix("flooded to ")?;
    let mut numbers = rest.split(' ').filter_map(|word| word.parse().ok());
    let to = numbers.next()?;
    Some(Decision::Flooded {
        to,
        of: numbers.next().unwrap_or(to),
        reason,
    })
}

/// Of what was for the traced port.
fn got(comment: &str) -> Option<Decision> {
    let (rest, reason) = split(comment);
    let from = rest.strip_prefix("from ")?.to_owned();
    Some(match reason {
        None => Decision::Received { from },
        Some(reason) => Decision::Missed { from, reason },
    })
}

/// A comment, and the reason at its end. Reasons have no comma, whatever ports are called.
fn split(comment: &str) -> (&str, Option<String>) {
    match comment.rsplit_once(", dropped: ") {
        Some((rest, reason)) => (rest, Some(reason.to_owned())),
        None => (comment, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comment_of_a_capture_is_read() {
        let (to, from) = ("lan/db, 2".to_owned(), "a".to_owned());
        let reason = || "no_buffers".to_owned();
        for (inbound, comment, expected, is_drop) in [
            (
                true,
                "to lan/db, 2",
                Decision::Forwarded { to: to.clone() },
                false,
            ),
            (
                true,
                "to lan/db, 2, dropped: no_buffers",
                Decision::Dropped {
                    to: Some(to),
                    reason: reason(),
                },
                true,
            ),
            (
                true,
                "dropped: no_buffers",
                Decision::Dropped {
                    to: None,
                    reason: reason(),
                },
                true,
            ),
            (
                true,
                "flooded to 1 port",
                Decision::Flooded {
                    to: 1,
                    of: 1,
                    reason: None,
                },
                false,
            ),
            (
                true,
                "flooded to 2 of 3 ports, dropped: no_buffers",
                Decision::Flooded {
                    to: 2,
                    of: 3,
                    reason: Some(reason()),
                },
                true,
            ),
            (
                false,
                "from a",
                Decision::Received { from: from.clone() },
                false,
            ),
            (
                false,
                "from a, dropped: no_buffers",
                Decision::Missed {
                    from,
                    reason: reason(),
                },
                true,
            ),
            (
                false,
                "shot",
                Decision::Other {
                    words: "shot".into(),
                },
                false,
            ),
        ] {
            let decision = Decision::new(inbound, comment);
            assert_eq!(decision, expected, "{comment}");
            assert_eq!(decision.is_drop(), is_drop, "{comment}");
        }
    }
}
