//! The HTTP server. It runs on its own thread, so that no client can delay packets. The cost of clients is bounded:
//! the number of connections, the duration of each, and one rendering of the metrics in memory at a time.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time;
use tracing::{debug, warn};

use crate::ListenAddress;
use crate::listener::{self, BindError};
use crate::service::{Service, Site};

/// Maximum number of connections; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;

/// Time limit for receiving a request's headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for a connection: three times Prometheus' default scrape timeout.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failure to accept a connection, for example when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// A server that listens and does not respond yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<TcpListener>,
}

impl Server {
    /// Listens on `address`. It starts no thread, so that an address in use is reported early.
    ///
    /// # Errors
    ///
    /// The host name cannot be resolved, or an address is in use or not available.
    pub fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        Ok(Self { listeners: listener::bind(address)? })
    }

    /// The addresses it listens on, with the actual ports.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Starts to serve `site`, on a thread that runs until the program exits.
    ///
    /// # Errors
    ///
    /// The thread or its event loop cannot be created.
    pub fn start(self, site: Site) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            if let Err(error) = serve(&runtime, self.listeners, site) {
                warn!(%error, "metrics are no longer served");
            }
        })?;
        Ok(())
    }
}

fn serve(runtime: &Runtime, listeners: Vec<TcpListener>, site: Site) -> io::Result<()> {
    let service = Arc::new(Service::new(site));
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.push(tokio::spawn(accept(listener, Arc::clone(&service), Arc::clone(&permits))));
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}

async fn accept(listener: tokio::net::TcpListener, service: Arc<Service>, permits: Arc<Semaphore>) {
    // The semaphore is never closed, so this loop does not end.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let service = Arc::clone(&service);
                tokio::spawn(async move {
                    handle_connection(stream, service).await;
                    drop(permit);
                });
            }
            Err(error) => {
                debug!(%error, "cannot accept a connection to the metrics");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one request. Without keep-alive, the time limit of the connection covers clients that do not send, do not read,
/// or disappear.
async fn handle_connection(stream: impl AsyncRead + AsyncWrite + Unpin, service: Arc<Service>) {
    let respond = service_fn(|request: Request<_>| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.respond(&request).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .serve_connection(TokioIo::new(stream), respond);
    match time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "connection to the metrics failed"),
        Err(_) => debug!("connection to the metrics timed out"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::service::tests::{block_on, site};

    const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    const HEALTH: &[u8] = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Bytes in flight in each direction.
    const PIPE: usize = 1 << 10;

    /// A connection in memory, and the task that serves it.
    fn connect(service: &Arc<Service>) -> (DuplexStream, JoinHandle<()>) {
        let (client, server) = duplex(PIPE);
        (client, tokio::spawn(handle_connection(server, Arc::clone(service))))
    }

    /// Sends `request` and returns the response; empty if there is none.
    async fn ask(service: &Arc<Service>, request: &[u8]) -> String {
        let (mut client, _) = connect(service);
        // The server may close the connection before it has read everything.
        _ = client.write_all(request).await;
        let mut response = Vec::new();
        _ = client.read_to_end(&mut response).await;
        String::from_utf8(response).unwrap()
    }

    #[test]
    fn malformed_requests_do_not_affect_others() {
        let service = Arc::new(Service::new(site(|_| {}).0));
        let long = [b"GET /".as_slice(), &[b'x'; 1 << 20]].concat();
        block_on(async {
            for request in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b"\0\0\0\r\n\r\n", b"GET\r\n\r\n", &long]
            {
                assert!(!ask(&service, request).await.starts_with("HTTP/1.1 200"));
            }
            assert!(ask(&service, HEALTH).await.ends_with("\r\n\r\nok\n"));
        });
    }

    #[test]
    fn head_has_no_body() {
        let service = Arc::new(Service::new(site(|out| out.sample("x_total", "", 1)).0));
        let response = block_on(ask(&service, b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(response.contains("content-length: 10\r\n") && response.ends_with("\r\n\r\n"), "{response}");
    }

    #[test]
    fn panic_fails_one_request() {
        let calls = AtomicU32::new(0);
        let (site, _) = site(move |out| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "the first scrape panics on purpose");
            out.sample("x_total", "", 1);
        });
        let service = Arc::new(Service::new(site));
        block_on(async {
            assert_eq!(ask(&service, SCRAPE).await, "");
            assert!(ask(&service, SCRAPE).await.ends_with("\r\n\r\nx_total 1\n"));
        });
    }

    #[test]
    fn slow_reader_delays_only_scrapes() {
        const LEN: usize = 1 << 20;
        let scrapes = Arc::new(AtomicUsize::new(0));
        let (site, _) = site({
            let scrapes = Arc::clone(&scrapes);
            move |out| {
                scrapes.fetch_add(1, Ordering::Relaxed);
                out.sample(&"x".repeat(LEN), "", 1);
            }
        });
        let service = Arc::new(Service::new(site));
        block_on(async {
            let (mut slow, task) = connect(&service);
            slow.write_all(SCRAPE).await.unwrap();
            slow.read_u8().await.unwrap();

            let waiting = tokio::spawn({
                let service = Arc::clone(&service);
                async move { ask(&service, SCRAPE).await }
            });
            for _ in 0..10 {
                assert!(ask(&service, HEALTH).await.ends_with("\r\n\r\nok\n"));
            }
            assert_eq!(scrapes.load(Ordering::Relaxed), 1);
            drop(slow);
            task.await.unwrap();
            assert!(waiting.await.unwrap().len() > LEN);
            assert_eq!(scrapes.load(Ordering::Relaxed), 2);
        });
    }

    #[test]
    fn server_answers_on_a_socket() {
        let server = Server::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let mut stream = std::net::TcpStream::connect(server.addresses()[0]).unwrap();
        server.start(site(|_| {}).0).unwrap();
        stream.write_all(HEALTH).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        assert!(
            response.starts_with("HTTP/1.1 200 OK\r\n") && response.ends_with("\r\n\r\nok\n"),
            "{response}"
        );
    }
}
