//! DHCP on the gateway's interface: frames in, leases kept, frames out.

use std::io;
use std::sync::Arc;

use ringway_host::packet::{LONGEST, PacketSocket, Received};
use ringway_host::ready;
use ringway_service::leases::{Change, Lease};
use tokio::io::unix::AsyncFd;

use super::{Answers, ServiceError, lock, now};
use crate::apply::with;

/// Frames answered with one commit.
const BATCH: usize = 128;

/// Opens the socket; what is given answers until it is dropped.
pub(super) fn serve(
    answers: Arc<Answers>,
) -> Result<impl Future<Output = ()> + Send + 'static, ServiceError> {
    let interface = &answers.service.network.interface;
    let open = PacketSocket::open(interface.as_str()).and_then(ready::watch_packets);
    let socket = open.map_err(|source| ServiceError::Packets {
        interface: interface.clone(),
        source,
    })?;
    Ok(async move {
        while let Err(error) = turn(&answers, &socket).await {
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

/// Answers what comes, for as long as nothing goes wrong.
async fn turn(answers: &Answers, socket: &AsyncFd<PacketSocket>) -> io::Result<()> {
    let mut buffer = [0; LONGEST];
    loop {
        let mut ready = socket.readable().await?;
        let (mut leases, mut frames) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let received = ready.try_io(|socket| socket.get_ref().receive(&mut buffer));
            let Ok(received) = received else { break };
            let frame = complete(&mut buffer, received?);
            let outcome = lock(&answers.dhcp).handle(frame, now());
            leases.extend(outcome.changes.into_iter().map(|Change(lease)| lease));
            frames.extend(outcome.frames);
        }
        if keep(answers, leases).await {
            for frame in &frames {
                // One that does not go out is as one that is lost on the way: the client asks again.
                if let Err(error) = socket.get_ref().send(frame) {
                    tracing::debug!("a DHCP answer did not go out: {error}");
                }
            }
        }
    }
}

/// Commits leases; whether that worked. If not, nobody is told of them, and whoever asks again has them committed then.
async fn keep(answers: &Answers, leases: Vec<Lease>) -> bool {
    if leases.is_empty() {
        return true;
    }
    let name = answers.service.network.spec.name.clone();
    let kept = with(&answers.store, move |store| {
        store.put_leases(&name, &leases)
    })
    .await;
    if let Err(error) = &kept {
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
