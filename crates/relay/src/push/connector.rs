//! Chooses the address that the relay connects to.
//!
//! A slow name server must not hold up the sender. So a thread here resolves the name while there is no connection; if it
//! has several addresses, the first that accepts a connection is used.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::{Endpoint, Host};

use super::state::{Connectivity, RelayState};
use super::target::Target;

/// How long an address has to accept a connection, if there are several.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Time between attempts to find an address that accepts connections. Always the same: captures that find a new
/// collector together are merged in order from the start.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Time between resolutions of the name.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the sender may try to reconnect to the same address, before another one is chosen.
const RECONNECT_GRACE: Duration = Duration::from_secs(3);

/// The most addresses of a resolution that are used. A capture excludes its connections to all of them.
pub(super) const MAX_ADDRESSES: usize = 32;

/// How long [`start`] waits for the first resolution.
const FIRST_RESOLUTION: Duration = Duration::from_secs(1);

/// Starts the search for the collector. The first resolution is over when this returns, unless it takes longer than
/// [`FIRST_RESOLUTION`].
pub(super) fn start(endpoint: &Endpoint, state: &Arc<RelayState>) -> io::Result<()> {
    let name = match endpoint {
        Endpoint::Tcp { host: Host::Name(name), port } => Some((name.clone(), *port)),
        Endpoint::Tcp { host: Host::Address(address), port } => {
            let address = SocketAddr::new(*address, *port);
            state.add_peer_addresses(&[address]);
            state.set_target(Target::Tcp(address));
            None
        }
        Endpoint::Ipc { path } => {
            state.add_peer_addresses(&[]);
            state.set_target(Target::Unix(path.clone()));
            None
        }
        // `Push::start` has refused it.
        Endpoint::Tcp { host: Host::Any, .. } => None,
    };
    let connector = Connector { name, state: Arc::clone(state), target: None };
    // Not joined at the end: a resolution may take minutes.
    thread::Builder::new().name("relay-connector".into()).spawn(move || connector.run())?;
    state.wait_until_resolved(FIRST_RESOLUTION);
    Ok(())
}

struct Connector {
    /// The name and port to resolve; none if the endpoint is an address.
    name: Option<(String, u16)>,
    state: Arc<RelayState>,
    /// The address that was chosen last.
    target: Option<SocketAddr>,
}

impl Connector {
    /// Searches for the collector whenever there is no connection, until the relay ends.
    fn run(mut self) {
        loop {
            if self.state.wait_for_connectivity(Connectivity::Connected, None) == Connectivity::Ended {
                return;
            }
            self.search();
        }
    }

    /// Searches while there is no connection.
    fn search(&mut self) {
        let started = Instant::now();
        let mut addresses = Vec::new();
        let mut search = Search { named: self.name.is_some(), ..Search::default() };
        let mut wait = Duration::ZERO;
        while self.state.wait_for_connectivity(Connectivity::Disconnected, Some(wait))
            == Connectivity::Disconnected
        {
            wait = Duration::ZERO;
            search.has_target = !search.named || self.target.is_some();
            let action = search.next_action(started.elapsed());
            match action {
                Action::Resolve => {
                    match self.resolve() {
                        Ok(found) => addresses = found,
                        Err(error) => {
                            addresses.clear();
                            self.report_unresolved(&mut search, &error);
                        }
                    }
                    self.state.add_peer_addresses(&addresses);
                    search.addresses = addresses.len();
                }
                Action::Choose => self.choose(&addresses),
                // Why it refuses this capture was logged.
                Action::Report if self.state.is_refused() => {}
                Action::Report => {
                    tracing::warn!(
                        collector = self.state.collector(),
                        "collector not reachable; queueing packets in RELAY_BUFFER"
                    );
                }
                Action::Wait(duration) => wait = duration,
            }
            search.done(action, started.elapsed());
        }
    }

    fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let Some((name, port)) = &self.name else { return Ok(Vec::new()) };
        Ok((name.as_str(), *port).to_socket_addrs()?.take(MAX_ADDRESSES).collect())
    }

    fn report_unresolved(&self, search: &mut Search, error: &io::Error) {
        if !std::mem::replace(&mut search.reported, true) {
            tracing::warn!(
                collector = self.state.collector(),
                %error,
                "cannot resolve the collector's name; retrying"
            );
        }
    }

    fn choose(&mut self, addresses: &[SocketAddr]) {
        let accepts = |address: &&SocketAddr| TcpStream::connect_timeout(address, PROBE_TIMEOUT).is_ok();
        let chosen = match addresses {
            [only] => Some(*only),
            several => several.iter().find(accepts).copied(),
        };
        if let Some(address) = chosen
            && self.target != Some(address)
        {
            self.target = Some(address);
            self.state.set_target(Target::Tcp(address));
        }
    }
}

/// What the connector does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Resolve the name.
    Resolve,
    /// Choose one of the addresses.
    Choose,
    /// Log that there is no collector.
    Report,
    /// Wait for a connection, this long at most.
    Wait(Duration),
}

/// A search for the collector. All times are since it began.
#[derive(Clone, Copy, Debug, Default)]
struct Search {
    /// Whether there is a name to resolve.
    named: bool,
    /// Addresses that the name resolved to.
    addresses: usize,
    /// Whether the sender has an address to connect to.
    has_target: bool,
    resolved_at: Option<Duration>,
    /// When an address was chosen, since the last resolution.
    chosen_at: Option<Duration>,
    /// Whether the log has a line about it.
    reported: bool,
}

impl Search {
    fn next_action(&self, now: Duration) -> Action {
        let resolve_at =
            self.named.then(|| self.resolved_at.map_or(Duration::ZERO, |at| at + RESOLVE_INTERVAL));
        let grace_until = if self.has_target { RECONNECT_GRACE } else { Duration::ZERO };
        let choose_at = match (self.addresses, self.chosen_at) {
            (0, _) => None,
            (_, None) => Some(grace_until),
            // There is nothing to choose from until the next resolution.
            (1, Some(_)) => None,
            (_, Some(at)) => Some(grace_until.max(at + PROBE_INTERVAL)),
        };
        let report_at = (!self.reported).then_some(RECONNECT_GRACE);
        for (at, action) in
            [(resolve_at, Action::Resolve), (choose_at, Action::Choose), (report_at, Action::Report)]
        {
            if at.is_some_and(|at| at <= now) {
                return action;
            }
        }
        let next = [resolve_at, choose_at, report_at].into_iter().flatten().min();
        Action::Wait(next.map_or(RESOLVE_INTERVAL, |at| at - now))
    }

    /// Records that an action was done.
    fn done(&mut self, action: Action, now: Duration) {
        match action {
            Action::Resolve => (self.resolved_at, self.chosen_at) = (Some(now), None),
            Action::Choose => self.chosen_at = Some(now),
            Action::Report => self.reported = true,
            Action::Wait(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The first actions of a search in which they take no time, with the milliseconds at which they are done.
    fn actions(mut search: Search, found: usize, until: u32) -> Vec<(u128, Action)> {
        let mut now = Duration::ZERO;
        let mut actions = Vec::new();
        while now <= until * MS {
            let action = search.next_action(now);
            search.done(action, now);
            match action {
                Action::Wait(duration) => {
                    assert!(duration > Duration::ZERO);
                    now += duration;
                    continue;
                }
                Action::Resolve => search.addresses = found,
                Action::Choose => search.has_target |= found == 1,
                Action::Report => {}
            }
            actions.push((now.as_millis(), action));
        }
        actions
    }

    const NAMED: Search = Search {
        named: true,
        addresses: 0,
        has_target: false,
        resolved_at: None,
        chosen_at: None,
        reported: false,
    };

    #[test]
    fn an_address_is_only_reported_as_unreachable() {
        let search = Search { named: false, has_target: true, ..NAMED };
        assert_eq!(actions(search, 0, 9000), [(3000, Action::Report)]);
    }

    #[test]
    fn a_name_is_resolved_each_second_and_its_only_address_used_at_once() {
        let expected = [
            (0, Action::Resolve),
            (0, Action::Choose),
            (1000, Action::Resolve),
            (2000, Action::Resolve),
            (3000, Action::Resolve),
            (3000, Action::Choose),
            (3000, Action::Report),
            (4000, Action::Resolve),
            (4000, Action::Choose),
        ];
        assert_eq!(actions(NAMED, 1, 4000), expected);
    }

    #[test]
    fn several_addresses_are_probed_until_one_accepts() {
        let expected = [
            (0, Action::Resolve),
            (0, Action::Choose),
            (50, Action::Choose),
            (100, Action::Choose),
            (150, Action::Choose),
        ];
        assert_eq!(actions(NAMED, 2, 150), expected);
    }

    #[test]
    fn a_lost_connection_has_time_to_come_back() {
        let lost = Search { has_target: true, ..NAMED };
        let chosen = |found| {
            let mut actions = actions(lost, found, 3050);
            actions.retain(|(_, action)| *action == Action::Choose);
            actions
        };
        assert_eq!(chosen(1), [(3000, Action::Choose)]);
        assert_eq!(chosen(2), [(3000, Action::Choose), (3050, Action::Choose)]);
    }

    #[test]
    fn a_name_without_addresses_is_resolved_again() {
        let expected = [(0, Action::Resolve), (1000, Action::Resolve)];
        assert_eq!(actions(NAMED, 0, 1500), expected);
    }

    #[test]
    fn what_is_reported_already_is_not_reported_again() {
        let search = Search { reported: true, named: false, has_target: true, ..NAMED };
        assert_eq!(actions(search, 0, 9000), []);
    }
}
