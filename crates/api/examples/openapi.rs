//! Prints the description of the daemon's API: `cargo run -p ringway-api --features openapi --example openapi > docs/openapi.json`

fn main() {
    print!("{}", ringway_api::v1::openapi::text());
}
