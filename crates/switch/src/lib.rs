//! The learning switch: classify, deliver, workers, control socket.

pub mod offload;
