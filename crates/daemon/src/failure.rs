//! What clients are told of errors.

use ringway_api::v1::{Code, Failure};
use ringway_network::Invalid;

/// A request that the model does not take.
pub(crate) fn refused(invalid: Invalid) -> Failure {
    let code = match &invalid {
        Invalid::NoNetwork(_)
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
