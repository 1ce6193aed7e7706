//! A driver in user space: memory of its own, rings, and the device that speaks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use ringway_mem::{GuestMemory, RegionRequest};
use ringway_ring::{DriverOptions, DriverRing, RingBase, RingFeatures};
use ringway_vhost::user::RingAddresses;
use ringway_vhost::user::features as bits;
use ringway_vhost::user::features::{has, mask};
use ringway_vhost::user::frontend::{Frontend, NetDevice, RingSetup, Wish};
use rustix::event::{EventfdFlags, PollFd, eventfd};

/// Descriptors of a ring.
pub(crate) const SIZE: u16 = 256;
/// Frames that may be under way in one direction: each takes up to three receive buffers.
pub(crate) const WINDOW: usize = 48;
const HEADER: usize = 12;
/// Bytes of a transmit buffer.
const ROOM: u32 = 2048;
/// Longest frame.
const LONGEST: usize = 1514;
/// Rings, tables and transmit buffers lie in the first region, receive buffers in the second.
const FIRST: (u64, usize) = (0x10_0000, 16 << 20);
const SECOND: (u64, usize) = (0x1_0000_0000, 4 << 20);
/// The front-end's own addresses are others than the guest's.
const USER: u64 = 0x7000_0000_0000;

/// What the driver makes use of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) packed: bool,
    pub(crate) mergeable: bool,
    /// Indirect descriptors and event indices.
    pub(crate) indirect: bool,
    pub(crate) pairs: u16,
}

impl Options {
    pub(crate) fn wish(self) -> Wish {
        let mut required = vec![bits::VIRTIO_F_VERSION_1];
        for (wanted, bit) in [
            (self.packed, bits::VIRTIO_F_RING_PACKED),
            (self.mergeable, bits::VIRTIO_NET_F_MRG_RXBUF),
            (self.indirect, bits::VIRTIO_RING_F_INDIRECT_DESC),
            (self.indirect, bits::VIRTIO_RING_F_EVENT_IDX),
            (self.pairs > 1, bits::VIRTIO_NET_F_MQ),
        ] {
            required.extend(wanted.then_some(bit));
        }
        Wish {
            queue_pairs: self.pairs,
            mtu: Some(1500),
            ..Wish::new(mask(&required))
        }
    }
}

/// A network card.
pub(crate) struct Nic {
    pub(crate) device: NetDevice,
    pub(crate) memory: Arc<GuestMemory>,
    /// Guest pages that received bytes.
    pub(crate) written: BTreeSet<u64>,
    requests: Vec<RegionRequest>,
    options: Options,
    /// Receive, transmit, receive, transmit...
    queues: Vec<Queue>,
}

struct Queue {
    ring: DriverRing,
    kick: OwnedFd,
    call: OwnedFd,
    /// Chains that the device has: where their bytes lie.
    posted: BTreeMap<u16, Vec<(u64, u32)>>,
    /// Places for bytes that no chain uses.
    free: Vec<u64>,
    /// Pieces of a frame that goes on in the next buffer, and how many buffers are still to come.
    partial: (Vec<u8>, u16),
}

impl Nic {
    /// Negotiates, shares memory, starts the rings and enables them, full of receive buffers.
    pub(crate) fn start(front: Frontend, options: Options) -> Result<Self> {
        let (_, mut requests) = GuestMemory::memfd(&[FIRST, SECOND])?;
        for request in &mut requests {
            request.user_address = request.guest_address + USER;
        }
        let memory = Arc::new(GuestMemory::map(copies(&requests)?)?);
        let device = NetDevice::negotiate(front, options.wish())?;
        let mut at = FIRST.0;
        let mut queues = Vec::new();
        for number in 0..2 * options.pairs {
            let (queue, end) = Queue::new(&memory, options, number, at)?;
            queues.push(queue);
            at = end.next_multiple_of(4096);
        }
        ensure!(at < FIRST.0 + FIRST.1 as u64, "too little memory");
        let mut nic = Self {
            device,
            memory,
            written: BTreeSet::new(),
            requests,
            options,
            queues,
        };
        nic.device.share(copies(&nic.requests)?)?;
        nic.start_rings()?;
        for pair in 0..usize::from(options.pairs) {
            nic.refill(2 * pair)?;
        }
        Ok(nic)
    }

    /// Stops the rings; the device has to stand where the driver does. Then they go on from there.
    pub(crate) fn stop_and_go_on(&mut self) -> Result<()> {
        let stopped = self.device.stop()?;
        self.receive()?;
        for pair in 0..usize::from(self.options.pairs) {
            self.queues[2 * pair + 1].take_back()?;
        }
        for (index, base) in stopped {
            let ring = &self.queues[usize::from(index)].ring;
            let device = RingBase::from_vhost(base, self.options.packed);
            ensure!(
                device == ring.base(),
                "ring {index}: {device:?}, not {:?}",
                ring.base()
            );
        }
        self.start_rings()
    }

    /// Resets the device, as for a guest that is; the driver's rings start where they stand.
    pub(crate) fn reset_and_go_on(&mut self) -> Result<()> {
        self.device.reset()?;
        self.receive()?;
        for pair in 0..usize::from(self.options.pairs) {
            self.queues[2 * pair + 1].take_back()?;
        }
        self.start_rings()
    }

    /// Goes on with a back-end that was started anew.
    pub(crate) fn reconnect(&mut self, front: Frontend) -> Result<()> {
        let queues = &self.queues;
        let base = |index: u8| queues[usize::from(index)].ring.base().to_vhost();
        Ok(self.device.reconnect(front, base)?)
    }

    /// The same with the base that the front-end was last told, as QEMU does it: here that of the first start.
    pub(crate) fn reconnect_as_told(&mut self, front: Frontend) -> Result<()> {
        let start = RingBase::start(self.options.packed).to_vhost();
        Ok(self.device.reconnect(front, |_| start)?)
    }

    /// Holds a region for the back-ends, from now on. The rings run already.
    pub(crate) fn track_inflight(&mut self) -> Result<()> {
        Ok(self.device.track_inflight(SIZE)?)
    }

    /// Puts a frame into the ring of a queue pair, cut in a way that depends on `shape`. It has to be published.
    pub(crate) fn send(&mut self, pair: usize, frame: &[u8], shape: usize) -> Result<()> {
        let indirect = self.options.indirect && shape.is_multiple_of(2);
        let queue = &mut self.queues[2 * pair + 1];
        queue.take_back()?;
        let at = queue.free.pop().context("every transmit buffer is taken")?;
        let bytes = [&[0; HEADER][..], frame].concat();
        write(&self.memory, at, &bytes)?;
        let len = u32::try_from(bytes.len())?;
        let header = u32::try_from(HEADER)?;
        let middle = header + (len - header) / 3;
        let cuts = match shape % 3 {
            0 => vec![len],
            1 => vec![header, len],
            _ => vec![header, middle, len],
        };
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push((at + u64::from(from), cut - from));
            from = cut;
        }
        let id = queue.ring.add(&pieces, &[], indirect)?;
        queue.posted.insert(id, pieces);
        Ok(())
    }

    /// Shows what was put in, and kicks where the device wants it.
    pub(crate) fn publish(&mut self, pair: usize) -> Result<()> {
        self.queues[2 * pair + 1].publish()
    }

    /// All frames that have arrived, with the pair by which they came.
    pub(crate) fn receive(&mut self) -> Result<Vec<(usize, Vec<u8>)>> {
        let mut frames = Vec::new();
        for pair in 0..usize::from(self.options.pairs) {
            let queue = &mut self.queues[2 * pair];
            let mut took = false;
            while let Some(used) = queue.ring.pop_used()? {
                took = true;
                let pieces = queue.posted.remove(&used.id).context("not posted")?;
                self.written.insert(pieces[0].0 / 4096);
                let bytes = read(&self.memory, &pieces, used.len as usize)?;
                queue.free.push(pieces[0].0);
                let (frame, left) = &mut queue.partial;
                if *left == 0 {
                    ensure!(bytes.len() > HEADER, "{} bytes received", bytes.len());
                    let count = u16::from_le_bytes([bytes[10], bytes[11]]);
                    // Without merging DPDK leaves it 0.
                    ensure!(count <= 1 || self.options.mergeable, "{count} buffers");
                    *left = count.max(1);
                    frame.extend(&bytes[HEADER..]);
                } else {
                    frame.extend(&bytes);
                }
                *left -= 1;
                if *left == 0 {
                    frames.push((pair, std::mem::take(frame)));
                }
            }
            if took {
                self.refill(2 * pair)?;
            }
        }
        Ok(frames)
    }

    /// Asks for calls; true = something has arrived already.
    pub(crate) fn enable_calls(&mut self) -> bool {
        let receive = self.queues.iter_mut().step_by(2);
        receive.fold(false, |some, queue| queue.ring.enable_calls() | some)
    }

    /// What is signalled for arrivals.
    pub(crate) fn calls(&self) -> impl Iterator<Item = PollFd<'_>> {
        let receive = self.queues.iter().step_by(2);
        receive.map(|queue| PollFd::new(&queue.call, rustix::event::PollFlags::IN))
    }

    /// Forgets signals.
    pub(crate) fn hear(&self) {
        for queue in &self.queues {
            let _ = rustix::io::read(&queue.call, &mut [0; 8]);
        }
    }

    /// Bytes of a dirty log for all of the memory.
    pub(crate) fn log_size(&self) -> u64 {
        ((SECOND.0 + SECOND.1 as u64) / 4096 / 8).next_multiple_of(4096)
    }

    /// Starts the rings where they stand.
    fn start_rings(&mut self) -> Result<()> {
        for (index, queue) in (0..).zip(&self.queues) {
            let base = queue.ring.base().to_vhost();
            self.device
                .start_ring(index, queue.setup(&self.memory)?, base)?;
        }
        Ok(self.device.enable(self.options.pairs)?)
    }

    /// Gives a receive ring all the buffers there are.
    fn refill(&mut self, number: usize) -> Result<()> {
        let room = receive_room(self.options);
        let queue = &mut self.queues[number];
        while queue.ring.free() > 0
            && let Some(at) = queue.free.pop()
        {
            let pieces = vec![(at, room)];
            let id = queue.ring.add(&[], &pieces, false)?;
            queue.posted.insert(id, pieces);
        }
        queue.publish()
    }
}

impl Queue {
    /// The ring of that number at `at`, and where what it needs of the first region ends.
    fn new(
        memory: &Arc<GuestMemory>,
        options: Options,
        number: u16,
        at: u64,
    ) -> Result<(Self, u64)> {
        let ring = DriverOptions {
            size: SIZE,
            features: RingFeatures {
                packed: options.packed,
                event_idx: options.indirect,
                indirect: options.indirect,
                in_order: false,
            },
            base: RingBase::start(options.packed),
            table: if options.indirect { 4 } else { 0 },
        };
        let end = at + DriverRing::bytes(&ring) as u64;
        let receives = number.is_multiple_of(2);
        let (first, stride) = if receives {
            let pair = u64::from(number / 2);
            (SECOND.0 + pair * (2 << 20), u64::from(ROOM))
        } else {
            (end.next_multiple_of(4096), u64::from(ROOM))
        };
        let free: Vec<u64> = (0..u64::from(SIZE))
            .map(|place| first + place * stride)
            .collect();
        let end = if receives {
            end
        } else {
            first + u64::from(SIZE) * stride
        };
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let queue = Self {
            ring: DriverRing::new(memory, at, ring)?,
            kick: event()?,
            call: event()?,
            posted: BTreeMap::new(),
            free,
            partial: (Vec::new(), 0),
        };
        Ok((queue, end))
    }

    fn setup(&self, memory: &GuestMemory) -> Result<RingSetup> {
        let layout = self.ring.layout();
        let log = memory
            .user_to_guest(layout.used, 1)
            .context("no such address")?;
        Ok(RingSetup {
            size: layout.size,
            addresses: RingAddresses {
                descriptors: layout.descriptors,
                available: layout.available,
                used: layout.used,
                log,
                logged: false,
            },
            kick: Some(self.kick.as_fd().try_clone_to_owned()?),
            call: Some(self.call.as_fd().try_clone_to_owned()?),
            err: None,
        })
    }

    /// Transmit buffers that came back are free again.
    fn take_back(&mut self) -> Result<()> {
        while let Some(used) = self.ring.pop_used()? {
            let pieces = self.posted.remove(&used.id).context("not posted")?;
            self.free.push(pieces[0].0);
        }
        Ok(())
    }

    fn publish(&mut self) -> Result<()> {
        if self.ring.publish() {
            rustix::io::write(&self.kick, &1u64.to_ne_bytes())?;
        }
        Ok(())
    }
}

/// Bytes of a receive buffer: with merging a frame takes up to three.
fn receive_room(options: Options) -> u32 {
    if options.mergeable { 600 } else { ROOM }
}

fn copies(requests: &[RegionRequest]) -> Result<Vec<RegionRequest>> {
    let copy = |request: &RegionRequest| {
        Ok(RegionRequest {
            file: request.file.try_clone()?,
            ..*request
        })
    };
    requests.iter().map(copy).collect()
}

fn write(memory: &GuestMemory, at: u64, bytes: &[u8]) -> Result<()> {
    let len = u32::try_from(bytes.len())?;
    let place = memory.write_prefix(at, len).context("no memory")?;
    ensure!(place.copy_from(bytes) == bytes.len());
    Ok(())
}

fn read(memory: &GuestMemory, pieces: &[(u64, u32)], len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len);
    for &(at, piece) in pieces {
        let now = (piece as usize).min(len - bytes.len());
        let mut part = vec![0; now];
        let place = memory
            .read_prefix(at, u32::try_from(now)?)
            .context("no memory")?;
        ensure!(place.copy_to(&mut part) == now);
        bytes.extend(part);
    }
    ensure!(bytes.len() == len, "{len} bytes in {pieces:?}");
    Ok(bytes)
}

/// Frame number `number` of a side: which is its length and every byte of it. `to` and `from` are sides, not addresses.
pub(crate) fn frame(from: u8, to: u8, number: u32) -> Vec<u8> {
    let word = (number ^ u32::from(from) << 24).wrapping_mul(0x9e37_79b1);
    let len = match number % 7 {
        0 => 60,
        1 => LONGEST,
        _ => 60 + (word >> 8) as usize % (LONGEST - 60),
    };
    let mut bytes = [[2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]].concat();
    bytes.extend([0x88, 0xb5, from]);
    bytes.extend(number.to_be_bytes());
    let mut state = word | 1;
    while bytes.len() < len {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push((state >> 24) as u8);
    }
    bytes
}

/// The number of a frame from that side, every byte of which has to be right; `None` = it is not ours.
pub(crate) fn number_of(bytes: &[u8], from: u8, to: u8) -> Result<Option<u32>> {
    let Some(&[0x88, 0xb5, side, a, b, c, d]) = bytes.get(12..19) else {
        return Ok(None);
    };
    if side != from {
        return Ok(None);
    }
    let number = u32::from_be_bytes([a, b, c, d]);
    if bytes != frame(from, to, number) {
        bail!("frame {number} of side {from} arrived with other bytes");
    }
    Ok(Some(number))
}

/// Whether the device negotiated a protocol feature.
pub(crate) fn speaks(nic: &Nic, protocol_feature: u32) -> bool {
    has(nic.device.protocol_features(), protocol_feature)
}
