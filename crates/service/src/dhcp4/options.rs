//! What an answer says, option by option.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::Config;
use super::message::{Message, code};

type Options = Vec<(u8, Vec<u8>)>;

/// Flags of option 81 (RFC 4702 section 2.1).
mod fqdn {
    pub(super) const SERVER_UPDATES: u8 = 1;
    pub(super) const OVERRIDDEN: u8 = 2;
    pub(super) const WIRE_FORMAT: u8 = 4;
    pub(super) const HEADER: usize = 3;
}

/// Options of an offer or an acknowledgement. `seconds` is 0 for a client that has an address already.
pub(super) fn settings(
    config: &Config,
    asked: &Message,
    seconds: u32,
    name: Option<&str>,
) -> Options {
    let mut options = vec![(code::SERVER, config.server.octets().to_vec())];
    if seconds > 0 {
        for (code, seconds) in [
            (code::LEASE_TIME, seconds),
            (code::RENEWAL, seconds / 2),
            (
                code::REBINDING,
                u32::try_from(u64::from(seconds) * 7 / 8).unwrap_or(seconds),
            ),
        ] {
            options.push((code, seconds.to_be_bytes().to_vec()));
        }
    }
    echo(asked, &mut options);
    if asked.options.contains_key(&code::RAPID_COMMIT)
        && seconds > 0
        && asked.kind == super::Type::Discover
    {
        options.push((code::RAPID_COMMIT, Vec::new()));
    }
    let wanted = asked.options.get(&code::REQUESTED_OPTIONS);
    // Before a router, as RFC 2132 section 3.3 says.
    options.push((code::SUBNET_MASK, config.subnet.netmask().octets().to_vec()));
    // In the client's order: what it wants most is what surely fits.
    let all = [
        code::ROUTES,
        code::ROUTER,
        code::DNS,
        code::DOMAIN,
        code::MTU,
        code::BROADCAST,
        code::HOST_NAME,
        code::NTP,
        code::SEARCH,
    ];
    let order: Vec<u8> = match wanted {
        Some(wanted) => wanted
            .iter()
            .copied()
            .filter(|code| all.contains(code))
            .collect(),
        None => all
            .into_iter()
            .filter(|code| *code != code::SEARCH)
            .collect(),
    };
    for code in order {
        if options.iter().all(|(there, _)| *there != code)
            && let Some(value) = value(config, code, name)
        {
            options.push((code, value));
        }
    }
    if let (Some(asked), Some(name)) = (asked.options.get(&code::FQDN), name) {
        options.extend(full_name(asked, name, config.domain.as_deref()));
    }
    relay(asked, &mut options);
    options
}

/// Options of a refusal (RFC 2131 section 4.3.1, table 3).
pub(super) fn refusal(config: &Config, asked: &Message, reason: &str) -> Options {
    let mut options = vec![
        (code::SERVER, config.server.octets().to_vec()),
        (code::MESSAGE, reason.as_bytes().to_vec()),
    ];
    echo(asked, &mut options);
    relay(asked, &mut options);
    options
}

/// The client's identifier goes back to it (RFC 6842).
fn echo(asked: &Message, options: &mut Options) {
    if let Some(id) = asked.options.get(&code::CLIENT_ID) {
        options.push((code::CLIENT_ID, id.clone()));
    }
}

/// What a relay put in goes back to it, last (RFC 3046 section 2.2). One that works below IP leaves no address of its own.
fn relay(asked: &Message, options: &mut Options) {
    if let Some(information) = asked.options.get(&code::RELAY_INFORMATION) {
        options.push((code::RELAY_INFORMATION, information.clone()));
    }
}

fn value(config: &Config, code: u8, name: Option<&str>) -> Option<Vec<u8>> {
    let addresses = |addresses: &[Ipv4Addr]| {
        let bytes: Vec<u8> = addresses
            .iter()
            .flat_map(|address| address.octets())
            .collect();
        (!bytes.is_empty()).then_some(bytes)
    };
    match code {
        code::ROUTER => Some(config.router?.octets().to_vec()),
        code::DNS => addresses(&config.dns),
        code::NTP => addresses(&config.ntp),
        code::DOMAIN => Some(config.domain.as_ref()?.as_bytes().to_vec()),
        code::SEARCH => domain_name(config.domain.as_ref()?),
        code::MTU => Some(config.mtu?.to_be_bytes().to_vec()),
        code::BROADCAST => Some(config.subnet.broadcast().octets().to_vec()),
        code::HOST_NAME => Some(name?.as_bytes().to_vec()),
        code::ROUTES => routes(config),
        _ => None,
    }
}

/// Routes with as many bytes of their destination as matter (RFC 3442). Who reads them does not read the router option, so the
/// default route is among them.
fn routes(config: &Config) -> Option<Vec<u8>> {
    if config.routes.is_empty() {
        return None;
    }
    let default = config.router.map(|router| (Ipv4Net::default(), router));
    let mut bytes = Vec::new();
    for (to, via) in config.routes.iter().copied().chain(default) {
        bytes.push(to.prefix_len());
        bytes.extend(&to.network().octets()[..usize::from(to.prefix_len().div_ceil(8))]);
        bytes.extend(via.octets());
    }
    Some(bytes)
}

/// A name in the form of DNS; `None` if it has none.
fn domain_name(name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).ok().filter(|len| *len < 64)?);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    (bytes.len() <= 255).then_some(bytes)
}

/// The client's whole name, in the form in which it asked (RFC 4702 section 4).
fn full_name(asked: &[u8], name: &str, domain: Option<&str>) -> Option<(u8, Vec<u8>)> {
    let flags = *asked.first()? & (fqdn::WIRE_FORMAT | fqdn::SERVER_UPDATES);
    let overridden = if flags & fqdn::SERVER_UPDATES == 0 {
        fqdn::OVERRIDDEN
    } else {
        0
    };
    let mut value = vec![flags | fqdn::SERVER_UPDATES | overridden, 255, 255];
    let full = domain.map_or_else(|| name.to_owned(), |domain| format!("{name}.{domain}"));
    if flags & fqdn::WIRE_FORMAT != 0 {
        value.extend(domain_name(&full)?);
    } else {
        value.extend(full.as_bytes());
    }
    Some((code::FQDN, value))
}

/// The name that a client asks for, by option 81 or 12: its first label, if that is one (RFC 1123 section 2.1).
pub(super) fn client_name(message: &Message) -> Option<String> {
    let full = message.options.get(&code::FQDN).and_then(|value| {
        let name = value.get(fqdn::HEADER..)?;
        if value[0] & fqdn::WIRE_FORMAT == 0 {
            return Some(name);
        }
        let (&len, labels) = name.split_first()?;
        labels.get(..usize::from(len))
    });
    let plain = message.options.get(&code::HOST_NAME).map(Vec::as_slice);
    [full, plain].into_iter().flatten().find_map(first_label)
}

fn first_label(name: &[u8]) -> Option<String> {
    let label = name.split(|byte| matches!(byte, b'.' | 0)).next()?;
    let inside = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
    let fits = (1..=63).contains(&label.len())
        && label.iter().all(inside)
        && label.first() != Some(&b'-')
        && label.last() != Some(&b'-');
    fits.then(|| String::from_utf8_lossy(label).to_ascii_lowercase())
}
