//! What threads of the switch share an [`exchange`](super::exchange) with. A model has others in their place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
