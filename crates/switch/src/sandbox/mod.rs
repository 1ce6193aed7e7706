//! What a switch gives up once its first ports stand, so that whoever takes it over has nothing.
//!
//! Three layers, each of which holds when another has a hole:
//!
//! 1. no capabilities and no new privileges,
//! 2. Landlock (`files`): no files but those of the switch's own that it has to remove, no TCP,
//!    nobody outside to signal,
//! 3. seccomp (`calls`): the system calls that the thread makes, and no others.
//!
//! The first two are properties of a thread that the threads it starts inherit, and so is a filter.
//! So the order is: everything is opened, the only thread there is [enters](Confinement::enter), it
//! starts the others, each of which ends by [narrowing](Confinement::narrow) what it may call, and
//! does so itself last. Decision 0019 says why calls end as they do.

mod calls;
mod files;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::BpfProgram;

/// Whether a switch gives up its rights once its first ports stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sandbox {
    /// It keeps those of whoever started it; what the process may do else is not touched.
    #[default]
    Off,
    /// The calling thread gives them up, and with it every thread that it starts later.
    On,
}

/// What is left of the file system.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Files in these directories may be removed.
    pub removing: Vec<PathBuf>,
    /// Unix sockets in these directories may be connected to.
    pub connecting: Vec<PathBuf>,
}

/// Who calls the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The thread that accepts, talks to front-ends and starts threads.
    Control,
    /// A thread that carries or writes frames, or waits for signals.
    Carrier,
}

/// Why rights could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel has no filter for system calls, or none was made for this processor.
    #[error(
        "the sandbox cannot be put up, {what}: {error}; use a kernel with seccomp filters, or --sandbox off"
    )]
    Refused {
        /// What failed.
        what: &'static str,
        /// What the system said.
        error: String,
    },
}

impl SandboxError {
    fn refused(what: &'static str) -> impl Fn(String) -> Self {
        move |error| Self::Refused { what, error }
    }
}

/// The rights that are left, to be narrowed by every thread.
#[derive(Clone, Default)]
pub struct Confinement(Option<Arc<Filters>>);

struct Filters {
    control: BpfProgram,
    carrier: BpfProgram,
    hostile: BpfProgram,
}

impl Confinement {
    /// None at all: nothing is given up.
    pub fn none() -> Self {
        Self(None)
    }

    /// Whether there is one.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Gives up the calling thread's capabilities, and its files but for `reach`. Threads that it
    /// starts from here on have what it has.
    pub fn enter(reach: &Reach) -> Result<Self, SandboxError> {
        let filter = SandboxError::refused("making a filter of system calls");
        let filters = Filters {
            control: calls::control(!reach.connecting.is_empty()).map_err(&filter)?,
            carrier: calls::carrier().map_err(&filter)?,
            hostile: calls::hostile().map_err(&filter)?,
        };
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| SandboxError::refused("no new privileges")(error.to_string()))?;
        drop_capabilities()
            .map_err(|error| SandboxError::refused("no capabilities")(error.to_string()))?;
        let missing =
            files::restrict(reach).map_err(SandboxError::refused("no files (Landlock)"))?;
        if let Some(missing) = missing {
            tracing::warn!("sandbox: {missing}");
        }
        Ok(Self(Some(Arc::new(filters))))
    }

    /// From here on the calling thread makes the system calls of its role and no others.
    pub fn narrow(&self, role: Role) -> Result<(), SandboxError> {
        let Some(filters) = &self.0 else {
            return Ok(());
        };
        let allowed = match role {
            Role::Control => &filters.control,
            Role::Carrier => &filters.carrier,
        };
        // The strictest answer of all filters counts. A second one must not stand in the way of the
        // first, so the list of what is allowed comes last.
        for program in [&filters.hostile, allowed] {
            seccompiler::apply_filter(program).map_err(|error| {
                SandboxError::refused("filtering system calls")(error.to_string())
            })?;
        }
        Ok(())
    }
}

/// All sets. The bounding set needs a capability itself; who has none cannot get any of it either,
/// with no new privileges.
fn drop_capabilities() -> rustix::io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last one that the kernel knows, or not for us.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => break,
            Err(error) => return Err(error),
        }
    }
    rustix::thread::clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    rustix::thread::set_capabilities(None, sets)
}

/// The directory that `path` is in, or would be.
pub(crate) fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
