//! Harness shared by the whole-program tests.
