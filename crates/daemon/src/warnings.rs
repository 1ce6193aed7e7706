//! What a person should know about the host, with the way out.

use ringway_api::v1::Kind;
use ringway_host::nft;
use ringway_network::State;

/// Whether another firewall would drop what networks send through the host.
pub(crate) fn firewall(state: &State) -> Vec<String> {
    let crossing = state
        .networks
        .values()
        .filter(|network| matches!(network.spec.kind, Kind::Nat | Kind::Routed));
    let interfaces: Vec<&str> = crossing.map(|n| n.interface.as_str()).collect();
    if interfaces.is_empty() {
        return Vec::new();
    }
    let Some(chain) = nft::chain(["ip", "filter", "FORWARD"]) else {
        return Vec::new();
    };
    let user = nft::chain(["ip", "filter", "DOCKER-USER"]);
    judge(&chain, user.as_deref(), &interfaces)
}

/// `forward` is the chain that iptables calls FORWARD, `user` the one that Docker leaves to people.
fn judge(forward: &str, user: Option<&str>, interfaces: &[&str]) -> Vec<String> {
    if !forward.contains("policy drop") {
        return Vec::new();
    }
    let accepted = |interface: &str| {
        let named = format!("\"{interface}\"");
        let mut lines = forward.lines().chain(user.unwrap_or_default().lines());
        lines.any(|line| line.contains(&named) && line.contains("accept"))
    };
    let chain = if user.is_some() {
        "DOCKER-USER"
    } else {
        "FORWARD"
    };
    let dropped = interfaces.iter().filter(|interface| !accepted(interface));
    dropped
        .map(|interface| {
            format!(
                "the iptables chain FORWARD drops what {interface} sends through the host: let it pass with \
                 `iptables -I {chain} -i {interface} -j ACCEPT; iptables -I {chain} -o {interface} -j ACCEPT`"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROPS: &str =
        "chain FORWARD {\n type filter hook forward priority filter; policy drop;\n}";

    #[test]
    fn a_policy_that_drops_is_told_with_the_way_out() {
        let said = judge(DROPS, None, &["rw-lan"]);
        assert!(
            said[0].contains("iptables -I FORWARD -i rw-lan"),
            "{said:?}"
        );
        let said = judge(DROPS, Some("chain DOCKER-USER {}"), &["rw-lan", "rw-b"]);
        assert!(said[1].contains("-I DOCKER-USER -i rw-b"), "{said:?}");
    }

    #[test]
    fn what_passes_is_no_warning() {
        let accepts = DROPS.replace("drop", "accept");
        assert_eq!(judge(&accepts, None, &["rw-lan"]), Vec::<String>::new());
        let user = "chain DOCKER-USER {\n iifname \"rw-lan\" counter accept\n}";
        assert_eq!(judge(DROPS, Some(user), &["rw-lan"]), Vec::<String>::new());
    }
}
