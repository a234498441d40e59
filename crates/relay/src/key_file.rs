//! `KEY_FILE`: a secret key in a file that only its owner can read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;
use zmtp::{KeyError, SecretKey};

/// Permission bits that let everybody on the host in. A group may have access: systemd and Kubernetes hand out secrets
/// to the group of a service.
const OTHERS: u32 = 0o007;

/// The longest file that may be a key: the key, and blanks around it.
const MAX_FILE: u64 = 256;

/// Why there is no secret key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("KEY_FILE: cannot read `{path}`: {why}{}", remedy(.why))]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: io::Error,
    },
    /// Others can read or write the file.
    #[error(
        "KEY_FILE: `{path}` is accessible to others (mode {mode:04o}): run `chmod 600 {path}`, and replace the key \
         if others may have read it"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds no key.
    #[error("KEY_FILE: {path}:1: the content {why}; `MODE=keygen` makes a key")]
    Key {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: KeyError,
    },
    /// The file cannot be written.
    #[error("KEY_FILE: cannot write `{path}`: {why}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: io::Error,
    },
}

fn remedy(why: &io::Error) -> &'static str {
    if why.kind() == io::ErrorKind::NotFound { " (`MODE=keygen` makes a key)" } else { "" }
}

/// Reads a secret key.
///
/// # Errors
/// The file cannot be read, is accessible to others, or holds no key.
pub fn read_secret_key(path: &Path) -> Result<SecretKey, KeyFileError> {
    let unreadable = |why| KeyFileError::Read { path: path.to_owned(), why };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() && metadata.mode() & OTHERS != 0 {
        return Err(KeyFileError::Permissions { path: path.to_owned(), mode: metadata.mode() & 0o7777 });
    }
    // With room for all of it: a string that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_FILE as usize));
    file.take(MAX_FILE).read_to_string(&mut text).map_err(unreadable)?;
    text.parse().map_err(|why| KeyFileError::Key { path: path.to_owned(), why })
}

/// Writes a new secret key, which only this user can read. An existing file is left alone and read instead.
///
/// # Errors
/// The file cannot be written, or the existing one cannot be used.
pub fn create_secret_key(path: &Path) -> Result<SecretKey, KeyFileError> {
    let mut options = OpenOptions::new();
    let mut file = match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => return read_secret_key(path),
        Err(why) => return Err(KeyFileError::Write { path: path.to_owned(), why }),
    };
    let key = SecretKey::generate();
    let line = Zeroizing::new(format!("{}\n", *key.to_base64()));
    let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
    if let Err(why) = written {
        // Half a key would be in the way of the next attempt.
        let _ = std::fs::remove_file(path);
        return Err(KeyFileError::Write { path: path.to_owned(), why });
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A directory of its own for each test.
    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("pcktr-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_key_is_created_once_and_for_its_owner_only() {
        let directory = directory("created");
        let path = directory.join("key");
        let public = create_secret_key(&path).unwrap().public();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.ends_with("=\n")), (45, true));
        assert_eq!(create_secret_key(&path).unwrap().public(), public);
        assert_eq!(read_secret_key(&path).unwrap().public(), public);
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn unusable_files_are_refused_with_a_remedy() {
        let directory = directory("unusable");
        let path = directory.join("key");
        let check = |expected: &str| {
            let error = read_secret_key(&path).unwrap_err().to_string();
            assert_eq!(error.replace(path.to_str().unwrap(), "PATH"), expected);
        };
        check(
            "KEY_FILE: cannot read `PATH`: No such file or directory (os error 2) (`MODE=keygen` makes a key)",
        );
        create_secret_key(&path).unwrap();
        for mode in [0o644, 0o602, 0o601] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            check(&format!(
                "KEY_FILE: `PATH` is accessible to others (mode {mode:04o}): run `chmod 600 PATH`, and replace \
                 the key if others may have read it"
            ));
        }
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        assert!(read_secret_key(&path).is_ok());
        fs::write(&path, "secret").unwrap();
        check(
            "KEY_FILE: PATH:1: the content is not a valid key (44 characters of base64, the last is `=`); \
             `MODE=keygen` makes a key",
        );
        fs::remove_dir_all(directory).unwrap();
    }
}
