//! A guest: memory of its own, two rings, and the front-end that speaks for them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ringway_mem::{GuestMemory, RegionRequest};
use ringway_ring::{RingBase, RingFeatures};
use ringway_vhost::user::features as bits;
use ringway_vhost::user::frontend::Frontend;
use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};

use super::frames;
use super::queue::{Buffers, Outfit, Queue};
use super::traffic::{BUFFER, Traffic};

/// How long a back-end may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Where guest memory begins, for the guest and for the front-end.
const BASE: u64 = 1 << 30;
const HUGE_PAGE: usize = 2 << 20;
/// Virtio device status of a driver that runs.
const RUNNING: u8 = 0xf;

/// A guest whose driver is this process.
pub struct Guest {
    /// What it sends by.
    pub tx: Queue,
    /// What it receives by.
    pub rx: Queue,
    /// Of further pairs, silent.
    _others: Vec<Queue>,
    /// The connection lives as long as the guest.
    _front: Frontend,
    /// Whether its memory is made of huge pages.
    pub huge: bool,
    tx_buffers: usize,
}

impl Guest {
    /// Sets everything up over a connection to a back-end.
    pub fn start(mut front: Frontend, traffic: &Traffic) -> Result<Self> {
        let ring = RingFeatures {
            packed: traffic.packed,
            in_order: traffic.in_order,
            ..RingFeatures::default()
        };
        let size = usize::from(traffic.ring);
        let outfit = |count, room, receives| Outfit {
            size: traffic.ring,
            features: ring,
            buffers: Buffers { count, room },
            receives,
        };
        // Every pair is as often in them as any other.
        let count = size.max(traffic.buffers).next_multiple_of(traffic.pairs);
        let sends = outfit(count, traffic.size, false);
        let room = match traffic.no_mergeable {
            true => traffic.size.max(BUFFER),
            false => BUFFER,
        };
        let receives = outfit(size, room, true);
        let rx_at = sends.bytes().next_multiple_of(4096);
        // Further pairs have rings and no traffic.
        let more_at = (rx_at + receives.bytes()).next_multiple_of(4096);
        let rest = outfit(size, 0, false);
        let more = 2 * (usize::from(traffic.queue_pairs) - 1);
        let bytes = more_at + more * rest.bytes().next_multiple_of(4096);
        let (memory, region, huge) = memory(bytes.next_multiple_of(HUGE_PAGE))?;
        let memory = Arc::new(memory);
        let tx = Queue::new(&memory, BASE, 0, &sends)?;
        let rx = Queue::new(&memory, BASE, rx_at, &receives)?;
        let others = (0..more).map(|number| {
            let at = more_at + number * rest.bytes().next_multiple_of(4096);
            Queue::new(&memory, BASE, at, &rest)
        });
        let others = others.collect::<Result<Vec<_>>>()?;
        negotiate(&mut front, traffic)?;
        front.set_mem_table(&[region])?;
        for (index, queue) in (0u8..).zip([&rx, &tx].into_iter().chain(&others)) {
            let wide = u32::from(index);
            front.set_vring_num(wide, traffic.ring.into())?;
            front.set_vring_base(wide, RingBase::start(traffic.packed).to_vhost())?;
            front.set_vring_addr(wide, &queue.addresses())?;
            front.set_vring_call(index, Some(queue.call_fd()))?;
            front.set_vring_kick(index, Some(queue.kick_fd()))?;
            front.set_vring_enable(wide, true)?;
        }
        front.set_status(RUNNING)?;
        let mut guest = Self {
            tx,
            rx,
            _others: others,
            _front: front,
            huge,
            tx_buffers: count,
        };
        guest.rx.fill_ring()?;
        Ok(guest)
    }

    /// Writes into every transmit buffer what it will carry from now on, and returns the bytes.
    pub fn prepare(&self, traffic: &Traffic, side: usize) -> Result<Vec<Vec<u8>>> {
        let mut sent = Vec::with_capacity(self.tx_buffers);
        for number in 0..self.tx_buffers {
            let (header, bytes) = frames::frame(traffic, side, number);
            self.tx.fill(number, &header.to_bytes(), &bytes)?;
            sent.push(bytes);
        }
        Ok(sent)
    }

    /// Writes announcements into the transmit buffers; how many bytes each has.
    pub fn prepare_announcements(&self, traffic: &Traffic, side: usize) -> Result<usize> {
        for number in 0..self.tx_buffers {
            let bytes = frames::announcement(traffic, side, number);
            self.tx.fill(number, &[0; 12], &bytes)?;
        }
        Ok(frames::announcement(traffic, side, 0).len())
    }
}

/// Connects to a socket that somebody is about to listen at.
pub fn connect(path: &Path, limit: Duration) -> Result<Frontend> {
    let end = std::time::Instant::now() + limit;
    loop {
        match Frontend::connect(path, PATIENCE) {
            Ok(front) => return Ok(front),
            Err(error) if std::time::Instant::now() > end => {
                return Err(error).with_context(|| format!("nobody listens at {}", path.display()));
            }
            // There is nothing to wait for: the file may exist before its owner listens.
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn negotiate(front: &mut Frontend, traffic: &Traffic) -> Result<()> {
    let mut wanted = vec![
        bits::VHOST_USER_F_PROTOCOL_FEATURES,
        bits::VIRTIO_F_VERSION_1,
    ];
    if !traffic.no_mergeable {
        wanted.push(bits::VIRTIO_NET_F_MRG_RXBUF);
    }
    if traffic.packed {
        wanted.push(bits::VIRTIO_F_RING_PACKED);
    }
    if traffic.in_order {
        wanted.push(bits::VIRTIO_F_IN_ORDER);
    }
    if traffic.tso {
        wanted.extend([
            bits::VIRTIO_NET_F_CSUM,
            bits::VIRTIO_NET_F_GUEST_CSUM,
            bits::VIRTIO_NET_F_HOST_TSO4,
            bits::VIRTIO_NET_F_GUEST_TSO4,
        ]);
    }
    if traffic.queue_pairs > 1 {
        wanted.push(bits::VIRTIO_NET_F_MQ);
    }
    let wanted = bits::mask(&wanted);
    let offered = front.get_features()?;
    if wanted & !offered != 0 {
        bail!(
            "the back-end lacks the features {:#x}; it offers {offered:#x}",
            wanted & !offered
        );
    }
    let protocol = bits::mask(&[
        bits::VHOST_USER_PROTOCOL_F_REPLY_ACK,
        bits::VHOST_USER_PROTOCOL_F_STATUS,
        bits::VHOST_USER_PROTOCOL_F_MQ,
    ]);
    let protocol = protocol & front.get_protocol_features()?;
    front.set_protocol_features(protocol)?;
    front.ask_for_acks(true);
    front.set_owner()?;
    front.set_features(wanted)?;
    Ok(())
}

/// Memory of huge pages where there are enough, else of ordinary ones.
fn memory(size: usize) -> Result<(GuestMemory, RegionRequest, bool)> {
    let request = |file| RegionRequest {
        guest_address: BASE,
        size: size as u64,
        user_address: BASE,
        mmap_offset: 0,
        file,
    };
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    if let Ok(file) = memfd_create("ringway-bench", flags)
        && ftruncate(&file, size as u64).is_ok()
        && fallocate(&file, FallocateFlags::empty(), 0, size as u64).is_ok()
    {
        let memory = GuestMemory::map(vec![request(file.try_clone()?)])?;
        return Ok((memory, request(file), true));
    }
    let (memory, requests) = GuestMemory::memfd(&[(BASE, size)])?;
    let request = requests.into_iter().next().context("no region")?;
    Ok((memory, request, false))
}
