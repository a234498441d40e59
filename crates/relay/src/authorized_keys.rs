//! `AUTHORIZED_KEYS`: which captures a collector admits, and the names that each may use.
//!
//! A line holds a public key and one or more names, separated by blanks or commas. `*` stands for any characters. Empty
//! lines are skipped, and `#` begins a comment:
//!
//! ```text
//! # public key                                  names
//! 0Fa7Q2c1sQ9f3Ywq6m0pQbJ9F2T0XoC0lQ0o3w1r9lU= web1 web2
//! iR8fUqvJr0lWm2sT0C9yA1dJ2v0nq7x6Z5b4M3w2s1E= db-*
//! ```

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zmtp::{KeyError, PublicKey};

/// The longest file that is read, in bytes: ten thousand captures have a tenth of it.
const MAX_FILE: u64 = 16 << 20;

/// The permission bit that lets every user of the host add a key. A group may write the file, for example that of
/// the administrators.
const WRITABLE_BY_OTHERS: u32 = 0o002;

/// The longest name or pattern in bytes.
const MAX_PATTERN: usize = 255;

/// Characters that are wildcards or quotes elsewhere. They are refused, because a line with them would not mean here what
/// its author expects.
const RESERVED: [char; 9] = ['?', '[', ']', '{', '}', '!', '\\', '"', '\''];

/// Why a list of keys is not valid.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizedKeysError {
    /// The file cannot be read.
    #[error("AUTHORIZED_KEYS: cannot read `{path}`: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        why: io::Error,
    },
    /// Others can write the file.
    #[error(
        "AUTHORIZED_KEYS: `{path}` is writable by every user of this host (mode {mode:04o}): check its lines, and run \
         `chmod o-w {path}`"
    )]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A line is not valid.
    #[error("AUTHORIZED_KEYS: {path}:{line}: {why}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
        /// The reason.
        why: LineError,
    },
}

/// Why a line of the file is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The first word is not a key.
    #[error("the first word {0}; `MODE=keygen` on the capture's host prints its public key")]
    Key(#[from] KeyError),
    /// There are no names.
    #[error("no name follows the key (add the SOURCE_NAME of this capture, or `*` for any name)")]
    NoNames,
    /// A pattern has a character that is not part of the syntax.
    #[error(
        "`{pattern}` contains `{character}` (names are written as they are, and `*` is the only wildcard)"
    )]
    Pattern {
        /// The pattern, printable.
        pattern: String,
        /// The character, printable.
        character: String,
    },
    /// A pattern is too long.
    #[error("a name is longer than {MAX_PATTERN} bytes")]
    TooLong,
    /// The key is in two lines.
    #[error("the key is in line {first} already (write all names of a key in one line)")]
    Repeated {
        /// The number of the other line, from 1.
        first: usize,
    },
}

/// The names that the owner of a key may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedNames(Vec<String>);

impl AllowedNames {
    /// Whether `name` is among them.
    #[must_use]
    pub fn allow(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| matches(pattern, name))
    }
}

/// Whether `name` matches `pattern`, in which `*` stands for any characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(prefix) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return name.ends_with(part);
        }
        // The first occurrence leaves the most for the other parts.
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    true
}

/// The admitted keys.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct AuthorizedKeys(HashMap<PublicKey, Arc<AllowedNames>>);

impl AuthorizedKeys {
    /// Parses the content of a file.
    ///
    /// # Errors
    /// The number of the first line that is not valid, from 1, and why it is not.
    pub fn parse(text: &str) -> Result<Self, (usize, LineError)> {
        let mut keys = HashMap::new();
        for (line, text) in text.lines().enumerate().map(|(index, text)| (index + 1, text)) {
            let words = text.split('#').next().unwrap_or_default();
            let mut words = words.split([' ', '\t', ',', '\r']).filter(|word| !word.is_empty());
            let Some(key) = words.next() else { continue };
            let key: PublicKey = key.parse().map_err(|error: KeyError| (line, error.into()))?;
            let names = words.map(pattern).collect::<Result<Vec<_>, _>>().map_err(|error| (line, error))?;
            if names.is_empty() {
                return Err((line, LineError::NoNames));
            }
            if let Some((first, _)) = keys.insert(key, (line, Arc::new(AllowedNames(names)))) {
                return Err((line, LineError::Repeated { first }));
            }
        }
        Ok(Self(keys.into_iter().map(|(key, (_, names))| (key, names)).collect()))
    }

    /// The names that the owner of `key` may use; none if it is not admitted.
    #[must_use]
    pub fn names(&self, key: &PublicKey) -> Option<&Arc<AllowedNames>> {
        self.0.get(key)
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Checks a name or pattern.
fn pattern(word: &str) -> Result<String, LineError> {
    if word.len() > MAX_PATTERN {
        return Err(LineError::TooLong);
    }
    match word.chars().find(|c| RESERVED.contains(c) || c.is_control()) {
        Some(character) => Err(LineError::Pattern {
            pattern: word.escape_default().to_string(),
            character: character.escape_default().to_string(),
        }),
        None => Ok(word.to_owned()),
    }
}

/// The file, and what it held when it was last read.
#[derive(Debug)]
pub struct AuthorizedKeysFile {
    path: PathBuf,
    keys: AuthorizedKeys,
    /// The version that was read; none if there was no file.
    version: Option<Version>,
    /// Another version, that was seen once: it may still be being written.
    seen: Option<Option<Version>>,
}

/// What changes when a file is written or replaced: device, inode, size in bytes, and times of modification and change.
type Version = (u64, u64, u64, (i64, i64), (i64, i64));

fn version(metadata: &fs::Metadata) -> Version {
    (
        metadata.dev(),
        metadata.ino(),
        metadata.size(),
        (metadata.mtime(), metadata.mtime_nsec()),
        (metadata.ctime(), metadata.ctime_nsec()),
    )
}

/// What came of looking at the file again.
#[derive(Debug)]
pub(crate) enum Reload {
    /// The file is as it was.
    Unchanged,
    /// There is a new list.
    Changed,
    /// The file has changed, but cannot be used. The list stays as it was.
    Failed(AuthorizedKeysError),
}

impl AuthorizedKeysFile {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, others can write it, or a line is not valid.
    pub fn open(path: &Path) -> Result<Self, AuthorizedKeysError> {
        let (keys, version) = read(path)?;
        Ok(Self { path: path.to_owned(), keys, version: Some(version), seen: None })
    }

    /// The list in force.
    #[must_use]
    pub fn keys(&self) -> &AuthorizedKeys {
        &self.keys
    }

    /// Whether this process can read the file, perhaps as another user than the one that opened it.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_readable(&self) -> Result<(), AuthorizedKeysError> {
        let readable = File::open(&self.path);
        readable.map(drop).map_err(|why| AuthorizedKeysError::Read { path: self.path.clone(), why })
    }

    /// Reads the file again if it has changed, and no longer changes: if it is as it was at the last call. A file that is
    /// written in place is empty at first, which would end all connections.
    pub(crate) fn reload(&mut self) -> Reload {
        let now = fs::metadata(&self.path).ok().map(|metadata| version(&metadata));
        if now == self.version {
            self.seen = None;
            return Reload::Unchanged;
        }
        if self.seen.replace(now) != Some(now) {
            return Reload::Unchanged;
        }
        // Whatever comes of it, a version is read and reported once.
        self.version = now;
        match read(&self.path) {
            Ok((keys, version)) => {
                self.version = Some(version);
                self.keys = keys;
                Reload::Changed
            }
            Err(error) => Reload::Failed(error),
        }
    }
}

fn read(path: &Path) -> Result<(AuthorizedKeys, Version), AuthorizedKeysError> {
    let unreadable = |why| AuthorizedKeysError::Read { path: path.to_owned(), why };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() && metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(AuthorizedKeysError::Permissions {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    let version = version(&metadata);
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(unreadable(io::Error::other("it is longer than 16 MiB")));
    }
    match AuthorizedKeys::parse(&text) {
        Ok(keys) => Ok((keys, version)),
        Err((line, why)) => Err(AuthorizedKeysError::Line { path: path.to_owned(), line, why }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
    const B: &str = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=";

    fn check_error(text: &str, expected: &str) {
        let (line, error) = AuthorizedKeys::parse(text).unwrap_err();
        assert_eq!(format!("{line}: {error}"), expected);
    }

    #[test]
    fn keys_have_names() {
        let text = format!("# captures\n\n{A} web1,web2  db-*  # two\r\n\t{B} *");
        let keys = AuthorizedKeys::parse(&text).unwrap();
        assert_eq!(keys.len(), 2);
        let allowed = |key: &str, name: &str| keys.names(&key.parse().unwrap()).unwrap().allow(name);
        for name in ["web1", "web2", "db-", "db-7"] {
            assert!(allowed(A, name), "{name}");
        }
        for name in ["web", "web11", "db", "xdb-1", ""] {
            assert!(!allowed(A, name), "{name}");
        }
        assert!(allowed(B, "anything at all"));
        let other: PublicKey = A.replace('h', "i").parse().unwrap();
        assert_eq!(keys.names(&other), None);
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, expected) in [
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("*.example", "x.example", true),
            ("*.example", ".example", true),
            ("*.example", "x.example.org", false),
            ("ab*ba", "aba", false),
            ("**", "", true),
            ("*a*", "bbb", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn invalid_lines_are_named() {
        check_error(
            "\nfoo web",
            "2: the first word is not a valid key (44 characters of base64, the last is `=`); \
             `MODE=keygen` on the capture's host prints its public key",
        );
        check_error(
            A,
            "1: no name follows the key (add the SOURCE_NAME of this capture, or `*` for any name)",
        );
        check_error(
            &format!("{A} web[12]"),
            "1: `web[12]` contains `[` (names are written as they are, and `*` is the only wildcard)",
        );
        check_error(
            &format!("{A} web\x1b"),
            r"1: `web\u{1b}` contains `\u{1b}` (names are written as they are, and `*` is the only wildcard)",
        );
        check_error(
            &format!("{A} x\n{B} y\n{A} z"),
            "3: the key is in line 1 already (write all names of a key in one line)",
        );
        check_error(&format!("{A} {}", "x".repeat(256)), "1: a name is longer than 255 bytes");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let path = std::env::temp_dir().join(format!("pcktr-{}-authorized-keys", std::process::id()));
        let write = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        // A group may write it, and anyone may read it.
        for mode in [0o400, 0o440, 0o644, 0o664] {
            write(&format!("{A} x"), mode);
            AuthorizedKeysFile::open(&path).unwrap();
            fs::remove_file(&path).unwrap();
        }
        write(&format!("{A} x"), 0o646);
        let error = AuthorizedKeysFile::open(&path).unwrap_err().to_string();
        assert_eq!(
            error.replace(path.to_str().unwrap(), "PATH"),
            "AUTHORIZED_KEYS: `PATH` is writable by every user of this host (mode 0646): check its lines, and run \
             `chmod o-w PATH`"
        );

        write(&format!("{A} x"), 0o644);
        let mut file = AuthorizedKeysFile::open(&path).unwrap();
        write(&format!("{B} x"), 0o666);
        let second_look = |file: &mut AuthorizedKeysFile| {
            assert!(matches!(file.reload(), Reload::Unchanged));
            file.reload()
        };
        let failed = second_look(&mut file);
        assert!(
            matches!(failed, Reload::Failed(AuthorizedKeysError::Permissions { mode: 0o666, .. })),
            "{failed:?}"
        );
        assert!(file.keys().names(&A.parse().unwrap()).is_some() && file.keys().len() == 1);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(second_look(&mut file), Reload::Changed));
        assert!(file.keys().names(&B.parse().unwrap()).is_some() && file.keys().len() == 1);
        fs::remove_file(path).unwrap();
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,200}") {
            let _ = AuthorizedKeys::parse(&text);
        }

        #[test]
        fn a_name_without_wildcard_matches_itself_only(name in "[a-c]{0,4}", other in "[a-c]{0,4}") {
            prop_assert_eq!(matches(&name, &other), name == other);
        }

        #[test]
        fn wildcards_match_by_definition(pattern in "[ab*]{0,6}", name in "[ab]{0,8}") {
            // Of the pattern's first character and the rest, by definition.
            fn slow(pattern: &str, name: &str) -> bool {
                match pattern.split_at_checked(1) {
                    None => name.is_empty(),
                    Some(("*", rest)) => (0..=name.len()).any(|n| slow(rest, &name[n..])),
                    Some((c, rest)) => name.strip_prefix(c).is_some_and(|name| slow(rest, name)),
                }
            }
            prop_assert_eq!(matches(&pattern, &name), slow(&pattern, &name));
        }
    }
}
