//! A worker beside a guest that never stops sending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway_port::{Burst, Counters, Fault, Offloads, Port, Sent, Wakeup};

use super::{Poll, Worker};
use crate::snapshot::{Entry, QueueRef, Shared, Snapshot};
use crate::table::{PORT_LIMIT, Table};

/// No turn has as many bursts. A worker that is past it would never come to the end of the round.
const WITHOUT_END: u64 = 1000;

/// A port whose one queue gives the same burst however often it is asked.
struct Endless {
    /// Chains of each burst, and the frame in each; without one they hold nothing.
    chains: usize,
    frame: Option<Vec<u8>>,
    id: u64,
    counters: Counters,
    bursts: AtomicU64,
    bytes: AtomicU64,
}

impl Endless {
    fn new(id: u64, chains: usize, frame: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            chains,
            frame: frame.map(|len| vec![0; len]),
            id,
            counters: Counters::new(1),
            bursts: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }
}

impl Port for Endless {
    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn receive_queues(&self) -> usize {
        1
    }

    fn send_queues(&self) -> usize {
        0
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn receive<'m>(
        &'m self,
        _: usize,
        limit: usize,
        burst: &mut Burst<'m>,
    ) -> Result<usize, Fault> {
        let bursts = self.bursts.fetch_add(1, Ordering::Relaxed);
        assert!(bursts < WITHOUT_END, "a turn without an end");
        let mut taken = 0;
        while taken < self.chains.min(limit) && burst.bytes < burst.room {
            match &self.frame {
                Some(frame) => assert!(burst.push_private(&[0; 12], frame)),
                None => burst.refused += 1,
            }
            taken += 1;
        }
        self.bytes.fetch_add(burst.bytes, Ordering::Relaxed);
        Ok(taken)
    }

    fn release(&self, _: usize, _: &mut Burst<'_>) -> Result<(), Fault> {
        Ok(())
    }

    fn send(&self, _: usize, _: &Burst<'_>, _: u64) -> Sent {
        Sent::default()
    }

    fn wakeup(&self, _: usize) -> Wakeup<'_> {
        let id = self.id;
        Wakeup::Memory { id, kick: None }
    }

    fn arm(&self, _: usize) -> bool {
        false
    }

    fn disarm(&self, _: usize) {}

    fn woken(&self, _: usize) {}
}

#[test]
fn a_turn_ends_though_its_queue_never_does_cve_2019_3900() {
    const ROUNDS: u64 = 50;
    for (chains, frame) in [
        (1, Some(60)),
        (32, Some(60)),
        (32, Some(1514)),
        (32, Some(65_000)),
        (1, None),
        (32, None),
    ] {
        let endless = Endless::new(1, chains, frame);
        let other = Endless::new(2, 0, None);
        let entry = |number, port| {
            Some(Entry {
                port,
                number,
                policy: Arc::default(),
                watchers: None,
            })
        };
        let ports: Vec<Option<Entry>> =
            vec![entry(1, endless.clone() as _), entry(2, other.clone() as _)];
        let work = [0, 1].map(|slot| QueueRef { slot, queue: 0 });
        let snapshot = Snapshot::new(ports, &[], vec![work.into()]);
        let shared = Arc::new(Shared::new(1, Table::new(PORT_LIMIT)).unwrap());
        let mut worker = Worker::new(0, shared, Poll::Adaptive).unwrap();
        worker.take_up(None, &snapshot);
        let mut bytes = 0;
        for round in 1..=ROUNDS {
            worker.round(&snapshot);
            let case = format!("round {round}, {chains} of {frame:?}");
            // A burst that is dear leaves a debt, which may be that of several rounds.
            let bursts = endless.bursts.swap(0, Ordering::Relaxed);
            assert!(bursts <= 32, "{case}: {bursts} bursts");
            bytes += endless.bytes.swap(0, Ordering::Relaxed);
            assert!(bytes <= round * 32 * 1024 + 48 * 1024 + 65_000, "{case}");
            assert_eq!(other.bursts.load(Ordering::Relaxed), round, "{case}");
        }
        assert!(frame.is_none() || bytes > 0);
    }
}
