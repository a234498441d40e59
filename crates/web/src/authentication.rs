//! HTTP basic authentication (RFC 7617) with bcrypt hashes.
//!
//! A check takes several times 10 ms of CPU time. It runs on a thread of its own, one at a time, so that strangers who try
//! passwords cost at most one core and delay nothing else. A password that was right once is recognized from then on by a
//! keyed hash, so a scrape costs one check in the program's lifetime.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::header::HeaderValue;
use parking_lot::Mutex;
use ring::hmac;
use ring::rand::SystemRandom;
use tokio::sync::Semaphore;
use tokio::task;

use crate::config::WebConfig;

/// Checks that may wait for the one that runs, about a second's worth.
const WAITING: usize = 16;

/// Passwords that are recognized. There are more only if passwords are changed often.
const RECOGNIZED: usize = 1024;

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Granted,
    Denied,
    /// Too many passwords are being checked.
    Busy,
}

/// Checks passwords.
pub(crate) struct Authentication {
    /// Of this process alone.
    key: hmac::Key,
    /// The tags of user names, hashes and passwords that belong together.
    recognized: Mutex<HashSet<[u8; 32]>>,
    check: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Authentication {
    /// # Errors
    ///
    /// The system has no random numbers.
    pub(crate) fn new() -> Result<Self, ring::error::Unspecified> {
        Ok(Self {
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            recognized: Mutex::default(),
            check: Arc::new(Semaphore::new(1)),
            waiting: Semaphore::new(WAITING + 1),
        })
    }

    /// Checks the header `Authorization` of a request.
    pub(crate) async fn check(&self, config: &Arc<WebConfig>, header: Option<&HeaderValue>) -> Access {
        if config.users().is_empty() {
            return Access::Granted;
        }
        let Some((user, password)) = header.and_then(credentials) else { return Access::Denied };
        // Of unknown users too: the time for a long password would tell which users exist.
        let tag = self.tag(&user, config.users().hash(&user), &password);
        if self.recognized.lock().contains(&tag) {
            return Access::Granted;
        }
        let Ok(_waiting) = self.waiting.try_acquire() else { return Access::Busy };
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&self.check).acquire_owned().await else { return Access::Busy };
        let config = Arc::clone(config);
        let valid = task::spawn_blocking(move || {
            let valid = config.users().check(&user, &password);
            // Not earlier: if the client disconnects, the check runs on.
            drop(permit);
            valid
        });
        if !valid.await.unwrap_or(false) {
            return Access::Denied;
        }
        let mut recognized = self.recognized.lock();
        if recognized.len() >= RECOGNIZED {
            recognized.clear();
        }
        recognized.insert(tag);
        Access::Granted
    }

    /// A keyed hash that only this process can make. It contains the bcrypt hash, so a changed password is not recognized.
    fn tag(&self, user: &str, hash: &str, password: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [user.as_bytes(), hash.as_bytes(), password] {
            // With its length, so that no two inputs are the same text.
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// The user name and the password in a header: RFC 7617, section 2.
fn credentials(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let mut user = BASE64_STANDARD.decode(token.trim()).ok()?;
    // The user name contains no colon, the password may.
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.truncate(colon);
    Some((String::from_utf8(user).ok()?, password))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::service::tests::block_on;

    fn header(text: &str) -> HeaderValue {
        format!("Basic {}", BASE64_STANDARD.encode(text)).parse().unwrap()
    }

    /// A configuration with one user.
    fn config(user: &str, hash: &str) -> Arc<WebConfig> {
        Arc::new(WebConfig::with_user(user, hash))
    }

    #[test]
    fn credentials_are_parsed() {
        let parsed = |header: &HeaderValue| credentials(header);
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.as_bytes().to_vec()));
        assert_eq!(parsed(&header("a:b")), pair("a", "b"));
        assert_eq!(parsed(&header("a:b:c")), pair("a", "b:c"));
        assert_eq!(parsed(&header(":")), pair("", ""));
        assert_eq!(parsed(&"basic YTpi".parse().unwrap()), pair("a", "b"));
        for bad in ["", "Basic", "Basic ", "Basic YQ==", "Basic !", "Bearer YTpi", "Basic YTpi YTpi"] {
            assert_eq!(parsed(&bad.parse().unwrap()), None, "{bad}");
        }
        assert_eq!(parsed(&header("no colon")), None);
    }

    #[test]
    fn valid_password_is_hashed_once() {
        block_on(async {
            let authentication = Authentication::new().unwrap();
            let config_1 = config("a", &bcrypt::hash("secret", 9).unwrap());
            let check = async |config, text| authentication.check(config, Some(&header(text))).await;
            let start = Instant::now();
            assert_eq!(check(&config_1, "a:secret").await, Access::Granted);
            let once = start.elapsed();
            assert_eq!(authentication.recognized.lock().len(), 1);
            let start = Instant::now();
            for _ in 0..20 {
                assert_eq!(check(&config_1, "a:secret").await, Access::Granted);
            }
            assert!(
                start.elapsed() < once * 5,
                "{:?} for 20 checks, {once:?} for the first",
                start.elapsed()
            );
            for wrong in ["a:Secret", "b:secret", "a:", "as:ecret"] {
                assert_eq!(check(&config_1, wrong).await, Access::Denied, "{wrong}");
            }
            assert_eq!(authentication.recognized.lock().len(), 1);
            // The password has changed.
            let config_2 = config("a", &bcrypt::hash("other", 4).unwrap());
            assert_eq!(check(&config_2, "a:secret").await, Access::Denied);
            assert_eq!(check(&config_2, "a:other").await, Access::Granted);
            assert_eq!(authentication.check(&config_2, None).await, Access::Denied);
        });
    }

    #[test]
    fn many_checks_at_once_are_refused() {
        block_on(async {
            let authentication = Arc::new(Authentication::new().unwrap());
            let config = config("a", &bcrypt::hash("secret", 4).unwrap());
            let tasks: Vec<_> = (0..WAITING + 3)
                .map(|number| {
                    let (authentication, config) = (Arc::clone(&authentication), Arc::clone(&config));
                    tokio::spawn(async move {
                        authentication.check(&config, Some(&header(&format!("a:{number}")))).await
                    })
                })
                .collect();
            let mut busy = 0;
            for task in tasks {
                busy += usize::from(task.await.unwrap() == Access::Busy);
            }
            assert_eq!(busy, 2);
            assert_eq!(authentication.check(&config, Some(&header("a:secret"))).await, Access::Granted);
        });
    }
}
