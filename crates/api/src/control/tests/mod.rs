mod connection;
mod framing;
mod messages;

use crate::port_spec::PortSpec;

fn spec(text: &str) -> PortSpec {
    text.parse().unwrap()
}
