//! The rings of a guest's NIC: frames in, frames out.

use std::sync::Arc;
use std::time::Instant;

use ringway_mem::{GuestMemory, RegionRequest};
use ringway_ring::{DriverOptions, DriverRing, RingBase, RingFeatures};
use ringway_vhost::user::features::{self as bits, has, mask};
use ringway_wire::VnetHeader;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::queue::{Queue, Shape, TABLE};
use super::{PATIENCE, features};

/// How a guest is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it negotiates, all of which must be offered.
    pub features: u64,
    /// Descriptors of a ring.
    pub size: u16,
    pub pairs: u16,
    /// Bytes of a receive buffer, and how it is cut.
    pub buffer: u32,
    pub shape: Shape,
    /// Receive buffers per ring at most.
    pub buffers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            features: features::USUAL,
            size: 256,
            pairs: 1,
            buffer: 2048,
            shape: Shape::default(),
            buffers: usize::MAX,
        }
    }
}

/// A frame as a guest found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub header: VnetHeader,
    pub frame: Vec<u8>,
    /// Receive buffers it took.
    pub buffers: usize,
    /// Queue pair it came by.
    pub pair: usize,
}

/// The driver's side of a NIC.
pub struct Nic {
    pub memory: Arc<GuestMemory>,
    /// As the front-end announces them.
    pub regions: Vec<RegionRequest>,
    /// By ring number: the receive ring of pair `p` is `2 p`, the transmit ring `2 p + 1`.
    pub queues: Vec<Queue>,
    pub options: Options,
    pub sent: u64,
    pub received: u64,
    pub received_bytes: u64,
}

/// Room for the longest frame, its header and gaps between its pieces.
const PLACE: u64 = 0x1_2000;
/// Frames a transmit ring holds at most.
const PLACES: usize = 48;
const RINGS: u64 = 0x1_0000;

impl Nic {
    /// Memory in three regions side by side, so that some frames and buffers span two.
    pub fn new(options: Options) -> Self {
        let rings = usize::from(options.pairs) * 2;
        let ring_options = DriverOptions {
            size: options.size,
            features: ring_features(options.features),
            base: RingBase::start(has(options.features, bits::VIRTIO_F_RING_PACKED)),
            table: TABLE,
        };
        let ring_bytes = DriverRing::bytes(&ring_options).next_multiple_of(4096) as u64;
        let gaps = 3 * (options.shape.pieces.len() as u64 + 1);
        let buffer = u64::from(options.buffer) + gaps + 1;
        let buffers = options.buffers.min(usize::from(options.size));
        let transmit = RINGS + ring_bytes * rings as u64;
        let receive = transmit + PLACE * PLACES as u64 * u64::from(options.pairs);
        let end = receive + buffer * buffers as u64 * u64::from(options.pairs);
        let page = |at: u64| at & !4095;
        let cuts = [
            0,
            page(transmit + PLACE * 3 + PLACE / 2),
            page(receive + (end - receive) / 2),
            page(end) + 4096,
        ];
        let layout: Vec<_> = cuts
            .windows(2)
            .filter(|cut| cut[0] < cut[1])
            .map(|cut| (cut[0], usize::try_from(cut[1] - cut[0]).unwrap()))
            .collect();
        let (memory, regions) = GuestMemory::memfd(&layout).unwrap();
        let memory = Arc::new(memory);
        let queues = (0..rings as u64).map(|ring| {
            let at = RINGS + ring * ring_bytes;
            let pair = ring / 2;
            let places = if ring % 2 == 0 {
                (receive + pair * buffer * buffers as u64, buffer, buffers)
            } else {
                (transmit + pair * PLACE * PLACES as u64, PLACE, PLACES)
            };
            Queue::new(&memory, ring_options, at, places)
        });
        Self {
            queues: queues.collect(),
            memory,
            regions,
            options,
            sent: 0,
            received: 0,
            received_bytes: 0,
        }
    }

    fn header_len(&self) -> usize {
        let modern = mask(&[bits::VIRTIO_F_VERSION_1, bits::VIRTIO_NET_F_MRG_RXBUF]);
        if self.options.features & modern != 0 {
            12
        } else {
            10
        }
    }

    fn merges(&self) -> bool {
        has(self.options.features, bits::VIRTIO_NET_F_MRG_RXBUF)
    }

    /// Gives the device every receive buffer there is.
    pub fn fill(&mut self) {
        let Options { buffer, shape, .. } = self.options.clone();
        for pair in 0..usize::from(self.options.pairs) {
            let queue = &mut self.queues[2 * pair];
            while queue.add(&shape, buffer, true).is_some() {}
            queue.publish();
        }
    }

    /// Receive buffers that the device has.
    pub fn buffers(&self) -> usize {
        self.queues.iter().step_by(2).map(Queue::out).sum()
    }

    /// Sends a frame that asks for nothing.
    pub fn send(&mut self, frame: &[u8]) {
        self.send_as(0, VnetHeader::default(), frame, &Shape::default());
    }

    /// Sends a frame with what its virtio-net header says.
    pub fn send_with(&mut self, header: VnetHeader, frame: &[u8]) {
        self.send_as(0, header, frame, &Shape::default());
    }

    /// Sends by a pair's queue, in a shape. Waits for room.
    pub fn send_as(&mut self, pair: usize, header: VnetHeader, frame: &[u8], shape: &Shape) {
        let ring = 2 * pair + 1;
        self.stage(pair, header, frame, shape);
        self.queues[ring].publish();
    }

    /// As [`send_as`](Self::send_as), but the device does not see it yet, unless there is no room.
    pub fn stage(&mut self, pair: usize, header: VnetHeader, frame: &[u8], shape: &Shape) {
        let ring = 2 * pair + 1;
        let mut bytes = header.to_bytes()[..self.header_len()].to_vec();
        bytes.extend(frame);
        let len = u32::try_from(bytes.len()).unwrap();
        let posted = loop {
            if let Some((_, posted)) = self.queues[ring].add(shape, len, false) {
                break posted;
            }
            self.queues[ring].publish();
            self.wait("room to send", &[ring], |nic| {
                (nic.reclaim() > 0).then_some(())
            });
        };
        self.queues[ring].write(&posted.pieces, &bytes);
        self.sent += 1;
    }

    /// Takes back frames that were sent; how many.
    pub fn reclaim(&mut self) -> usize {
        let mut count = 0;
        for queue in self.queues.iter_mut().skip(1).step_by(2) {
            while let Some((_, used)) = queue.pop() {
                assert_eq!(used.len, 0, "nothing is written to what is sent");
                count += 1;
            }
        }
        count
    }

    /// Waits until everything that was sent has come back.
    pub fn drain(&mut self) {
        let rings: Vec<_> = (1..self.queues.len()).step_by(2).collect();
        self.wait("the end of sending", &rings, |nic| {
            nic.reclaim();
            nic.queues
                .iter()
                .skip(1)
                .step_by(2)
                .all(|queue| queue.out() == 0)
                .then_some(())
        });
    }

    /// The next frame.
    pub fn receive(&mut self) -> Received {
        let rings: Vec<_> = (0..self.queues.len()).step_by(2).collect();
        self.wait("a frame", &rings, Self::try_receive)
    }

    /// The next frames.
    pub fn receive_all(&mut self, count: usize) -> Vec<Received> {
        (0..count).map(|_| self.receive()).collect()
    }

    /// The next frame if one is there; its buffers go back to the device.
    pub fn try_receive(&mut self) -> Option<Received> {
        let received = self.take()?;
        self.fill();
        Some(received)
    }

    /// The next frame if one is there; its buffers stay away.
    pub fn take(&mut self) -> Option<Received> {
        let found = (0..usize::from(self.options.pairs)).find_map(|pair| {
            let first = self.queues[2 * pair].pop()?;
            Some((pair, first))
        });
        let (pair, (first, used)) = found?;
        let header_len = self.header_len();
        let queue = &mut self.queues[2 * pair];
        let mut bytes = queue.read(&first.pieces, used.len as usize);
        let mut header = [0; 12];
        header[..header_len].copy_from_slice(&bytes[..header_len]);
        let header = VnetHeader::from_bytes(&header);
        let mut room = self.options.buffer;
        let mut filled = used.len;
        let buffers = if header_len == 12 {
            usize::from(header.num_buffers)
        } else {
            1
        };
        assert!(buffers >= 1);
        for _ in 1..buffers {
            // virtio 1.2, 5.1.6.4: all of a frame's buffers are used together, each but the last
            // one wholly.
            assert_eq!(filled, room, "a buffer that is not the last is not full");
            let (next, used) = queue.pop().expect("the rest of a frame");
            bytes.extend(queue.read(&next.pieces, used.len as usize));
            (room, filled) = (self.options.buffer, used.len);
        }
        assert!(self.merges() || buffers == 1);
        let frame = bytes.split_off(header_len);
        self.received += 1;
        self.received_bytes += frame.len() as u64;
        Some(Received {
            header,
            frame,
            buffers,
            pair,
        })
    }

    /// Repeats `ready` when the device calls for one of `rings`, until it gives something.
    pub fn wait<T>(
        &mut self,
        what: &str,
        rings: &[usize],
        mut ready: impl FnMut(&mut Self) -> Option<T>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ready(self) {
                return found;
            }
            let mut more = false;
            for &ring in rings {
                more |= self.queues[ring].ring.enable_calls();
            }
            if !more {
                let calls = rings.iter().map(|&ring| self.queues[ring].call());
                assert!(
                    sleep(&calls.collect::<Vec<_>>(), deadline),
                    "waited for {what}"
                );
                rings.iter().for_each(|&ring| self.queues[ring].hear());
            }
        }
    }
}

/// Until one of the descriptors is readable; false at the deadline.
pub fn sleep(fds: &[std::os::fd::BorrowedFd<'_>], deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).unwrap();
    let mut polled: Vec<_> = fds
        .iter()
        .map(|fd| PollFd::new(fd, PollFlags::IN))
        .collect();
    poll(&mut polled, Some(&timeout)).unwrap_or(1) > 0
}

pub fn ring_features(features: u64) -> RingFeatures {
    RingFeatures {
        packed: has(features, bits::VIRTIO_F_RING_PACKED),
        event_idx: has(features, bits::VIRTIO_RING_F_EVENT_IDX),
        indirect: has(features, bits::VIRTIO_RING_F_INDIRECT_DESC),
        in_order: has(features, bits::VIRTIO_F_IN_ORDER),
    }
}
