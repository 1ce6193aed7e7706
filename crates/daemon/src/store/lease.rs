//! Leases as rows.

use std::net::Ipv4Addr;

use ringway_api::v1::Name;
use ringway_service::leases::{Client, Lease, State};
use ringway_wire::MacAddress;
use rusqlite::{Connection, Row, Statement, params};

/// Keeps leases, each in place of what was there for its address.
pub(super) fn put(
    connection: &Connection,
    network: &Name,
    leases: &[Lease],
) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare(
        "INSERT OR REPLACE INTO lease (network, address, client_id, mac, name, expires, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    leases
        .iter()
        .try_for_each(|lease| put_one(&mut statement, network, lease))
}

fn put_one(
    statement: &mut Statement<'_>,
    network: &Name,
    lease: &Lease,
) -> Result<(), rusqlite::Error> {
    let id = match &lease.client {
        Client::Id(id) => Some(id),
        Client::Mac(_) => None,
    };
    let state = match lease.state {
        State::Bound => "bound",
        State::Free => "free",
        State::Declined => "declined",
    };
    statement.execute(params![
        network.as_str(),
        lease.address.to_string(),
        id,
        lease.mac.0,
        lease.name,
        lease.expires.cast_signed(),
        state
    ])?;
    Ok(())
}

/// Leases that nothing can be made of, which a person wrote, are left out.
pub(super) fn all(connection: &Connection, network: &Name) -> Result<Vec<Lease>, rusqlite::Error> {
    let mut statement = connection.prepare(
        "SELECT address, client_id, mac, name, expires, state FROM lease WHERE network = ?1",
    )?;
    let rows = statement.query_map([network.as_str()], read)?;
    rows.filter_map(Result::transpose).collect()
}

fn read(row: &Row<'_>) -> Result<Option<Lease>, rusqlite::Error> {
    let address: Option<Ipv4Addr> = row.get::<_, String>(0)?.parse().ok();
    let mac: Option<[u8; 6]> = row.get::<_, Vec<u8>>(2)?.try_into().ok();
    let (Some(address), Some(mac)) = (address, mac.map(MacAddress)) else {
        return Ok(None);
    };
    let client = row
        .get::<_, Option<Vec<u8>>>(1)?
        .map_or(Client::Mac(mac), Client::Id);
    Ok(Some(Lease {
        address,
        client,
        mac,
        name: row.get(3)?,
        expires: row.get::<_, i64>(4)?.cast_unsigned(),
        state: match row.get::<_, String>(5)?.as_str() {
            "bound" => State::Bound,
            "declined" => State::Declined,
            _ => State::Free,
        },
    }))
}
