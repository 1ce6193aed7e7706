//! Virtqueues, device side and driver side.
