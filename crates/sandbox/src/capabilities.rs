//! Capabilities: capabilities(7). All calls are about the calling thread.

use rustix::io;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// Empties the bounding set. That needs CAP_SETPCAP; without it, `no_new_privs` has the same effect, because a bounding
/// set only matters to `execve`.
pub(crate) fn clear_bounding_set() {
    for capability in CapabilitySet::all() {
        // A kernel that does not know the capability has none to remove.
        _ = remove_capability_from_bounding_set(capability);
    }
}

/// Empties the effective, the permitted, the inheritable and the ambient set.
///
/// # Errors
/// The kernel, or a filter of the container, does not permit `capset`.
pub(crate) fn drop_all() -> io::Result<()> {
    // Before Linux 4.3 there is no ambient set.
    _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
}
