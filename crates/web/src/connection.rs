//! One connection: the TLS handshake, one request and its response.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{self, Instant};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use crate::config::{WatchedConfig, WebConfig};
use crate::connections::Activity;
use crate::counters::Counters;
use crate::service::Service;
use crate::stream::TrackedStream;

/// Time limit for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for receiving a request's headers.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Size limit of a request's headers in bytes. Prometheus sends less than 1 KiB.
const MAX_HEADERS: usize = 16 << 10;

/// Time limit for a connection: three times Prometheus' default scrape timeout. It applies to slow readers, too.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// What serves connections.
pub(crate) struct Endpoint {
    pub(crate) service: Service,
    pub(crate) config: Option<Arc<WatchedConfig>>,
    pub(crate) counters: Arc<Counters>,
}

impl Endpoint {
    /// Serves one request. Without keep-alive, the time limit of the connection covers clients that do not send, do not
    /// read, or disappear; and the configuration is that of the connection's begin.
    pub(crate) async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin, activity: &Arc<Activity>) {
        if time::timeout(CONNECTION_TIMEOUT, self.serve_unlimited(stream, activity)).await.is_err() {
            debug!("connection to the metrics timed out");
        }
    }

    async fn serve_unlimited(&self, stream: impl AsyncRead + AsyncWrite + Unpin, activity: &Arc<Activity>) {
        let config = match &self.config {
            Some(config) => Some(config.current().await),
            None => None,
        };
        let stream = TrackedStream::new(stream, Arc::clone(activity));
        let Some(tls) = config.as_ref().and_then(|config| config.tls()) else {
            return self.serve_http(stream, activity, config.as_ref()).await;
        };
        let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
        match time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => self.serve_http(stream, activity, config.as_ref()).await,
            Ok(Err(error)) => {
                self.counters.tls_errors.increment();
                debug!(%error, "TLS handshake failed");
            }
            Err(_) => {
                self.counters.tls_errors.increment();
                debug!("TLS handshake timed out");
            }
        }
    }

    async fn serve_http(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        activity: &Activity,
        config: Option<&Arc<WebConfig>>,
    ) {
        let respond = service_fn(async |request: Request<_>| {
            activity.set_answering(Instant::now());
            let response = self.service.respond(&request, config).await;
            activity.set_sending(Instant::now());
            Ok::<_, Infallible>(response)
        });
        let connection = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(MAX_HEADERS)
            // Bodies are shared: without this, hyper may copy them into a buffer of the connection.
            .writev(true)
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_TIMEOUT)
            .serve_connection(TokioIo::new(stream), respond);
        if let Err(error) = connection.await {
            debug!(%error, "connection to the metrics failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::client_address::ClientAddress;
    use crate::connections::Connections;
    use crate::service::Site;
    use crate::service::tests::{block_on, block_on_paused, site};

    const SCRAPE: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    const HEALTH: &[u8] = b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Bytes in flight in each direction.
    const PIPE: usize = 1 << 10;

    struct Fixture {
        endpoint: Arc<Endpoint>,
        connections: Arc<Connections>,
    }

    impl Fixture {
        fn new(site: Site) -> Self {
            let connections = Connections::new(8);
            let counters = Arc::<Counters>::default();
            let service = Service::new(site, Arc::clone(&connections), Arc::clone(&counters)).unwrap();
            Self { endpoint: Arc::new(Endpoint { service, config: None, counters }), connections }
        }

        /// A connection in memory.
        fn connect(&self) -> DuplexStream {
            let (client, server) = duplex(PIPE);
            let endpoint = Arc::clone(&self.endpoint);
            let connection = self.connections.add(ClientAddress::LOCAL, Instant::now());
            let id = connection.id;
            let task = tokio::spawn(async move { endpoint.serve(server, &connection.activity).await });
            self.connections.set_task(id, task.abort_handle());
            client
        }

        /// Sends `request` and returns the response; empty if there is none.
        async fn ask(&self, request: &[u8]) -> String {
            let mut client = self.connect();
            // The server may close the connection before it has read everything.
            _ = client.write_all(request).await;
            let mut response = Vec::new();
            _ = client.read_to_end(&mut response).await;
            String::from_utf8(response).unwrap()
        }
    }

    #[test]
    fn malformed_requests_do_not_affect_others() {
        let fixture = Fixture::new(site(|_| {}).0);
        let long = [b"GET /".as_slice(), &[b'x'; 1 << 20]].concat();
        block_on(async {
            for request in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b"\0\0\0\r\n\r\n", b"GET\r\n\r\n", &long]
            {
                assert!(!fixture.ask(request).await.starts_with("HTTP/1.1 200"));
            }
            assert!(fixture.ask(HEALTH).await.ends_with("\r\n\r\nok\n"));
        });
    }

    #[test]
    fn head_has_no_body() {
        let fixture = Fixture::new(site(|out| out.sample("x_total", "", 1)).0);
        let response = block_on(fixture.ask(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert!(response.contains("content-length: 10\r\n") && response.ends_with("\r\n\r\n"), "{response}");
    }

    #[test]
    fn panic_fails_one_request() {
        let calls = AtomicU32::new(0);
        let (site, _) = site(move |out| {
            assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "the first scrape panics on purpose");
            out.sample("x_total", "", 1);
        });
        let fixture = Fixture::new(site);
        block_on(async {
            assert!(fixture.ask(SCRAPE).await.starts_with("HTTP/1.1 500 "));
            assert!(fixture.ask(SCRAPE).await.ends_with("\r\n\r\nx_total 1\n"));
        });
    }

    #[test]
    fn slow_readers_are_closed_for_later_scrapes() {
        const LEN: usize = 1 << 20;
        let (site, _) = site(|out| out.sample(&"x".repeat(LEN), "", 1));
        let fixture = Fixture::new(site);
        block_on_paused(async {
            let start = Instant::now();
            let mut readers = Vec::new();
            for _ in 0..5 {
                let mut client = fixture.connect();
                client.write_all(SCRAPE).await.unwrap();
                client.read_u8().await.unwrap();
                readers.push(client);
                assert!(fixture.ask(HEALTH).await.ends_with("\r\n\r\nok\n"));
            }
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            assert_eq!(fixture.connections.evicted(), 2);
            let mut complete = Vec::new();
            for client in &mut readers {
                let mut response = Vec::new();
                client.read_to_end(&mut response).await.unwrap();
                complete.push(response.len() > LEN);
            }
            assert_eq!(complete, [false, false, true, true, true]);
            assert!(fixture.ask(SCRAPE).await.len() > LEN);
        });
    }

    #[test]
    fn reader_that_makes_progress_is_not_closed_at_once() {
        const LEN: usize = 1 << 20;
        let (site, _) = site(|out| out.sample(&"x".repeat(LEN), "", 1));
        let fixture = Arc::new(Fixture::new(site));
        block_on_paused(async {
            let mut readers = Vec::new();
            for _ in 0..3 {
                let mut client = fixture.connect();
                client.write_all(SCRAPE).await.unwrap();
                client.read_u8().await.unwrap();
                readers.push(client);
            }
            let next = tokio::spawn({
                let fixture = Arc::clone(&fixture);
                async move { fixture.ask(SCRAPE).await.len() }
            });
            // A kilobyte each every tenth of a second, then all the rest.
            for _ in 0..20 {
                for client in &mut readers {
                    client.read_exact(&mut [0; PIPE]).await.unwrap();
                }
                time::sleep(Duration::from_millis(100)).await;
            }
            assert!(!next.is_finished());
            for client in &mut readers {
                let mut response = Vec::new();
                client.read_to_end(&mut response).await.unwrap();
                assert!(response.len() > LEN - 30 * PIPE, "{}", response.len());
            }
            assert!(next.await.unwrap() > LEN);
            assert_eq!(fixture.connections.evicted(), 0);
        });
    }
}
