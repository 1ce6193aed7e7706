//! A request that is not done, as it is answered.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use ringway_api::v1::{Code, Failure};

/// A failure, and the HTTP status where HTTP has a word of its own for it.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    failure: Failure,
}

impl Refusal {
    /// Something that cannot be meant, with this status.
    pub(super) fn invalid(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            failure: Failure::new(Code::Invalid, message),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = StatusCode::from_u16(failure.code.status());
        Self {
            status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            failure,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(self.failure)).into_response()
    }
}
