//! When to connect again, and what to say about it.

use std::io;
use std::time::{Duration, Instant};

use zmtp::{Error, Mechanism, PublicKey};

use super::connection::ConnectionError;
use crate::refusal::{UNAUTHORIZED_NAME, UNKNOWN_KEY};

/// Time between attempts to reach a collector that is not there. Always the same: captures that find a new collector
/// together are merged in order from the start.
const UNREACHABLE: Duration = Duration::from_millis(50);

/// The longest time between attempts to reach a collector that ends each connection before its handshake, as one does
/// that has too many. The time doubles from [`UNREACHABLE`].
const MAX_CLOSED: Duration = Duration::from_secs(2);

/// Time until the next attempt after the collector refused the connection, or ended it at once. It doubles each time.
const REFUSED: Duration = Duration::from_secs(1);

/// The longest time between attempts.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// A connection that lasted this long was not refused.
const ACCEPTED: Duration = Duration::from_secs(1);

/// The time of the next attempt, and what was reported since the last connection.
#[derive(Debug)]
pub(super) struct Retry {
    /// None: at once.
    at: Option<Instant>,
    refused: Duration,
    closed: Duration,
    reported: Option<String>,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { at: None, refused: REFUSED, closed: UNREACHABLE, reported: None }
    }

    /// When the next attempt is due; none for at once.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }

    /// Makes the next attempt due at once.
    pub(super) fn reset(&mut self) {
        *self = Self::new();
    }

    /// Plans the next attempt after a connection that could be used for `lasted`. Returns what to log, unless it was
    /// logged already.
    pub(super) fn failed(
        &mut self,
        error: &ConnectionError,
        own_key: Option<&PublicKey>,
        lasted: Duration,
        now: Instant,
    ) -> Option<String> {
        if lasted >= ACCEPTED {
            self.reset();
        }
        let refusal = explain(error, own_key);
        let delay = if refusal.is_some() || (!lasted.is_zero() && lasted < ACCEPTED) {
            let delay = self.refused;
            self.refused = (delay * 2).min(MAX_DELAY);
            delay
        } else if matches!(error, ConnectionError::Closed { .. }) && lasted.is_zero() {
            let delay = self.closed;
            self.closed = (delay * 2).min(MAX_CLOSED);
            delay
        } else {
            UNREACHABLE
        };
        self.at = Some(now + delay);
        let refusal = refusal.filter(|refusal| self.reported.as_ref() != Some(refusal))?;
        self.reported = Some(refusal.clone());
        Some(refusal)
    }
}

/// What a failure means for the user; none if the collector is just not there.
fn explain(error: &ConnectionError, own_key: Option<&PublicKey>) -> Option<String> {
    let own = || own_key.map_or_else(String::new, ToString::to_string);
    Some(match error {
        ConnectionError::Network(error) => return explain_network(error),
        ConnectionError::Closed { during_handshake: true } if own_key.is_some() => {
            "the collector ended the handshake: COLLECTOR_KEY is probably not its public key (there, MODE=keygen \
             prints it)"
                .to_owned()
        }
        ConnectionError::Closed { .. } => return None,
        ConnectionError::Protocol(error) => match error {
            Error::Mechanism { ours: Mechanism::Null, .. } => {
                "the collector requires keys: set KEY_FILE and COLLECTOR_KEY".to_owned()
            }
            Error::Mechanism { .. } => {
                "the collector uses no keys, and nothing is sent without: set KEY_FILE and AUTHORIZED_KEYS there"
                    .to_owned()
            }
            Error::Refused { reason } if reason == UNKNOWN_KEY => {
                format!("the collector does not admit this capture's key {}: add it to AUTHORIZED_KEYS there", own())
            }
            Error::Refused { reason } if reason == UNAUTHORIZED_NAME => format!(
                "the collector does not allow this SOURCE_NAME for the key {}: add the name to its line in \
                 AUTHORIZED_KEYS there",
                own()
            ),
            Error::WrongServerKey | Error::Decryption => {
                "the peer at RELAY_ENDPOINT does not have the key COLLECTOR_KEY".to_owned()
            }
            Error::NotZmtp | Error::SocketType { .. } => {
                format!("the peer at RELAY_ENDPOINT is not a collector: it {error}")
            }
            error => format!("the collector {error}"),
        },
    })
}

/// A process without permission stays without it.
fn explain_network(error: &io::Error) -> Option<String> {
    (error.kind() == io::ErrorKind::PermissionDenied)
        .then(|| format!("this process may not connect to RELAY_ENDPOINT: {error}"))
}

#[cfg(test)]
mod tests {
    use zmtp::SecretKey;

    use super::*;

    const REFUSAL: ConnectionError = ConnectionError::Protocol(Error::NotZmtp);
    const CLOSED: ConnectionError = ConnectionError::Closed { during_handshake: false };

    fn absent() -> ConnectionError {
        ConnectionError::Network(io::ErrorKind::ConnectionRefused.into())
    }

    /// Milliseconds until the next attempt, and whether something is logged.
    fn failed(retry: &mut Retry, error: &ConnectionError, lasted: Duration) -> (u128, bool) {
        let now = Instant::now();
        let logged = retry.failed(error, None, lasted, now).is_some();
        ((retry.at().unwrap() - now).as_millis(), logged)
    }

    #[test]
    fn a_collector_that_is_not_there_is_tried_at_a_constant_rate() {
        let mut retry = Retry::new();
        assert_eq!(retry.at(), None);
        for _ in 0..5 {
            assert_eq!(failed(&mut retry, &absent(), Duration::ZERO), (50, false));
        }
        assert_eq!(failed(&mut retry, &CLOSED, ACCEPTED), (50, false));
    }

    #[test]
    fn a_collector_that_has_too_many_connections_is_tried_less_often() {
        let mut retry = Retry::new();
        let delays: Vec<_> = (0..8).map(|_| failed(&mut retry, &CLOSED, Duration::ZERO)).collect();
        assert_eq!(delays, [50, 100, 200, 400, 800, 1600, 2000, 2000].map(|delay| (delay, false)));
    }

    #[test]
    fn a_refusal_is_logged_once_and_tried_ever_less_often() {
        let mut retry = Retry::new();
        let delays: Vec<_> = (0..7).map(|_| failed(&mut retry, &REFUSAL, Duration::ZERO)).collect();
        let expected = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000].map(|delay| (delay, delay == 1000));
        assert_eq!(delays, expected);
        assert_eq!(failed(&mut retry, &CLOSED, ACCEPTED), (50, false));
        assert_eq!(failed(&mut retry, &REFUSAL, Duration::ZERO), (1000, true));
    }

    #[test]
    fn a_connection_that_ends_at_once_counts_as_refused() {
        let mut retry = Retry::new();
        assert_eq!(failed(&mut retry, &CLOSED, Duration::from_millis(1)), (1000, false));
        assert_eq!(failed(&mut retry, &CLOSED, Duration::from_millis(1)), (2000, false));
    }

    #[test]
    fn what_is_wrong_with_keys_is_said_in_plain_words() {
        let key = SecretKey::generate().public();
        let explained = |error: Error| explain(&ConnectionError::Protocol(error), Some(&key)).unwrap();
        let refused = |reason: &str| Error::Refused { reason: reason.to_owned() };
        assert_eq!(
            explained(refused(UNKNOWN_KEY)),
            format!("the collector does not admit this capture's key {key}: add it to AUTHORIZED_KEYS there")
        );
        assert!(explained(refused(UNAUTHORIZED_NAME)).contains("SOURCE_NAME"));
        let theirs = || "NULL".to_owned();
        let mechanism = |ours| explained(Error::Mechanism { ours, theirs: theirs() });
        assert!(mechanism(Mechanism::Null).contains("requires keys"));
        assert!(mechanism(Mechanism::Curve).contains("uses no keys"));
        let closed = ConnectionError::Closed { during_handshake: true };
        assert!(explain(&closed, Some(&key)).unwrap().contains("COLLECTOR_KEY"));
        assert_eq!(explain(&closed, None), None);
    }
}
