//! Specifications of ports as people type them: what is accepted is printed, and read again, as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringway_api::port_spec::{InterfaceName, Mac, PortSpec, Rate, VlanSet};

fuzz_target!(|text: &str| {
    match text.parse::<PortSpec>() {
        Ok(spec) => {
            let printed = spec.to_string();
            assert_eq!(printed.parse::<PortSpec>().as_ref(), Ok(&spec), "{printed}");
            assert!(!spec.default_name().is_empty());
            assert!((1..=128).contains(&spec.kind.queues()));
        }
        // One sentence, whatever was typed.
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    same::<Mac>(text);
    same::<Rate>(text);
    same::<VlanSet>(text);
    same::<InterfaceName>(text);
});

/// A value alone, as the control protocol takes them.
fn same<T>(text: &str)
where
    T: std::str::FromStr<Err: std::fmt::Debug> + ToString + PartialEq + std::fmt::Debug,
{
    if let Ok(value) = text.parse::<T>() {
        let printed = value.to_string();
        assert_eq!(printed.parse::<T>().unwrap(), value, "{printed}");
    }
}
