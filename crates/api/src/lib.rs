//! Types shared by control and data side: port specifications, control messages, statistics.
