//! Frames with lies in their headers, through the switch to receivers of every kind.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use ringway_switch::fuzz::Switch;

thread_local! {
    static SWITCH: RefCell<Switch> = RefCell::default();
}

fuzz_target!(|input: &[u8]| {
    SWITCH.with_borrow_mut(|switch| switch.exercise(input));
});
