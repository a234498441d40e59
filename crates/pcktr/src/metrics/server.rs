//! The metrics over HTTP.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | the exposition |
//! | `/-/healthy` | 200, while the program lives |
//! | `/-/ready` | 200 while packets flow or may flow, else 503 |
//! | `/` | a page for people |
//!
//! All of it runs on one thread of its own: nothing that a client does can hold up packets. What a client can cost is
//! bounded: so many connections, so long each, one exposition in memory at a time.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tracing::{debug, warn};

use super::listener::{self, BindError};
use super::{Metrics, Page};
use crate::settings::MetricsAddress;

/// Connections at a time; the next wait in the kernel's queue.
const CONNECTIONS: usize = 64;

/// For a request's headers to arrive.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);

/// For one exchange, from the connection to the answer's last byte: three times what Prometheus waits by default.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Between attempts to accept a connection, when there is no descriptor left for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// <https://prometheus.io/docs/instrumenting/exposition_formats/#basic-info>
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Whether packets flow, or may flow. All clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From now on.
    pub(crate) fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the server shows.
pub(crate) struct Site {
    /// On `/metrics`.
    pub(crate) metrics: Arc<Metrics>,
    /// On `/`.
    pub(crate) page: Page,
    /// On `/-/ready`.
    pub(crate) readiness: Readiness,
}

/// A server that listens, and does not answer yet: clients wait.
#[derive(Debug)]
pub(crate) struct Server {
    listeners: Vec<TcpListener>,
}

impl Server {
    /// Listens on `address`: before any thread starts, so that an address that is taken is known in time.
    ///
    /// # Errors
    ///
    /// When the host has no address, or none of its addresses can be listened on, or one of them is taken.
    pub(crate) fn bind(address: &MetricsAddress) -> Result<Self, BindError> {
        Ok(Self { listeners: listener::bind(address)? })
    }

    /// Where it listens, with the ports that the kernel chose.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Begins to answer, on a thread of its own, until the program ends.
    ///
    /// # Errors
    ///
    /// When there is no thread or descriptor left for it.
    pub(crate) fn start(self, site: Site) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("metrics".to_owned()).spawn(move || {
            if let Err(error) = serve(&runtime, self.listeners, site) {
                warn!(%error, "the metrics are not served");
            }
        })?;
        Ok(())
    }
}

/// What is shared by all connections.
struct Shared {
    site: Site,
    /// Held from the rendering of an exposition until its last byte is sent: see [`Exposed`].
    turn: Arc<Semaphore>,
}

fn serve(runtime: &Runtime, listeners: Vec<TcpListener>, site: Site) -> io::Result<()> {
    let shared = Arc::new(Shared { site, turn: Arc::new(Semaphore::new(1)) });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    runtime.block_on(async {
        let mut accepting = Vec::new();
        for listener in listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            accepting.push(tokio::spawn(accept(listener, Arc::clone(&shared), Arc::clone(&places))));
        }
        for task in accepting {
            task.await?;
        }
        Ok(())
    })
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>, places: Arc<Semaphore>) {
    // It is never closed, so this never ends.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    exchange(stream, shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                debug!(%error, "no connection accepted");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection: one request, one answer. Without keep-alive, the time that one may take is the whole bound that is
/// needed: for clients that send nothing, that read nothing, and that are never heard of again.
async fn exchange(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request: Request<_>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request.method(), request.uri().path()).await) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    match time::timeout(EXCHANGE_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a client of the metrics was given up"),
        Err(_) => debug!("a client of the metrics was too slow"),
    }
}

impl Shared {
    async fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(path, "/metrics" | "/-/healthy" | "/-/ready" | "/") {
            return response(StatusCode::NOT_FOUND, TEXT, "not found: see /\n");
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        // hyper sends no body to a HEAD, but its length.
        match path {
            "/metrics" => response(StatusCode::OK, EXPOSITION, self.exposition().await),
            "/-/healthy" => response(StatusCode::OK, TEXT, "ok\n"),
            "/-/ready" if self.site.readiness.get() => response(StatusCode::OK, TEXT, "ready\n"),
            "/-/ready" => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
            _ => response(StatusCode::OK, HTML, self.site.page.html()),
        }
    }

    async fn exposition(&self) -> Bytes {
        // It is never closed; if it were, two expositions at a time would be no harm but memory.
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok();
        Bytes::from_owner(Exposed { text: self.site.metrics.text(), _turn: turn })
    }
}

/// An exposition on its way. hyper drops it when the last byte has been handed to the kernel: only then is it the next
/// scrape's turn, so that there is never more than one in memory, however slowly it is read.
struct Exposed {
    text: String,
    _turn: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Exposed {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

fn response(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicU32, AtomicUsize};

    use observe::Exposition;

    use super::*;
    use crate::metrics::{Figures, Render};
    use crate::settings::Mode;

    /// A server on loopback that shows what `render` writes.
    fn start(render: Render, readiness: &Readiness) -> SocketAddr {
        let server = Server::bind(&MetricsAddress::parse("127.0.0.1:0").unwrap().unwrap()).unwrap();
        let address = server.addresses()[0];
        let page = Page { mode: Mode::Observe, figures: Arc::new(Figures::default) };
        let site = Site { metrics: Arc::new(Metrics::new(render)), page, readiness: readiness.clone() };
        server.start(site).unwrap();
        address
    }

    fn x_total() -> Render {
        Arc::new(|out: &mut Exposition| out.sample("x_total", "", 1))
    }

    /// What the server at `address` says to `request`.
    fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // A refusal may come with a reset, where the request was not read to its end.
        _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    /// Status line, content type and body of the answer to `METHOD path`.
    fn check(address: SocketAddr, request: &str, status: &str, content_type: &str, ends: &str) {
        let answer = ask(address, format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{request}: {head}");
        assert!(head.contains(&format!("content-type: {content_type}\r\n")), "{request}: {head}");
        assert!(body.ends_with(ends), "{request}: {body}");
        assert_eq!(body.is_empty(), ends.is_empty(), "{request}: {body}");
    }

    #[test]
    fn every_path_has_its_answer() {
        let readiness = Readiness::default();
        let address = start(x_total(), &readiness);
        check(address, "GET /metrics", "200 OK", EXPOSITION, "\nx_total 1\n");
        check(address, "GET /metrics?name[]=x", "200 OK", EXPOSITION, "\nx_total 1\n");
        check(address, "HEAD /metrics", "200 OK", EXPOSITION, "");
        check(address, "GET /-/healthy", "200 OK", TEXT, "ok\n");
        check(address, "GET /-/ready", "503 Service Unavailable", TEXT, "not ready\n");
        readiness.set(true);
        check(address, "GET /-/ready", "200 OK", TEXT, "ready\n");
        check(address, "GET /", "200 OK", HTML, "</html>\n");
        check(address, "GET /favicon.ico", "404 Not Found", TEXT, "not found: see /\n");
        check(address, "POST /metrics", "405 Method Not Allowed", TEXT, "only GET and HEAD\n");
        assert!(ask(address, b"PUT / HTTP/1.1\r\nHost: x\r\n\r\n").contains("allow: GET, HEAD\r\n"));
    }

    #[test]
    fn garbage_does_no_harm() {
        let address = start(x_total(), &Readiness::default());
        let long = [b"GET /".as_slice(), &[b'x'; 1 << 20]].concat();
        for garbage in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b"\0\0\0\r\n\r\n", b"GET\r\n\r\n", &long] {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            // The server may have hung up before all of it is written.
            _ = stream.write_all(garbage);
        }
        check(address, "GET /-/healthy", "200 OK", TEXT, "ok\n");
    }

    #[test]
    fn a_panic_costs_one_answer() {
        let times = AtomicU32::new(0);
        let render: Render = Arc::new(move |out| {
            assert!(times.fetch_add(1, Ordering::Relaxed) > 0, "the first scrape panics, as this test wants");
            out.sample("x_total", "", 1);
        });
        let address = start(render, &Readiness::default());
        assert_eq!(ask(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"), "");
        check(address, "GET /metrics", "200 OK", EXPOSITION, "\nx_total 1\n");
    }

    #[test]
    fn a_slow_reader_holds_up_scrapes_and_nothing_else() {
        // More than the kernel's buffers have room for.
        const LONG: usize = 32 << 20;
        let scrapes = Arc::new(AtomicUsize::new(0));
        let render: Render = Arc::new({
            let scrapes = Arc::clone(&scrapes);
            move |out| {
                scrapes.fetch_add(1, Ordering::Relaxed);
                out.sample(&"x".repeat(LONG), "", 1);
            }
        });
        let address = start(render, &Readiness::default());
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut slow = std::net::TcpStream::connect(address).unwrap();
        slow.write_all(request).unwrap();
        slow.read_exact(&mut [0]).unwrap();

        let waiting = thread::spawn(move || ask(address, request));
        for _ in 0..10 {
            check(address, "GET /-/healthy", "200 OK", TEXT, "ok\n");
        }
        assert_eq!(scrapes.load(Ordering::Relaxed), 1);
        drop(slow);
        assert!(waiting.join().unwrap().len() > LONG);
        assert_eq!(scrapes.load(Ordering::Relaxed), 2);
    }
}
