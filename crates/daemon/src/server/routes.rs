//! Which request is which operation.

use std::{net::Ipv4Addr, sync::Arc};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    middleware,
    response::IntoResponse,
    routing::{delete, get, post},
};
use ringway_api::v1::{
    Addresses, Applied, CaptureRequest, Code, DaemonInfo, Document, Failure, Forward, ForwardSpec,
    Lease, Name, NetworkInfo, NetworkSpec, PortInfo, PortPatch, PortRequest, StaticLease, Stats,
};
use serde::Deserialize;
use tokio::sync::{RwLock, watch};

use super::{
    operations::Operations,
    peer,
    read::{Body, InPath, InQuery, MAX_BODY},
    refusal::Refusal,
    stream,
};

/// Made by `cargo run -p ringway-api --features openapi --example openapi`.
pub(super) const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// What handlers need.
#[derive(Clone)]
struct Api<D> {
    daemon: D,
    /// Read-locked by each change under way.
    changes: Arc<RwLock<()>>,
    /// Closed when the server ends.
    ending: watch::Receiver<()>,
}

type Answer<T> = Result<Json<T>, Refusal>;
type Nothing = Result<StatusCode, Refusal>;

#[rustfmt::skip]
pub(super) fn router<D: Operations>(daemon: D, changes: Arc<RwLock<()>>, ending: watch::Receiver<()>) -> Router {
    Router::new()
        .route("/v1/info", get(info::<D>))
        .route("/v1/networks", get(networks::<D>).post(create_network::<D>))
        .route("/v1/networks/{network}", get(network::<D>).delete(delete_network::<D>))
        .route("/v1/apply", post(apply::<D>))
        .route("/v1/ports", get(ports::<D>))
        .route("/v1/networks/{network}/ports", post(create_port::<D>))
        .route("/v1/networks/{network}/ports/{port}", get(port::<D>).patch(patch_port::<D>).delete(delete_port::<D>))
        .route("/v1/leases", get(leases::<D>))
        .route("/v1/leases/resolve", get(resolve::<D>))
        .route("/v1/networks/{network}/leases", post(bind::<D>))
        .route("/v1/networks/{network}/leases/{address}", delete(unbind::<D>))
        .route("/v1/forwards", get(forwards::<D>))
        .route("/v1/networks/{network}/forwards", post(add_forward::<D>))
        .route("/v1/networks/{network}/forwards/{id}", delete(delete_forward::<D>))
        .route("/v1/stats", get(stats::<D>))
        .route("/v1/addresses", get(addresses::<D>))
        .route("/v1/capture", post(capture::<D>))
        .route("/v1/openapi.json", get(openapi))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(peer::authorize))
        .with_state(Api { daemon, changes, ending })
}

impl<D: Operations> Api<D> {
    /// Runs a change to its end, even if the client leaves: half of it is nothing anybody asked for.
    async fn change<T: Send + 'static, F>(self, change: impl FnOnce(D) -> F) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let changing = self.changes.read_owned().await;
        let change = change(self.daemon);
        let done = tokio::spawn(async move {
            let done = change.await;
            drop(changing);
            done
        });
        let broken = "the daemon broke off, which is a bug: what it said on standard error belongs into a report";
        let done = done.await;
        Ok(done.unwrap_or_else(|_| Err(Failure::new(Code::Failed, broken)))?)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Force {
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DryRun {
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfNetwork {
    network: Option<Name>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ByName {
    name: String,
}

async fn info<D: Operations>(State(api): State<Api<D>>) -> Answer<DaemonInfo> {
    Ok(Json(api.daemon.info().await?))
}

async fn networks<D: Operations>(State(api): State<Api<D>>) -> Answer<Vec<NetworkInfo>> {
    Ok(Json(api.daemon.networks().await?))
}

async fn network<D: Operations>(
    State(api): State<Api<D>>,
    InPath(network): InPath<Name>,
) -> Answer<NetworkInfo> {
    Ok(Json(api.daemon.network(&network).await?))
}

async fn create_network<D: Operations>(
    State(api): State<Api<D>>,
    Body(spec): Body<NetworkSpec>,
) -> Answer<NetworkInfo> {
    let change = |daemon: D| async move { daemon.create_network(spec).await };
    Ok(Json(api.change(change).await?))
}

async fn delete_network<D: Operations>(
    State(api): State<Api<D>>,
    InPath(network): InPath<Name>,
    InQuery(Force { force }): InQuery<Force>,
) -> Nothing {
    let change = |daemon: D| async move { daemon.delete_network(&network, force).await };
    api.change(change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn apply<D: Operations>(
    State(api): State<Api<D>>,
    InQuery(DryRun { dry_run }): InQuery<DryRun>,
    Body(document): Body<Document>,
) -> Answer<Applied> {
    let change = |daemon: D| async move { daemon.apply(document, dry_run).await };
    Ok(Json(api.change(change).await?))
}

async fn ports<D: Operations>(
    State(api): State<Api<D>>,
    InQuery(of): InQuery<OfNetwork>,
) -> Answer<Vec<PortInfo>> {
    Ok(Json(api.daemon.ports(of.network.as_ref()).await?))
}

async fn port<D: Operations>(
    State(api): State<Api<D>>,
    InPath((network, port)): InPath<(Name, Name)>,
) -> Answer<PortInfo> {
    Ok(Json(api.daemon.port(&network, &port).await?))
}

async fn create_port<D: Operations>(
    State(api): State<Api<D>>,
    InPath(network): InPath<Name>,
    Body(request): Body<PortRequest>,
) -> Answer<PortInfo> {
    let change = |daemon: D| async move { daemon.create_port(&network, request).await };
    Ok(Json(api.change(change).await?))
}

async fn patch_port<D: Operations>(
    State(api): State<Api<D>>,
    InPath((network, port)): InPath<(Name, Name)>,
    Body(patch): Body<PortPatch>,
) -> Answer<PortInfo> {
    let change = |daemon: D| async move { daemon.patch_port(&network, &port, patch).await };
    Ok(Json(api.change(change).await?))
}

async fn delete_port<D: Operations>(
    State(api): State<Api<D>>,
    InPath((network, port)): InPath<(Name, Name)>,
) -> Nothing {
    let change = |daemon: D| async move { daemon.delete_port(&network, &port).await };
    api.change(change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn leases<D: Operations>(
    State(api): State<Api<D>>,
    InQuery(of): InQuery<OfNetwork>,
) -> Answer<Vec<Lease>> {
    Ok(Json(api.daemon.leases(of.network.as_ref()).await?))
}

async fn resolve<D: Operations>(
    State(api): State<Api<D>>,
    InQuery(ByName { name }): InQuery<ByName>,
) -> Answer<Vec<Lease>> {
    Ok(Json(api.daemon.resolve(&name).await?))
}

async fn bind<D: Operations>(
    State(api): State<Api<D>>,
    InPath(network): InPath<Name>,
    Body(lease): Body<StaticLease>,
) -> Answer<Lease> {
    let change = |daemon: D| async move { daemon.bind(&network, lease).await };
    Ok(Json(api.change(change).await?))
}

async fn unbind<D: Operations>(
    State(api): State<Api<D>>,
    InPath((network, address)): InPath<(Name, Ipv4Addr)>,
) -> Nothing {
    let change = |daemon: D| async move { daemon.unbind(&network, address).await };
    api.change(change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn forwards<D: Operations>(
    State(api): State<Api<D>>,
    InQuery(of): InQuery<OfNetwork>,
) -> Answer<Vec<Forward>> {
    Ok(Json(api.daemon.forwards(of.network.as_ref()).await?))
}

async fn add_forward<D: Operations>(
    State(api): State<Api<D>>,
    InPath(network): InPath<Name>,
    Body(spec): Body<ForwardSpec>,
) -> Answer<Forward> {
    let change = |daemon: D| async move { daemon.add_forward(&network, spec).await };
    Ok(Json(api.change(change).await?))
}

async fn delete_forward<D: Operations>(
    State(api): State<Api<D>>,
    InPath((network, id)): InPath<(Name, u64)>,
) -> Nothing {
    let change = |daemon: D| async move { daemon.delete_forward(&network, id).await };
    api.change(change).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn stats<D: Operations>(State(api): State<Api<D>>) -> Answer<Stats> {
    Ok(Json(api.daemon.stats().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfPort {
    port: Option<String>,
}

async fn addresses<D: Operations>(
    State(api): State<Api<D>>,
    InQuery(OfPort { port }): InQuery<OfPort>,
) -> Answer<Addresses> {
    Ok(Json(api.daemon.addresses(port.as_deref()).await?))
}

/// Frames are private, so this is no reading: see [`peer::authorize`].
async fn capture<D: Operations>(
    State(api): State<Api<D>>,
    Body(request): Body<CaptureRequest>,
) -> Result<impl IntoResponse, Refusal> {
    let pipe = api.daemon.capture(request).await?;
    let body = stream::body(pipe, api.ending)
        .map_err(|error| Failure::new(Code::Failed, format!("cannot read the capture: {error}")))?;
    Ok(([(CONTENT_TYPE, "application/x-pcapng")], body))
}

async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn unknown(method: Method, uri: Uri) -> Refusal {
    let path = uri.path();
    Failure::new(
        Code::NotFound,
        format!("there is no {method} {path}: GET /v1/openapi.json says what there is"),
    )
    .into()
}

async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let path = uri.path();
    Refusal::invalid(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} takes no {method}: GET /v1/openapi.json says what it takes"),
    )
}
