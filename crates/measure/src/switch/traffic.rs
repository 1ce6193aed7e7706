//! What is sent, and over which rings.

use clap::Args;
use serde::{Deserialize, Serialize};

/// Largest frame that fits in one receive buffer, as drivers with 2 KiB buffers have it.
pub const BUFFER: usize = 2048;

/// The shape of rings and traffic of one comparison.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Traffic {
    /// Bytes of a frame, without checksum
    #[arg(long, default_value_t = 64)]
    pub size: usize,
    /// Frames that are made available at once
    #[arg(long, default_value_t = 32)]
    pub burst: usize,
    /// Descriptors of a ring
    #[arg(long, default_value_t = 1024)]
    pub ring: u16,
    /// Packed rings
    #[arg(long)]
    pub packed: bool,
    /// Buffers are used in order
    #[arg(long)]
    pub in_order: bool,
    /// Receive buffers that are not mergeable, each as large as a frame
    #[arg(long)]
    pub no_mergeable: bool,
    /// Pairs of queues of a guest; frames pass over the first
    #[arg(long, default_value_t = 1)]
    pub queue_pairs: u8,
    /// Transmit buffers at least, used in turn; as many as the ring has descriptors without
    #[arg(long, default_value_t = 0)]
    pub buffers: usize,
    /// Both guests send and receive
    #[arg(long)]
    pub both_ways: bool,
    /// Pairs of MAC addresses, used in turn
    #[arg(long, default_value_t = 1)]
    pub pairs: usize,
    /// Every line is written before it is sent and read after it came
    #[arg(long)]
    pub touched: bool,
    /// Closed loop: frames under way at most
    #[arg(long)]
    pub window: Option<u64>,
    /// Frames are TCP segments of up to 64 KiB that a receiver takes whole
    #[arg(long)]
    pub tso: bool,
    /// Million frames per second; as fast as it goes without
    #[arg(long)]
    pub rate: Option<f64>,
    /// Measures how long frames are under way
    #[arg(long)]
    pub latency: bool,
    /// Compares every byte that comes with what was sent; slow
    #[arg(long)]
    pub verify: bool,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            size: 64,
            burst: 32,
            ring: 1024,
            packed: false,
            in_order: false,
            no_mergeable: false,
            queue_pairs: 1,
            buffers: 0,
            both_ways: false,
            pairs: 1,
            touched: false,
            window: None,
            tso: false,
            rate: None,
            latency: false,
            verify: false,
        }
    }
}

impl Traffic {
    /// Of a guest that only has to be there: little memory.
    pub fn idle() -> Self {
        Self {
            ring: 256,
            ..Self::default()
        }
    }

    /// Says what does not go together.
    pub fn check(&self) -> anyhow::Result<()> {
        let minimum = if self.tso { 128 } else { 64 };
        if !(minimum..=65_535).contains(&self.size) {
            anyhow::bail!("size {}: take {minimum} to 65535", self.size);
        }
        if !self.ring.is_power_of_two() || usize::from(self.ring) < self.burst || self.burst == 0 {
            anyhow::bail!(
                "ring {}: take a power of two not smaller than the burst",
                self.ring
            );
        }
        if self.pairs == 0 || self.pairs > 60_000 {
            anyhow::bail!("pairs {}: take 1 to 60000", self.pairs);
        }
        if !(1..=8).contains(&self.queue_pairs) {
            anyhow::bail!("queue pairs {}: take 1 to 8", self.queue_pairs);
        }
        if self.latency && self.verify {
            anyhow::bail!("frames that carry their time of departure cannot be compared");
        }
        if self.window.is_some_and(|window| window < self.burst as u64) {
            anyhow::bail!("a window smaller than a burst lets nothing through");
        }
        Ok(())
    }

    /// Receive buffers that one frame takes, its virtio-net header included.
    pub fn buffers_per_frame(&self) -> usize {
        if self.no_mergeable {
            1
        } else {
            (self.size + 12).div_ceil(BUFFER + 12)
        }
    }
}
