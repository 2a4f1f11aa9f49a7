//! Capabilities, `no_new_privs` and the limits that a role raises before it is confined.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::Error;

/// Locked memory without bound where we may, else up to the hard limit: a ring that registers buffers is charged for them, and a
/// role without CAP_IPC_LOCK is held to this limit. That it is too low is said by whoever needs more.
pub(crate) fn raise_locked_memory() {
    let unlimited = Rlimit { current: None, maximum: None };
    if setrlimit(Resource::Memlock, unlimited).is_err() {
        let hard = getrlimit(Resource::Memlock).maximum;
        // Raising up to the hard limit is always allowed.
        let _ = setrlimit(Resource::Memlock, Rlimit { current: hard, maximum: hard });
    }
}

/// As many open files as the process may have: the usual soft limit is 1,024, and each connection and transfer has one.
pub(crate) fn raise_open_files() {
    let hard = getrlimit(Resource::Nofile).maximum;
    // Raising up to the hard limit is always allowed.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
}

/// Leaves the calling thread without any capability, and without a way to get one by executing something.
pub(crate) fn drop_all() -> Result<(), Error> {
    let failed = |what| move |errno: Errno| Error::System { what, source: errno.into() };
    for capability in CapabilitySet::all().iter() {
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know, or no right to drop it: then no_new_privs has to do.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(errno) => return Err(failed("dropping a capability from the bounding set")(errno)),
        }
    }
    rustix::thread::clear_ambient_capability_set().map_err(failed("clearing ambient capabilities"))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, sets).map_err(failed("dropping capabilities"))?;
    rustix::thread::set_no_new_privs(true).map_err(failed("setting no_new_privs"))
}
