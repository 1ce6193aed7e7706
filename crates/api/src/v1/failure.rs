//! Why something was not done.

use serde::{Deserialize, Serialize};

/// The answer to a request that was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure, for programs.
    pub code: Code,
    /// One sentence with the thing, the value and the way out, for people.
    pub message: String,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Code {
    /// The request cannot be meant (HTTP 400).
    Invalid,
    /// The peer may not do this (403).
    Forbidden,
    /// There is no such thing (404).
    NotFound,
    /// It is there already, or in use (409).
    Conflict,
    /// The host did not let us (500).
    Failed,
    /// The switch does not run at the moment (503).
    Unavailable,
}

impl Code {
    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Failed => 500,
            Self::Unavailable => 503,
        }
    }
}

impl Failure {
    /// A failure of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
