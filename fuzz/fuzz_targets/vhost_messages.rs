//! A front-end that sends whatever it likes, with file descriptors of every kind.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    ringway_vhost::user::fuzz::exercise(input);
});
