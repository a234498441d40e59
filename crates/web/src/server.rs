//! The HTTP server. It runs on its own threads, so that no client can delay packets. The cost of clients is bounded: the
//! number of connections, the duration of each, the renderings in memory, and the passwords checked at a time.
//!
//! One thread serves all connections and never blocks. Rendering and compressing the metrics, rendering the status page,
//! checking passwords and reading the configuration take place on other threads, so health checks are answered meanwhile.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use prometheus::Registry;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::{self, Instant};
use tracing::{debug, warn};

use crate::ListenAddress;
use crate::client_address::ClientAddress;
use crate::config::{WatchedConfig, WebConfig};
use crate::connection;
use crate::connections::Connections;
use crate::counters::{self, Counters};
use crate::listener::{self, BindError};
use crate::log_limit::LogLimit;
use crate::rendering::MAX_RENDERINGS;
use crate::service::{Service, Site};

/// Maximum number of connections. A new one takes the place of the least useful one: see [`Connections::evict`].
const CONNECTIONS: usize = 64;

/// Threads for what blocks or takes long: a rendering and a compression of each other one in memory, the status page, a
/// password and the configuration. There is a thread for each, so none waits for another.
const BLOCKING_THREADS: usize = MAX_RENDERINGS + 3;

/// Pause after a failure to accept a connection, for example when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A server that listens and does not respond yet.
pub struct Server {
    listeners: Vec<TcpListener>,
    shared: Shared,
}

/// What the server consists of, apart from the site.
struct Shared {
    config: Option<Arc<WatchedConfig>>,
    connections: Arc<Connections>,
    counters: Arc<Counters>,
}

impl Server {
    /// Listens on `address`. It starts no thread, so that an address in use is reported early. Without `config`, it serves
    /// plain HTTP to everybody.
    ///
    /// # Errors
    ///
    /// The host name cannot be resolved, or an address is in use or not available.
    pub fn bind(address: &ListenAddress, config: Option<WebConfig>) -> Result<Self, BindError> {
        let shared = Shared {
            config: config.map(WatchedConfig::new).map(Arc::new),
            connections: Connections::new(CONNECTIONS),
            counters: Arc::default(),
        };
        Ok(Self { listeners: listener::bind(address)?, shared })
    }

    /// The addresses it listens on, with the actual ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Registers the metrics of the server itself.
    ///
    /// # Errors
    ///
    /// They are registered already.
    pub fn register_metrics(&self, registry: &Registry) -> prometheus::Result<()> {
        let Shared { config, connections, counters } = &self.shared;
        registry.register(counters::metrics_collector(
            Arc::clone(counters),
            Arc::clone(connections),
            config.clone(),
        )?)
    }

    /// Starts to serve `site`, on threads that run until the program exits.
    ///
    /// # Errors
    ///
    /// The thread or its event loop cannot be created.
    pub fn start(self, site: Site) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .thread_name("metrics-worker")
            .build()?;
        let Self { listeners, shared: Shared { config, connections, counters } } = self;
        let service = Service::new(site, Arc::clone(&connections), Arc::clone(&counters))
            .map_err(|_| io::Error::other("the system has no random numbers"))?;
        let acceptor = Acceptor {
            endpoint: Arc::new(connection::Endpoint { service, config, counters }),
            connections,
            log_limit: LogLimit::default(),
        };
        thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            if let Err(error) = serve(&runtime, listeners, Arc::new(acceptor)) {
                warn!(%error, "metrics are no longer served");
            }
        })?;
        Ok(())
    }
}

fn serve(runtime: &Runtime, listeners: Vec<TcpListener>, acceptor: Arc<Acceptor>) -> io::Result<()> {
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(Arc::clone(&acceptor).accept_all(listener)));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}

/// Accepts connections.
struct Acceptor {
    endpoint: Arc<connection::Endpoint>,
    connections: Arc<Connections>,
    log_limit: LogLimit,
}

impl Acceptor {
    async fn accept_all(self: Arc<Self>, listener: tokio::net::TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, address)) => self.accept(stream, address.ip().into()),
                // The client has closed the connection already.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => self.pause(&error).await,
            }
        }
    }

    fn accept(&self, stream: TcpStream, client: ClientAddress) {
        let connection = self.connections.add(client, Instant::now());
        let id = connection.id;
        let endpoint = Arc::clone(&self.endpoint);
        let task = tokio::spawn(async move {
            endpoint.serve(stream, &connection.activity).await;
            drop(connection);
        });
        self.connections.set_task(id, task.abort_handle());
    }

    /// Waits before another attempt, which would fail in the same way. If file descriptors are exhausted, a connection that
    /// is still silent after the pause makes room.
    async fn pause(&self, error: &io::Error) {
        self.endpoint.counters.accept_errors.increment();
        if self.log_limit.allows(Instant::now().into_std()) {
            let remedy = match error.raw_os_error() {
                Some(libc::EMFILE) => "raise the limit of open files: ulimit -n, or LimitNOFILE= in systemd",
                _ => "check the host's memory and its limit of open files",
            };
            warn!(%error, remedy, "cannot accept connections to the metrics; repeats suppressed for a minute");
        } else {
            debug!(%error, "cannot accept a connection to the metrics");
        }
        time::sleep(ACCEPT_PAUSE).await;
        self.connections.evict_silent();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::mpsc;

    use metrics::Exposition;
    use socket2::{Domain, Socket, Type};

    use super::*;
    use crate::service::tests::site;
    use crate::{Page, Status};

    const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    const HEALTH: &[u8] = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";

    /// A server whose metrics are what `tables` writes, and its address.
    fn start(tables: impl Fn(&mut Exposition) + Send + Sync + 'static) -> SocketAddr {
        start_site(site(tables).0)
    }

    fn start_site(site: Site) -> SocketAddr {
        let server = Server::bind(&"127.0.0.1:0".parse().unwrap(), None).unwrap();
        let address = server.addresses()[0];
        server.start(site).unwrap();
        address
    }

    fn send(address: SocketAddr, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        // A server that hangs fails the test.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(request).unwrap();
        stream
    }

    fn read(mut stream: TcpStream) -> String {
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }

    fn ask(address: SocketAddr, request: &[u8]) -> String {
        read(send(address, request))
    }

    #[test]
    fn server_answers_on_a_socket() {
        let response = ask(start(|_| {}), HEALTH);
        assert!(
            response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok\n"),
            "{response}"
        );
    }

    #[test]
    fn silent_clients_do_not_keep_others_out() {
        let address = start(|out| out.sample("x_total", "", 1));
        let mut silent: Vec<_> = (0..2 * CONNECTIONS).map(|_| send(address, b"GET")).collect();
        assert!(ask(address, HEALTH).ends_with("\r\n\r\nok\n"));
        assert!(ask(address, SCRAPE).ends_with("\r\n\r\nx_total 1\n"));
        // The oldest ones have been closed, before any time limit; the youngest one is still served.
        _ = silent[0].read(&mut [0; 1]);
        let mut youngest = silent.pop().unwrap();
        youngest.write_all(b" /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(read(youngest).ends_with("\r\n\r\nok\n"));
    }

    #[test]
    fn health_is_answered_while_metrics_are_rendered() {
        let (render, rendering) = mpsc::sync_channel::<()>(0);
        let rendering = parking_lot::Mutex::new(rendering);
        let address = start(move |out| {
            rendering.lock().recv().unwrap();
            out.sample("x_total", "", 1);
        });
        let scrape = send(address, SCRAPE);
        assert!(ask(address, HEALTH).ends_with("\r\n\r\nok\n"));
        render.send(()).unwrap();
        assert!(read(scrape).ends_with("\r\n\r\nx_total 1\n"));
    }

    #[test]
    fn health_is_answered_while_the_status_page_waits_for_its_figures() {
        let (answer, answers) = mpsc::sync_channel::<()>(0);
        let answers = parking_lot::Mutex::new(answers);
        let page = Page::new("collect", move || {
            answers.lock().recv().unwrap();
            Status::default()
        });
        let address = start_site(Site { page, ..site(|out| out.sample("x_total", "", 1)).0 });
        // More than there are threads.
        let pages: Vec<_> =
            (0..2 * BLOCKING_THREADS).map(|_| send(address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
        assert!(ask(address, HEALTH).ends_with("\r\n\r\nok\n"));
        assert!(ask(address, SCRAPE).ends_with("\r\n\r\nx_total 1\n"));
        pages.iter().for_each(|_| answer.send(()).unwrap());
        for page in pages {
            assert!(read(page).ends_with("</html>\n"));
        }
    }

    #[test]
    fn flood_from_one_address_does_not_close_connections_of_others() {
        let address = start(|_| {});
        // The oldest connection of all.
        let mut honest = send(address, b"GET");
        let flood: Vec<_> = (0..2 * CONNECTIONS)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
                socket.connect(&address.into()).unwrap();
                socket
            })
            .collect();
        // Connections are accepted in order: this is later than all of them.
        assert!(ask(address, HEALTH).ends_with("\r\n\r\nok\n"));
        honest.write_all(b" /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert!(read(honest).ends_with("\r\n\r\nok\n"));
        drop(flood);
    }
}
