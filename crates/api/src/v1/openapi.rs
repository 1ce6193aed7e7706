//! The description of the API for programs: OpenAPI 3.1, whose schemas are JSON Schema made from the types.
//!
//! The result is checked in as `docs/openapi.json` and served as it is; a test of the daemon compares the two.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    Addresses, Applied, CaptureRequest, DaemonInfo, Document, Failure, Forward, ForwardSpec, Lease,
    NetworkInfo, NetworkSpec, PortInfo, PortPatch, PortRequest, StaticLease, Stats,
};

type Type = fn(&mut SchemaGenerator) -> Schema;

/// What may be asked: method and path, a name, one line about it, keys of its query, body and answer.
struct Operation {
    method: &'static str,
    path: &'static str,
    name: &'static str,
    summary: &'static str,
    query: &'static [Key],
    body: Option<Type>,
    answer: Option<Type>,
    /// What the answer is in place of JSON.
    stream: Option<&'static str>,
}

impl Operation {
    fn streaming(self, media: &'static str) -> Self {
        Self {
            stream: Some(media),
            ..self
        }
    }
}

/// A key of a query: its name, its JSON type, what it means, whether it has to be there.
type Key = (&'static str, &'static str, &'static str, bool);

const OF_NETWORK: &[Key] = &[("network", "string", "Only those of this network.", false)];

fn of<T: JsonSchema>() -> Option<Type> {
    Some(|generator| generator.subschema_for::<T>())
}

fn operation(
    request: &'static str,
    name: &'static str,
    summary: &'static str,
    query: &'static [Key],
    [body, answer]: [Option<Type>; 2],
) -> Operation {
    let (method, path) = request.split_once(' ').unwrap_or((request, ""));
    Operation {
        method,
        path,
        name,
        summary,
        query,
        body,
        answer,
        stream: None,
    }
}

#[rustfmt::skip]
fn operations() -> Vec<Operation> {
    vec![
        operation("get /v1/info", "info", "The daemon and its switch.", &[], [None, of::<DaemonInfo>()]),
        operation("get /v1/networks", "networks", "All networks.", &[], [None, of::<Vec<NetworkInfo>>()]),
        operation("post /v1/networks", "createNetwork", "Makes a network.", &[], [of::<NetworkSpec>(), of::<NetworkInfo>()]),
        operation("get /v1/networks/{network}", "network", "One network.", &[], [None, of::<NetworkInfo>()]),
        operation("delete /v1/networks/{network}", "deleteNetwork", "Deletes a network.",
            &[("force", "boolean", "Its ports go with it.", false)], [None, None]),
        operation("post /v1/apply", "apply", "Makes networks as the document has them.",
            &[("dry_run", "boolean", "Only says what would be done.", false)], [of::<Document>(), of::<Applied>()]),
        operation("get /v1/ports", "ports", "Ports.", OF_NETWORK, [None, of::<Vec<PortInfo>>()]),
        operation("post /v1/networks/{network}/ports", "createPort", "Makes a port.", &[], [of::<PortRequest>(), of::<PortInfo>()]),
        operation("get /v1/networks/{network}/ports/{port}", "port", "One port.", &[], [None, of::<PortInfo>()]),
        operation("patch /v1/networks/{network}/ports/{port}", "changePort", "Changes a port: null takes a setting away.",
            &[], [of::<PortPatch>(), of::<PortInfo>()]),
        operation("delete /v1/networks/{network}/ports/{port}", "deletePort", "Deletes a port.", &[], [None, None]),
        operation("get /v1/leases", "leases", "Addresses that are lent or bound.", OF_NETWORK, [None, of::<Vec<Lease>>()]),
        operation("get /v1/leases/resolve", "resolve", "Leases of a name.",
            &[("name", "string", "Such as web, web.lan or web.lan.ringway.", true)], [None, of::<Vec<Lease>>()]),
        operation("post /v1/networks/{network}/leases", "bind", "Binds an address to a client.", &[], [of::<StaticLease>(), of::<Lease>()]),
        operation("delete /v1/networks/{network}/leases/{address}", "unbind", "Undoes a binding.", &[], [None, None]),
        operation("get /v1/forwards", "forwards", "Ports of the host that lead to guests.", OF_NETWORK, [None, of::<Vec<Forward>>()]),
        operation("post /v1/networks/{network}/forwards", "addForward", "Makes a forward.", &[], [of::<ForwardSpec>(), of::<Forward>()]),
        operation("delete /v1/networks/{network}/forwards/{id}", "deleteForward", "Deletes a forward.", &[], [None, None]),
        operation("get /v1/stats", "stats", "What was counted.", &[], [None, of::<Stats>()]),
        operation("get /v1/addresses", "addresses", "Addresses that the switch learned.",
            &[("port", "string", "Only those behind this port of the switch, such as lan/web.", false)], [None, of::<Addresses>()]),
        operation("post /v1/capture", "capture", "What crosses a port from now on, until the client leaves or the port goes.",
            &[], [of::<CaptureRequest>(), None]).streaming("application/x-pcapng"),
        operation("get /v1/openapi.json", "openapi", "This document.", &[], [None, of::<Map<String, Value>>()]),
    ]
}

/// Method, in lower case, and path of every request there is.
pub fn requests() -> Vec<(&'static str, &'static str)> {
    let operations = operations();
    operations
        .iter()
        .map(|operation| (operation.method, operation.path))
        .collect()
}

/// The document as it is checked in.
pub fn text() -> String {
    format!("{:#}\n", document())
}

fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
        .into_generator();
    let failure = generator.subschema_for::<Failure>();
    let mut paths = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(&operation, &failure, &mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ringway",
            "version": "1",
            "description": "The API of `ringway daemon`: HTTP on a unix socket, /run/ringway/api.sock unless said otherwise. \
                Whoever may open the socket may read; root and the user of the daemon may change things.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

fn described(operation: &Operation, failure: &Schema, generator: &mut SchemaGenerator) -> Value {
    let json = |schema: Schema| json!({ "application/json": { "schema": schema } });
    let in_path = operation.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let schema = match name {
            "id" => json!({ "type": "integer", "minimum": 0 }),
            "address" => json!({ "type": "string", "format": "ipv4" }),
            _ => json!({ "type": "string" }),
        };
        Some(json!({ "name": name, "in": "path", "required": true, "schema": schema }))
    });
    let in_query = operation.query.iter().map(|(name, kind, meaning, required)| {
        let schema = json!({ "type": kind });
        json!({ "name": name, "in": "query", "description": meaning, "required": required, "schema": schema })
    });
    let parameters: Vec<Value> = in_path.chain(in_query).collect();
    let mut described = json!({
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "default": { "description": "It was not done.", "content": json(failure.clone()) },
        },
    });
    let (status, done) = match (operation.answer, operation.stream) {
        (_, Some(media)) => {
            let mut content = Map::new();
            content.insert(media.into(), json!({}));
            (
                "200",
                json!({ "description": "A stream.", "content": content }),
            )
        }
        (Some(answer), None) => {
            let content = json(answer(generator));
            ("200", json!({ "description": "Done.", "content": content }))
        }
        (None, None) => ("204", json!({ "description": "Done." })),
    };
    described["responses"][status] = done;
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(body) = operation.body {
        described["requestBody"] = json!({ "required": true, "content": json(body(generator)) });
    }
    described
}
