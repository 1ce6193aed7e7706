//! Shows what a front-end says: a network back-end that prints every message and carries no frame.
//!
//! ```text
//! cargo run --example trace -- SOCKET [QUEUE_PAIRS [PROTOCOL_FEATURES]]
//! qemu-system-x86_64 ... -chardev socket,id=c0,path=SOCKET -netdev vhost-user,id=n0,chardev=c0,queues=QUEUE_PAIRS
//! ```

use std::error::Error;
use std::os::unix::net::UnixListener;

use ringway_vhost::user::features::*;
use ringway_vhost::user::session::PROTOCOL_FEATURES;
use ringway_vhost::user::{Event, Offer, Session, SessionError};
use rustix::event::{PollFd, PollFlags, poll};
use tracing::Level;

const FEATURES: u64 = mask(&[
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_GUEST_ANNOUNCE,
    VIRTIO_NET_F_MQ,
    VIRTIO_RING_F_INDIRECT_DESC,
    VIRTIO_RING_F_EVENT_IDX,
    VIRTIO_F_VERSION_1,
    VIRTIO_F_RING_PACKED,
    VIRTIO_F_IN_ORDER,
]);

fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_target(false)
        .init();
    let mut arguments = std::env::args().skip(1);
    let path = arguments
        .next()
        .ok_or("usage: trace SOCKET [QUEUE_PAIRS [PROTOCOL_FEATURES]]")?;
    let queue_pairs = arguments.next().map_or(Ok(1), |pairs| pairs.parse())?;
    let protocol_features = match arguments.next() {
        Some(hex) => u64::from_str_radix(hex.trim_start_matches("0x"), 16)?,
        None => PROTOCOL_FEATURES,
    };
    let offer = Offer {
        features: FEATURES,
        protocol_features,
        queue_pairs,
        max_memory_slots: 509,
    };
    let listener = UnixListener::bind(&path)?;
    println!("listening at {path}");
    for stream in listener.incoming() {
        let session = Session::new(stream?.into(), offer)?;
        println!("connected");
        match serve(session) {
            SessionError::Closed => println!("closed"),
            error => match error.source() {
                Some(source) => println!("ended: {error}: {source}"),
                None => println!("ended: {error}"),
            },
        }
    }
    Ok(())
}

fn serve(mut session: Session) -> SessionError {
    loop {
        match session.receive() {
            Ok(Some(event)) => show(&session, event),
            Ok(None) => {
                if let Err(errno) = poll(&mut [PollFd::new(&session, PollFlags::IN)], None) {
                    return SessionError::Socket(std::io::Error::from(errno).into());
                }
                continue;
            }
            Err(error) => return error,
        }
        if let Err(error) = session.finish(Ok(())) {
            return error;
        }
    }
}

fn show(session: &Session, event: Event) {
    let state = session.state();
    match event {
        Event::Answered => {}
        Event::Features => println!("  features: {}", names(state.features)),
        Event::Memory => {
            for region in state.memory.iter().flat_map(|memory| memory.regions()) {
                println!(
                    "  memory: guest {:#x}, user {:#x}, {:#x} bytes",
                    region.guest_address, region.user_address, region.size
                );
            }
        }
        Event::Mtu => println!("  mtu: {:?}", state.mtu),
        Event::Ring(ring) | Event::StopRing(ring) | Event::CallChanged(ring) => {
            println!("  ring {ring}: {:?}", state.vrings[usize::from(ring)]);
        }
        other => println!("  {other:?}"),
    }
}
