//! What clients are told of errors.

use std::error::Error;

use ringway_api::v1::{Code, Failure};
use ringway_network::Invalid;

/// A request that the model does not take.
pub(crate) fn refused(invalid: Invalid) -> Failure {
    let code = match &invalid {
        Invalid::NoNetwork { .. }
        | Invalid::NoPort { .. }
        | Invalid::NoLease { .. }
        | Invalid::NoForward { .. } => Code::NotFound,
        Invalid::NetworkExists(_)
        | Invalid::HasPorts { .. }
        | Invalid::TooManyNetworks
        | Invalid::Overlap { .. }
        | Invalid::NoSubnetLeft
        | Invalid::PortExists { .. }
        | Invalid::AddressTaken { .. }
        | Invalid::ForwardOverlap { .. }
        | Invalid::Fixed { .. }
        | Invalid::InUse { .. }
        | Invalid::InterfaceTaken(_) => Code::Conflict,
        _ => Code::Invalid,
    };
    Failure::new(code, invalid.to_string())
}

/// Something that the host, the switch or the store did not do.
pub(crate) fn failed(error: impl Error + 'static) -> Failure {
    Failure::new(Code::Failed, chain(&error))
}

/// The error and what it came from, as one sentence.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
