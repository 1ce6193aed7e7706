//! DHCP on the gateway's interface: frames in, leases kept, frames out.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringway_host::packet::{LONGEST, PacketSocket, Received};
use ringway_host::ready;
use ringway_service::dhcp4::EXHAUSTED;
use ringway_service::leases::{Change, Lease};
use tokio::io::unix::AsyncFd;

use super::{Answers, ServiceError, lock, now};
use crate::apply::with;

/// Frames answered with one commit.
const BATCH: usize = 128;
/// How long it is not said again that no address is left.
const SAID: Duration = Duration::from_mins(10);

/// Opens the socket; what is given answers until it is dropped.
pub(super) fn serve(
    answers: Arc<Answers>,
) -> Result<impl Future<Output = ()> + Send + 'static, ServiceError> {
    let interface = &answers.service.network.gateway_interface();
    let open = PacketSocket::open(interface.as_str()).and_then(ready::watch_packets);
    let socket = open.map_err(|source| ServiceError::Packets {
        interface: interface.clone(),
        source,
    })?;
    Ok(async move {
        let mut said = None;
        while let Err(error) = turn(&answers, &socket, &mut said).await {
            // ENETDOWN is told once per change of the link; the socket goes on when it is up again.
            if error.raw_os_error() != Some(rustix::io::Errno::NETDOWN.raw_os_error()) {
                tracing::error!(
                    "DHCP of network {} ended: {error}",
                    answers.service.network.spec.name
                );
                return;
            }
        }
    })
}

/// Answers what comes, for as long as nothing goes wrong. `said` is when somebody was told that no address is left.
async fn turn(
    answers: &Answers,
    socket: &AsyncFd<PacketSocket>,
    said: &mut Option<Instant>,
) -> io::Result<()> {
    let mut buffer = [0; LONGEST];
    loop {
        let mut ready = socket.readable().await?;
        let (mut changes, mut frames) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let received = ready.try_io(|socket| socket.get_ref().receive(&mut buffer));
            let Ok(received) = received else { break };
            let frame = complete(&mut buffer, received?);
            let outcome = lock(&answers.dhcp).handle(frame, now());
            if outcome.event == EXHAUSTED && said.is_none_or(|then| then.elapsed() > SAID) {
                *said = Some(Instant::now());
                let name = &answers.service.network.spec.name;
                tracing::warn!(
                    "network {name}: a client got no address, as none is left; `ringway lease list {name}` shows who has them, \
                     dhcp.range and dhcp.lease_seconds decide how many there are and for how long"
                );
            }
            changes.extend(outcome.changes);
            frames.extend(outcome.frames);
        }
        if keep(answers, changes).await {
            for frame in &frames {
                // One that does not go out is as one that is lost on the way: the client asks again.
                if let Err(error) = socket.get_ref().send(frame) {
                    tracing::debug!("a DHCP answer did not go out: {error}");
                }
            }
        }
    }
}

/// Commits changes; whether that worked. If not, they are taken back and nobody is told.
async fn keep(answers: &Answers, changes: Vec<Change>) -> bool {
    if changes.is_empty() {
        return true;
    }
    let name = answers.service.network.spec.name.clone();
    let leases: Vec<Lease> = changes.iter().map(|change| change.lease.clone()).collect();
    let kept = with(&answers.store, move |store| {
        store.put_leases(&name, &leases)
    })
    .await;
    if let Err(error) = &kept {
        lock(&answers.dhcp).pool.undo(changes);
        tracing::error!("no lease is given: {}", crate::failure::chain(error));
    }
    kept.is_ok()
}

/// The frame; a checksum that its sender left to the NIC is taken out, as it would be wrong.
fn complete(buffer: &mut [u8; LONGEST], received: Received) -> &[u8] {
    let frame = &mut buffer[..received.len.min(LONGEST)];
    if received.partial_checksum {
        // A datagram over IPv4, or else it had none; 0 says that there is none.
        let place = 14 + usize::from(frame.get(14).map_or(0, |byte| byte & 15)) * 4 + 6;
        if let Some(checksum) = frame.get_mut(place..place + 2) {
            checksum.fill(0);
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ringway_network::{Site, State, Things};
    use ringway_service::dhcp4::Server;
    use ringway_service::dns::Resolver;
    use ringway_service::leases::Client;
    use ringway_wire::MacAddress;

    use super::super::{settings, zone};
    use super::*;
    use crate::store::Store;
    use crate::testing::{Directory, spec};

    #[tokio::test]
    async fn a_lease_that_cannot_be_kept_is_not_given() {
        let directory = Directory::new("dhcp-keep");
        let mut store = Store::open(directory.path()).unwrap();
        let mut state = State::default();
        state.create(spec("lan"), &Site::default()).unwrap();
        store.commit(&state).unwrap();
        let service = Things::of(&state).services.into_values().next().unwrap();
        let answers = Answers {
            dhcp: Mutex::new(Server::new(settings(&service))),
            dns: Mutex::new(Resolver::new(zone(&service))),
            store: Arc::new(Mutex::new(store)),
            service,
        };
        let lend = |now| {
            let mut dhcp = lock(&answers.dhcp);
            let mac = MacAddress([2, 0, 0, 0, 0, 1]);
            let clients = [Client::Mac(mac)];
            let (address, _) = dhcp.pool.offer(&clients, None, now).unwrap();
            let lent = dhcp.pool.lend(&clients, mac, address, None, now, now + 60);
            (address, lent.unwrap())
        };
        let lent = || {
            let leases: Vec<Lease> = lock(&answers.dhcp).pool.leases().cloned().collect();
            leases
        };
        // A store that has nowhere to put leases.
        let path = directory.path().join("ringway.sqlite");
        let other = rusqlite::Connection::open(path).unwrap();
        let sql = |text| other.execute_batch(text).unwrap();
        sql("ALTER TABLE lease RENAME TO elsewhere");
        let (address, changes) = lend(100);
        assert!(!keep(&answers, changes).await);
        assert_eq!(lent(), []);
        sql("ALTER TABLE elsewhere RENAME TO lease");
        let (again, changes) = lend(101);
        assert!(keep(&answers, changes).await);
        assert_eq!(again, address);
        let name = answers.service.network.spec.name.clone();
        let kept = with(&answers.store, move |store| store.leases(&name)).await;
        assert_eq!(kept.unwrap(), lent());
    }
}
