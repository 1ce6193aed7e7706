//! The learning switch: classify, deliver, workers, control socket.
