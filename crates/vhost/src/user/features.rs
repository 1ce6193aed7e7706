//! Feature bits of virtio-net devices and of the vhost-user protocol, by number, and their names for log lines.

use std::fmt;

/// The device handles packets with partial checksum.
pub const VIRTIO_NET_F_CSUM: u32 = 0;
/// The driver handles packets with partial checksum.
pub const VIRTIO_NET_F_GUEST_CSUM: u32 = 1;
/// The driver switches its receive offloads at run time.
pub const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: u32 = 2;
/// The device advises an MTU.
pub const VIRTIO_NET_F_MTU: u32 = 3;
/// The device has a MAC address of its own.
pub const VIRTIO_NET_F_MAC: u32 = 5;
/// Legacy: the device handles packets with any GSO type.
pub const VIRTIO_NET_F_GSO: u32 = 6;
/// The driver receives TSOv4.
pub const VIRTIO_NET_F_GUEST_TSO4: u32 = 7;
/// The driver receives TSOv6.
pub const VIRTIO_NET_F_GUEST_TSO6: u32 = 8;
/// The driver receives TSO with ECN.
pub const VIRTIO_NET_F_GUEST_ECN: u32 = 9;
/// The driver receives UFO.
pub const VIRTIO_NET_F_GUEST_UFO: u32 = 10;
/// The device receives TSOv4.
pub const VIRTIO_NET_F_HOST_TSO4: u32 = 11;
/// The device receives TSOv6.
pub const VIRTIO_NET_F_HOST_TSO6: u32 = 12;
/// The device receives TSO with ECN.
pub const VIRTIO_NET_F_HOST_ECN: u32 = 13;
/// The device receives UFO.
pub const VIRTIO_NET_F_HOST_UFO: u32 = 14;
/// The driver merges receive buffers.
pub const VIRTIO_NET_F_MRG_RXBUF: u32 = 15;
/// The device reports its link state.
pub const VIRTIO_NET_F_STATUS: u32 = 16;
/// There is a control queue.
pub const VIRTIO_NET_F_CTRL_VQ: u32 = 17;
/// The control queue sets receive modes.
pub const VIRTIO_NET_F_CTRL_RX: u32 = 18;
/// The control queue filters VLANs.
pub const VIRTIO_NET_F_CTRL_VLAN: u32 = 19;
/// The driver sends gratuitous packets when asked.
pub const VIRTIO_NET_F_GUEST_ANNOUNCE: u32 = 21;
/// The device has several queue pairs.
pub const VIRTIO_NET_F_MQ: u32 = 22;
/// The control queue sets the MAC address.
pub const VIRTIO_NET_F_CTRL_MAC_ADDR: u32 = 23;
/// The driver receives USOv4.
pub const VIRTIO_NET_F_GUEST_USO4: u32 = 54;
/// The driver receives USOv6.
pub const VIRTIO_NET_F_GUEST_USO6: u32 = 55;
/// The device receives USO.
pub const VIRTIO_NET_F_HOST_USO: u32 = 56;
/// The device reports a hash per packet.
pub const VIRTIO_NET_F_HASH_REPORT: u32 = 57;
/// The device spreads packets over queues by hash.
pub const VIRTIO_NET_F_RSS: u32 = 60;

/// Legacy: interrupt when the available ring runs empty.
pub const VIRTIO_F_NOTIFY_ON_EMPTY: u32 = 24;
/// vhost: the back-end marks the pages it writes (reserved bit of virtio, used between front-end and back-end only).
pub const VHOST_F_LOG_ALL: u32 = 26;
/// The device accepts any layout of descriptors.
pub const VIRTIO_F_ANY_LAYOUT: u32 = 27;
/// Descriptors may point to tables of descriptors.
pub const VIRTIO_RING_F_INDIRECT_DESC: u32 = 28;
/// Notifications are suppressed by index (`used_event` and `avail_event`).
pub const VIRTIO_RING_F_EVENT_IDX: u32 = 29;
/// vhost-user: the back-end has protocol features (reserved bit of virtio, used between front-end and back-end only).
pub const VHOST_USER_F_PROTOCOL_FEATURES: u32 = 30;
/// virtio 1.0 or later.
pub const VIRTIO_F_VERSION_1: u32 = 32;
/// Addresses in descriptors pass an IOMMU.
pub const VIRTIO_F_ACCESS_PLATFORM: u32 = 33;
/// Packed virtqueues.
pub const VIRTIO_F_RING_PACKED: u32 = 34;
/// Buffers are used in the order in which they were made available.
pub const VIRTIO_F_IN_ORDER: u32 = 35;
/// Memory accesses need barriers as for real hardware.
pub const VIRTIO_F_ORDER_PLATFORM: u32 = 36;
/// Kicks carry the available index.
pub const VIRTIO_F_NOTIFICATION_DATA: u32 = 38;
/// Single queues can be reset.
pub const VIRTIO_F_RING_RESET: u32 = 40;

/// Protocol bit: several queue pairs, GET_QUEUE_NUM.
pub const VHOST_USER_PROTOCOL_F_MQ: u32 = 0;
/// Protocol bit: the dirty log is a shared file.
pub const VHOST_USER_PROTOCOL_F_LOG_SHMFD: u32 = 1;
/// Protocol bit: SEND_RARP.
pub const VHOST_USER_PROTOCOL_F_RARP: u32 = 2;
/// Protocol bit: any message can ask for an answer.
pub const VHOST_USER_PROTOCOL_F_REPLY_ACK: u32 = 3;
/// Protocol bit: NET_SET_MTU.
pub const VHOST_USER_PROTOCOL_F_NET_MTU: u32 = 4;
/// Protocol bit: a second socket for requests of the back-end.
pub const VHOST_USER_PROTOCOL_F_BACKEND_REQ: u32 = 5;
/// Protocol bit: SET_VRING_ENDIAN.
pub const VHOST_USER_PROTOCOL_F_CROSS_ENDIAN: u32 = 6;
/// Protocol bit: crypto sessions.
pub const VHOST_USER_PROTOCOL_F_CRYPTO_SESSION: u32 = 7;
/// Protocol bit: postcopy migration.
pub const VHOST_USER_PROTOCOL_F_PAGEFAULT: u32 = 8;
/// Protocol bit: GET_CONFIG and SET_CONFIG.
pub const VHOST_USER_PROTOCOL_F_CONFIG: u32 = 9;
/// Protocol bit: file descriptors on the back-end's request socket.
pub const VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD: u32 = 10;
/// Protocol bit: doorbells mapped into the guest.
pub const VHOST_USER_PROTOCOL_F_HOST_NOTIFIER: u32 = 11;
/// Protocol bit: descriptors in flight are kept in a shared file.
pub const VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD: u32 = 12;
/// Protocol bit: RESET_DEVICE.
pub const VHOST_USER_PROTOCOL_F_RESET_DEVICE: u32 = 13;
/// Protocol bit: kicks and calls as messages.
pub const VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS: u32 = 14;
/// Protocol bit: memory regions are added and removed one at a time.
pub const VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS: u32 = 15;
/// Protocol bit: GET_STATUS and SET_STATUS.
pub const VHOST_USER_PROTOCOL_F_STATUS: u32 = 16;
/// Protocol bit: memory shared through Xen grants.
pub const VHOST_USER_PROTOCOL_F_XEN_MMAP: u32 = 17;
/// Protocol bit: shared objects.
pub const VHOST_USER_PROTOCOL_F_SHARED_OBJECT: u32 = 18;
/// Protocol bit: the back-end's state travels with a migration.
pub const VHOST_USER_PROTOCOL_F_DEVICE_STATE: u32 = 19;

/// The set of the given bit numbers.
///
/// # Panics
///
/// When a bit is 64 or more; in a constant that is a compile error.
#[must_use]
pub const fn mask(bits: &[u32]) -> u64 {
    let mut set = 0;
    let mut rest = bits;
    while let [bit, tail @ ..] = rest {
        assert!(*bit < 64);
        set |= 1 << *bit;
        rest = tail;
    }
    set
}

/// Whether `bit` is in `features`; a bit of 64 or more is in none.
#[must_use]
pub const fn has(features: u64, bit: u32) -> bool {
    bit < 64 && features & (1 << bit) != 0
}

/// Names the bits of a virtio-net feature set: `CSUM MRG_RXBUF VERSION_1`. An unknown bit shows as its number, an empty set as `none`.
#[must_use]
pub fn names(features: u64) -> impl fmt::Display {
    Names {
        set: features,
        name: virtio_name,
    }
}

/// Names the bits of a vhost-user protocol feature set, in the way of [`names`].
#[must_use]
pub fn protocol_names(features: u64) -> impl fmt::Display {
    Names {
        set: features,
        name: protocol_name,
    }
}

struct Names {
    set: u64,
    name: fn(u32) -> Option<&'static str>,
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.set == 0 {
            return f.write_str("none");
        }
        let mut separator = "";
        for bit in (0..64).filter(|&bit| has(self.set, bit)) {
            match (self.name)(bit) {
                Some(name) => write!(f, "{separator}{name}")?,
                None => write!(f, "{separator}{bit}")?,
            }
            separator = " ";
        }
        Ok(())
    }
}

fn virtio_name(bit: u32) -> Option<&'static str> {
    Some(match bit {
        VIRTIO_NET_F_CSUM => "CSUM",
        VIRTIO_NET_F_GUEST_CSUM => "GUEST_CSUM",
        VIRTIO_NET_F_CTRL_GUEST_OFFLOADS => "CTRL_GUEST_OFFLOADS",
        VIRTIO_NET_F_MTU => "MTU",
        VIRTIO_NET_F_MAC => "MAC",
        VIRTIO_NET_F_GSO => "GSO",
        VIRTIO_NET_F_GUEST_TSO4 => "GUEST_TSO4",
        VIRTIO_NET_F_GUEST_TSO6 => "GUEST_TSO6",
        VIRTIO_NET_F_GUEST_ECN => "GUEST_ECN",
        VIRTIO_NET_F_GUEST_UFO => "GUEST_UFO",
        VIRTIO_NET_F_HOST_TSO4 => "HOST_TSO4",
        VIRTIO_NET_F_HOST_TSO6 => "HOST_TSO6",
        VIRTIO_NET_F_HOST_ECN => "HOST_ECN",
        VIRTIO_NET_F_HOST_UFO => "HOST_UFO",
        VIRTIO_NET_F_MRG_RXBUF => "MRG_RXBUF",
        VIRTIO_NET_F_STATUS => "STATUS",
        VIRTIO_NET_F_CTRL_VQ => "CTRL_VQ",
        VIRTIO_NET_F_CTRL_RX => "CTRL_RX",
        VIRTIO_NET_F_CTRL_VLAN => "CTRL_VLAN",
        VIRTIO_NET_F_GUEST_ANNOUNCE => "GUEST_ANNOUNCE",
        VIRTIO_NET_F_MQ => "MQ",
        VIRTIO_NET_F_CTRL_MAC_ADDR => "CTRL_MAC_ADDR",
        VIRTIO_NET_F_GUEST_USO4 => "GUEST_USO4",
        VIRTIO_NET_F_GUEST_USO6 => "GUEST_USO6",
        VIRTIO_NET_F_HOST_USO => "HOST_USO",
        VIRTIO_NET_F_HASH_REPORT => "HASH_REPORT",
        VIRTIO_NET_F_RSS => "RSS",
        VIRTIO_F_NOTIFY_ON_EMPTY => "NOTIFY_ON_EMPTY",
        VHOST_F_LOG_ALL => "LOG_ALL",
        VIRTIO_F_ANY_LAYOUT => "ANY_LAYOUT",
        VIRTIO_RING_F_INDIRECT_DESC => "INDIRECT_DESC",
        VIRTIO_RING_F_EVENT_IDX => "EVENT_IDX",
        VHOST_USER_F_PROTOCOL_FEATURES => "PROTOCOL_FEATURES",
        VIRTIO_F_VERSION_1 => "VERSION_1",
        VIRTIO_F_ACCESS_PLATFORM => "ACCESS_PLATFORM",
        VIRTIO_F_RING_PACKED => "RING_PACKED",
        VIRTIO_F_IN_ORDER => "IN_ORDER",
        VIRTIO_F_ORDER_PLATFORM => "ORDER_PLATFORM",
        VIRTIO_F_NOTIFICATION_DATA => "NOTIFICATION_DATA",
        VIRTIO_F_RING_RESET => "RING_RESET",
        _ => return None,
    })
}

fn protocol_name(bit: u32) -> Option<&'static str> {
    Some(match bit {
        VHOST_USER_PROTOCOL_F_MQ => "MQ",
        VHOST_USER_PROTOCOL_F_LOG_SHMFD => "LOG_SHMFD",
        VHOST_USER_PROTOCOL_F_RARP => "RARP",
        VHOST_USER_PROTOCOL_F_REPLY_ACK => "REPLY_ACK",
        VHOST_USER_PROTOCOL_F_NET_MTU => "NET_MTU",
        VHOST_USER_PROTOCOL_F_BACKEND_REQ => "BACKEND_REQ",
        VHOST_USER_PROTOCOL_F_CROSS_ENDIAN => "CROSS_ENDIAN",
        VHOST_USER_PROTOCOL_F_CRYPTO_SESSION => "CRYPTO_SESSION",
        VHOST_USER_PROTOCOL_F_PAGEFAULT => "PAGEFAULT",
        VHOST_USER_PROTOCOL_F_CONFIG => "CONFIG",
        VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD => "BACKEND_SEND_FD",
        VHOST_USER_PROTOCOL_F_HOST_NOTIFIER => "HOST_NOTIFIER",
        VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD => "INFLIGHT_SHMFD",
        VHOST_USER_PROTOCOL_F_RESET_DEVICE => "RESET_DEVICE",
        VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS => "INBAND_NOTIFICATIONS",
        VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS => "CONFIGURE_MEM_SLOTS",
        VHOST_USER_PROTOCOL_F_STATUS => "STATUS",
        VHOST_USER_PROTOCOL_F_XEN_MMAP => "XEN_MMAP",
        VHOST_USER_PROTOCOL_F_SHARED_OBJECT => "SHARED_OBJECT",
        VHOST_USER_PROTOCOL_F_DEVICE_STATE => "DEVICE_STATE",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lists_known_bits_by_name_and_unknown_ones_by_number() {
        assert_eq!(
            names(0x5_5040_8000).to_string(),
            "MRG_RXBUF MQ INDIRECT_DESC PROTOCOL_FEATURES VERSION_1 RING_PACKED"
        );
        assert_eq!(names(1 << 63).to_string(), "63");
        assert_eq!(names(0).to_string(), "none");
        assert_eq!(protocol_names(0x1_0009).to_string(), "MQ REPLY_ACK STATUS");
    }

    #[test]
    fn mask_and_has_agree() {
        const SET: u64 = mask(&[VIRTIO_F_VERSION_1, VIRTIO_NET_F_CSUM]);
        assert_eq!(SET, 0x1_0000_0001);
        assert!(has(SET, VIRTIO_F_VERSION_1));
        assert!(!has(SET, VIRTIO_NET_F_MQ));
        assert!(!has(u64::MAX, 64));
    }
}
