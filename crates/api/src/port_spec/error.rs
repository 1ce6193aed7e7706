//! What can be wrong with a port specification.

/// Why a port specification was refused: one sentence with the key, the value, what is allowed and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The text is empty.
    #[error(
        "the port specification is empty: write KIND[,key=value]..., where the kind is one of {kinds}"
    )]
    Empty {
        /// The kinds there are.
        kinds: String,
    },
    /// No such kind.
    #[error("unknown port kind {kind:?}: use one of {kinds}")]
    UnknownKind {
        /// What was written.
        kind: String,
        /// The kinds there are.
        kinds: String,
    },
    /// The kind has no such key.
    #[error("a {kind} port has no key {key:?}: use one of {keys}")]
    UnknownKey {
        /// The port's kind.
        kind: &'static str,
        /// What was written.
        key: String,
        /// The keys of the kind.
        keys: String,
    },
    /// A key stands twice.
    #[error("{key}= is given twice in one port: keep one of them")]
    Repeated {
        /// The key.
        key: String,
    },
    /// A key that must be there is not.
    #[error("a {kind} port needs {key}=: write for example --port {example}")]
    Missing {
        /// The port's kind.
        kind: &'static str,
        /// The key.
        key: &'static str,
        /// A whole specification that would do.
        example: &'static str,
    },
    /// A key that takes a value stands alone.
    #[error("{key} needs a value: write {key}= followed by {allowed}")]
    NoValue {
        /// The key.
        key: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A key that takes no value has one.
    #[error(
        "{key}={value:?} is not possible: {key} takes no value, write it alone to switch it on or leave it out"
    )]
    UnwantedValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// The value is not among those allowed.
    #[error("{key}={} is not possible: give {allowed}", value.escape_debug())]
    BadValue {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The socket's path does not fit the kernel's address.
    #[error("path={} has {length} bytes but a unix socket's path holds at most {limit}: choose a shorter one, for example below /run", path.escape_debug())]
    PathTooLong {
        /// The path.
        path: String,
        /// Its length in bytes.
        length: usize,
        /// The most there may be.
        limit: usize,
    },
    /// Access VLAN and trunk exclude each other.
    #[error(
        "vlan={vlan} and trunk={trunk} exclude each other: vlan= makes an access port, trunk= one with tagged frames, keep one of them"
    )]
    VlanAndTrunk {
        /// The access VLAN.
        vlan: u16,
        /// The trunk's VLANs.
        trunk: String,
    },
    /// There is nothing that the burst would be an exception of.
    #[error("burst={burst} has no use without rate=: give both or leave burst= out")]
    BurstWithoutRate {
        /// Bytes.
        burst: u64,
    },
    /// A key that only a listening socket can use.
    #[error("{key}={} has no use with mode=client: the side that listens creates the socket, leave {key}= out or use mode=server", value.escape_debug())]
    ServerOnly {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
}
