//! Addresses of Unix domain sockets.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use socket2::SockAddr;

/// Whether a path names a socket in Linux' abstract namespace, which has no file.
pub(crate) fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"@")
}

/// The address of a path. unix(7): a name in the abstract namespace begins with NUL; it is written with `@`.
pub(crate) fn address(path: &Path) -> io::Result<SockAddr> {
    match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat())),
        _ => SockAddr::unix(path),
    }
}
