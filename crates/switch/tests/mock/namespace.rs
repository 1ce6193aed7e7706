//! A network namespace for one test.

use std::io::Write;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// Runs the test in a network namespace of its own, on a thread that ends with it. Without the right
/// to make one, says so and passes.
pub fn in_namespace(test: impl FnOnce() + Send + 'static) {
    // One at a time: what one test starts holds the other's descriptors until it executes.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let finished = std::thread::spawn(|| {
        // SAFETY: changes only which network namespace this thread uses; no memory is involved.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            let error = std::io::Error::last_os_error();
            // Past the test harness's capture, so that it is seen and can be counted.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: tap test: no network namespace of its own ({error})"
            );
            return;
        }
        test();
    });
    if let Err(panic) = finished.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` with these arguments in the namespace of this thread.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "ip {arguments}"
    );
}
