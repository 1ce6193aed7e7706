//! Ports of the switch: one folder per kind.
