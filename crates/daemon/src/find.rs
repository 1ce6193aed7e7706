//! What somebody means who names a port.

use ringway_api::v1::{Code, Failure};
use ringway_network::State;

/// The switch's name of a port that goes by `NETWORK/PORT`, by `PORT` if only one network has it, or by a network's interface.
pub(crate) fn port(state: &State, asked: &str) -> Result<String, Failure> {
    let mut found = Vec::new();
    for (of, network) in &state.networks {
        if network.interface.as_str() == asked {
            return Ok(asked.to_owned());
        }
        for (name, port) in &network.ports {
            let full = format!("{of}/{name}");
            if let Some(tap) = &port.tap
                && (full == asked || name.as_str() == asked)
            {
                let message = format!(
                    "{full} is a tap of the kernel, whose frames do not cross the switch: tcpdump -i {tap} shows them"
                );
                return Err(Failure::new(Code::Invalid, message));
            }
            if full == asked {
                return Ok(full);
            }
            if name.as_str() == asked {
                found.push(full);
            }
        }
    }
    let failed = |code, message| Err(Failure::new(code, message));
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => failed(
            Code::NotFound,
            format!("there is no port {asked}: `ringway port list` shows those there are"),
        ),
        several => failed(
            Code::Invalid,
            format!(
                "which {asked} is meant? There are {}",
                several.join(" and ")
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ringway_network::Site;
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_port_has_a_short_name_where_that_is_enough() {
        let mut state = State::default();
        let site = Site::default();
        for (third, network, ports) in [(1, "lan", vec!["web", "db"]), (2, "dmz", vec!["web"])] {
            let subnet = format!("{}/24", Ipv4Addr::new(10, 0, third, 0));
            let spec = from_value(json!({ "name": network, "subnet": subnet })).unwrap();
            state.create(spec, &site).unwrap();
            for port in ports {
                let request = from_value(json!({ "name": port })).unwrap();
                let network = network.parse().unwrap();
                state.add_port(&network, request, &site).unwrap();
            }
        }
        let port = |asked| port(&state, asked).map_err(|failure| failure.message);
        assert_eq!(port("lan/web").unwrap(), "lan/web");
        assert_eq!(port("db").unwrap(), "lan/db");
        assert_eq!(port("rw-dmz").unwrap(), "rw-dmz");
        assert_eq!(
            port("web").unwrap_err(),
            "which web is meant? There are dmz/web and lan/web"
        );
        assert!(
            port("lan/mail")
                .unwrap_err()
                .starts_with("there is no port lan/mail")
        );
    }
}
