//! The user that a program started as root runs as, once it has opened what needs root.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{self, Gid, Group, Uid, getegid, geteuid, initgroups, setgroups, setresgid, setresuid};

/// A user, and the group that its processes have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As written in the setting.
    text: String,
    /// The user's name, which tells its supplementary groups; none for an ID without an entry in the user database.
    name: Option<CString>,
    uid: Uid,
    gid: Gid,
}

/// Why a text is not a user to run as. The message continues a sentence that starts with the text.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// There is no such user.
    #[error("names no user of this host (`getent passwd` lists them; a number is a user ID)")]
    UnknownUser,
    /// There is no such group.
    #[error("names no group of this host (`getent group` lists them; a number is a group ID)")]
    UnknownGroup,
    /// A user ID without an entry in the user database has no group.
    #[error("has no group, because no user of this host has this ID (write it like `1000:1000`)")]
    NoGroup,
    /// Only root can change its user.
    #[error("is another user than the one that started the program (start it as root, or unset RUN_AS_USER)")]
    NotRoot,
    /// Only root can change its group.
    #[error(
        "has another group than the program was started with, {0} (start it as root, or leave out the group)"
    )]
    OtherGroup(Gid),
    /// The user database cannot be read.
    #[error("cannot be looked up: {0} (use numbers like `1000:1000`)")]
    Lookup(Errno),
}

/// The user cannot be changed.
#[derive(Debug, thiserror::Error)]
#[error(
    "RUN_AS_USER: cannot change to `{user}`: {why} (this needs CAP_SETUID and CAP_SETGID: grant them, or start the program as that user)"
)]
pub struct ChangeUserError {
    user: User,
    why: Errno,
}

impl User {
    /// Finds a user. `text` is `name`, `name:group`, or the same with numbers.
    ///
    /// # Errors
    /// The user or the group does not exist, or the program does not run as root and the user or group is another one.
    pub fn find(text: &str) -> Result<Self, UserError> {
        Self::find_for(text, geteuid(), getegid())
    }

    /// Finds a user for a program that runs as `current`, in the group `current_group`.
    fn find_for(text: &str, current: Uid, current_group: Gid) -> Result<Self, UserError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let entry = match number(user) {
            Some(uid) => unistd::User::from_uid(Uid::from_raw(uid)),
            None => unistd::User::from_name(user),
        };
        let entry = entry.map_err(UserError::Lookup)?;
        let uid = match (&entry, number(user)) {
            (Some(entry), _) => entry.uid,
            (None, Some(uid)) => Uid::from_raw(uid),
            (None, None) => return Err(UserError::UnknownUser),
        };
        let gid = match (group, &entry) {
            (Some(group), _) => find_group(group)?,
            (None, Some(entry)) => entry.gid,
            (None, None) => return Err(UserError::NoGroup),
        };
        if uid != current && !current.is_root() {
            return Err(UserError::NotRoot);
        }
        if group.is_some() && gid != current_group && !current.is_root() {
            return Err(UserError::OtherGroup(current_group));
        }
        let name = entry.and_then(|entry| CString::new(entry.name).ok());
        Ok(Self { text: text.to_owned(), name, uid, gid })
    }

    /// Makes this process, with all its threads, run as this user, in its groups and in none of those before. Files that
    /// are created from now on belong to this user. There is no way back.
    ///
    /// # Errors
    /// A capability is missing.
    pub fn assume(&self) -> Result<(), ChangeUserError> {
        // An unprivileged user is this user already, and must not change its groups.
        if !geteuid().is_root() {
            return Ok(());
        }
        // The groups first: afterwards they can no longer be changed. The C library makes all threads change.
        self.set_groups()
            .and_then(|()| setresgid(self.gid, self.gid, self.gid))
            .and_then(|()| setresuid(self.uid, self.uid, self.uid))
            .map_err(|why| ChangeUserError { user: self.clone(), why })
    }

    fn set_groups(&self) -> nix::Result<()> {
        match &self.name {
            Some(name) => initgroups(name, self.gid),
            None => setgroups(&[self.gid]),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A user or group ID. The largest number means "no change" to the kernel: setresuid(2).
fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

fn find_group(text: &str) -> Result<Gid, UserError> {
    if let Some(gid) = number(text) {
        return Ok(Gid::from_raw(gid));
    }
    let group = Group::from_name(text).map_err(UserError::Lookup)?;
    group.map(|group| group.gid).ok_or(UserError::UnknownGroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Uid = Uid::from_raw(0);
    const GROUP: Gid = Gid::from_raw(4_000_000_001);

    /// `expected`: user and group IDs, or the error's first words.
    fn check(text: &str, current: Uid, expected: Result<(u32, u32), &str>) {
        let got = User::find_for(text, current, GROUP).map(|user| (user.uid.as_raw(), user.gid.as_raw()));
        match (got, expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
            (Err(got), Err(expected)) => assert!(got.to_string().starts_with(expected), "{text}: {got}"),
            (got, expected) => panic!("{text}: {got:?}, not {expected:?}"),
        }
    }

    #[test]
    fn users_and_groups_are_names_or_numbers() {
        check("root", ROOT, Ok((0, 0)));
        check("0", ROOT, Ok((0, 0)));
        check("root:7", ROOT, Ok((0, 7)));
        check("4000000000:4000000001", ROOT, Ok((4_000_000_000, 4_000_000_001)));
        check("4000000000:root", ROOT, Ok((4_000_000_000, 0)));
    }

    #[test]
    fn unknown_users_and_groups_are_refused() {
        check("no-such-user", ROOT, Err("names no user"));
        check("", ROOT, Err("names no user"));
        check("-1", ROOT, Err("names no user"));
        check("+1:1", ROOT, Err("names no user"));
        // The ID that means "no change" would leave the program as root.
        check("4294967295:0", ROOT, Err("names no user"));
        check("root:4294967295", ROOT, Err("names no group"));
        check("root:no-such-group", ROOT, Err("names no group"));
        check("root:", ROOT, Err("names no group"));
        check("4000000000", ROOT, Err("has no group"));
    }

    #[test]
    fn only_root_can_choose_another_user() {
        let other = Uid::from_raw(4_000_000_000);
        check("root", other, Err("is another user"));
        check("4000000000:4000000001", other, Ok((4_000_000_000, 4_000_000_001)));
    }

    #[test]
    fn only_root_can_choose_another_group() {
        let other = Uid::from_raw(4_000_000_000);
        check("4000000000:1", other, Err("has another group than the program was started with, 4000000001"));
        check("4000000000:root", other, Err("has another group"));
    }
}
