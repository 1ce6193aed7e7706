//! Drivers that lie or are honest, from one guest's transmit ring to another's receive ring.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    ringway_port::vhost_user::fuzz::exercise(input);
});
