//! The kernel as a switch that does every offload in software: what is written to one tap comes out
//! of another, bridged, in the form of a receiver that takes nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use ringway_host::tap;
use ringway_wire::VnetHeader;
use rustix::io::Errno;

use super::frames::{frame, mac};
use super::namespace::ip;
use super::{PATIENCE, sleep};

/// Two bridged taps. To be made in a namespace of its own.
pub struct Kernel {
    given: OwnedFd,
    taken: OwnedFd,
    buffer: RefCell<Vec<u8>>,
    marks: Cell<u64>,
}

/// Longest frame that a tap gives, with its header.
const ROOM: usize = 70_000;

impl Kernel {
    pub fn new() -> Self {
        // Firewalls of bridges judge packets that nobody here receives.
        for family in ["iptables", "ip6tables"] {
            let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{family}"), "0");
        }
        ip("link add bridge0 type bridge mcast_snooping 0");
        ip("link set bridge0 addrgenmode none");
        let [given, taken] = ["given0", "taken0"].map(|name| {
            tap::create_persistent(name, false, None).unwrap();
            let queue = tap::open(name, 1).unwrap().queues.remove(0);
            // No address, so no word of its own; as many frames as one can be cut into.
            ip(&format!(
                "link set {name} addrgenmode none mtu 65521 txqueuelen 4000"
            ));
            ip(&format!("link set {name} master bridge0 up"));
            queue
        });
        ip("link set bridge0 up");
        Self {
            given,
            taken,
            buffer: vec![0; ROOM].into(),
            marks: Cell::new(0),
        }
    }

    /// What becomes of a frame: the frames that a receiver without offloads gets, none if the kernel
    /// has no use for it.
    pub fn pass(&self, header: VnetHeader, frame: &[u8]) -> Vec<Vec<u8>> {
        match self.write(header, frame) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Vec::new(),
            Err(error) => panic!("{error}"),
        }
        let mark = mark(self.marks.replace(self.marks.get() + 1));
        self.write(VnetHeader::default(), &mark).unwrap();
        let mut passed = Vec::new();
        loop {
            let next = self.read();
            if next == mark {
                return passed;
            }
            passed.push(next);
        }
    }

    fn write(&self, header: VnetHeader, frame: &[u8]) -> Result<(), Errno> {
        let bytes = [&header.to_bytes()[..], frame].concat();
        assert_eq!(rustix::io::write(&self.given, &bytes)?, bytes.len());
        Ok(())
    }

    fn read(&self) -> Vec<u8> {
        let mut buffer = self.buffer.borrow_mut();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match rustix::io::read(&self.taken, &mut *buffer) {
                Ok(len) => {
                    let header = VnetHeader::parse(&buffer).unwrap();
                    assert!(!header.needs_csum() && !header.is_gso(), "{header:?}");
                    return buffer[12..len].to_vec();
                }
                Err(Errno::AGAIN) => {
                    assert!(sleep(&[self.taken.as_fd()], deadline), "no frame came");
                }
                Err(error) => panic!("{}", io::Error::from(error)),
            }
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // The devices go with the namespace of the thread, or here if that lives on.
        for name in ["given0", "taken0"] {
            let _ = tap::delete(name);
        }
    }
}

/// A frame of a protocol that nobody speaks.
fn mark(number: u64) -> Vec<u8> {
    frame(mac(1), mac(2), 64, number)
}
