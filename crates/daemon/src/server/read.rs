//! Parts of a request, read into types; what does not fit is refused in a sentence.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// Longest body in bytes; a document with a thousand ports has about a tenth of it.
pub(super) const MAX_BODY: usize = 1 << 20;

/// The body, JSON whatever it is called.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    status @ StatusCode::PAYLOAD_TOO_LARGE => Refusal::invalid(
                        status,
                        format!("the body is longer than {MAX_BODY} bytes: send it in parts"),
                    ),
                    status => Refusal::invalid(status, rejection.body_text()),
                })?;
        serde_json::from_slice(&bytes)
            .map(Self)
            .map_err(|error| wrong("the body", &error.to_string()))
    }
}

/// What is in the path.
pub(super) struct InPath<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(value)| Self(value))
            .map_err(|rejection| wrong("the path", &rejection.body_text()))
    }
}

/// What is in the query.
pub(super) struct InQuery<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for InQuery<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query = Query::from_request_parts(parts, state).await;
        query
            .map(|Query(value)| Self(value))
            .map_err(|rejection| wrong("the query", &rejection.body_text()))
    }
}

fn wrong(part: &str, error: &str) -> Refusal {
    Refusal::invalid(
        StatusCode::BAD_REQUEST,
        format!("{part} cannot be read ({error}): GET /v1/openapi.json says what is expected"),
    )
}
