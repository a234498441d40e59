//! A file as it was before it was read.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file, and what identified its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WatchedFile {
    pub(super) path: PathBuf,
    state: Option<State>,
}

/// What changes when a file is written to, replaced, or given other permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl WatchedFile {
    /// The file that `path` leads to, as it is now. It may be absent.
    pub(super) fn new(path: PathBuf) -> Self {
        let state = State::of(&path);
        Self { path, state }
    }

    pub(super) fn has_changed(&self) -> bool {
        State::of(&self.path) != self.state
    }
}

impl State {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}
