//! The users of basic authentication and their bcrypt hashes.

use std::collections::HashMap;
use std::fmt;

use bcrypt::HashParts;

use super::document::Node;
use super::error::{ConfigFault, Fault};

/// The lowest cost that bcrypt defines.
const MIN_COST: u32 = 4;

/// The highest cost accepted. A check takes about 4 s; Prometheus' default scrape timeout is 10 s.
const MAX_COST: u32 = 16;

/// As long as a hash, and of no password.
const NO_HASH: &str = "$2y$00$.....................................................";

/// The users, by name.
#[derive(Default)]
pub(crate) struct Users {
    hashes: HashMap<String, Hash>,
    /// The highest cost of all hashes.
    max_cost: u32,
}

struct Hash {
    text: String,
    cost: u32,
}

impl Users {
    pub(super) fn parse(node: Node) -> Result<Self, Fault> {
        let mut users = Self::default();
        for (key, node) in node.entries("basic_auth_users")? {
            let user = key.name;
            // RFC 7617, section 2: the user name ends at the first colon and contains no control characters.
            if user.contains(|c: char| c == ':' || c.is_control()) {
                return Err(ConfigFault::UserName(user.escape_default().to_string()).at(key.line));
            }
            let line = node.line;
            let text = node.text(&user)?;
            let Ok(parts) = text.parse::<HashParts>() else {
                return Err(ConfigFault::PasswordHash(user).at(line));
            };
            let cost = parts.get_cost();
            if !(MIN_COST..=MAX_COST).contains(&cost) {
                return Err(ConfigFault::Cost { user, cost, max: MAX_COST }.at(line));
            }
            users.max_cost = users.max_cost.max(cost);
            users.hashes.insert(user, Hash { text, cost });
        }
        Ok(users)
    }

    /// Whether no password is needed.
    pub(crate) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The hash of a user's password; that of no password for unknown users, so that what is done with it takes the same
    /// time.
    pub(crate) fn hash(&self, user: &str) -> &str {
        self.hashes.get(user).map_or(NO_HASH, |hash| hash.text.as_str())
    }

    /// Whether `password` is that of `user`. It takes as long for unknown users and for hashes of a lower cost as for the
    /// hash of the highest cost, so that the time does not tell which users exist: several times 10 ms.
    pub(crate) fn check(&self, user: &str, password: &[u8]) -> bool {
        let hash = self.hashes.get(user);
        let valid = hash.is_some_and(|hash| bcrypt::verify(password, &hash.text).unwrap_or(false));
        // A cost of n is 2^n rounds, and 2^n + 2^n + 2^(n+1) + … + 2^(max-1) = 2^max.
        match hash {
            Some(hash) => (hash.cost..self.max_cost).for_each(|cost| spend(cost, password)),
            None => spend(self.max_cost, password),
        }
        valid
    }
}

/// Takes as long as a check of a hash of this cost.
fn spend(cost: u32, password: &[u8]) {
    // An invalid cost would end at once; `parse` accepts none.
    _ = std::hint::black_box(bcrypt::hash_with_salt(password, cost, [0; 16]));
}

/// Without the hashes: it may be logged.
impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.hashes.keys()).finish()
    }
}
