//! Kernel verbs: taps.
