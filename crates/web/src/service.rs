//! The answers to requests.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | the metrics |
//! | `/-/healthy` | 200 |
//! | `/-/ready` | 200 while the program is running, 503 while it starts or stops |
//! | `/` | a status page |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{Metrics, Page};

/// <https://prometheus.io/docs/instrumenting/exposition_formats/#basic-info>
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Whether the program is running: it has started, and has not begun to stop. All clones are one.
#[derive(Clone, Debug)]
pub struct Readiness {
    started: Arc<AtomicBool>,
    stopping: Arc<AtomicBool>,
}

impl Readiness {
    /// Not ready yet. `stopping` is set when the program begins to stop.
    pub fn new(stopping: Arc<AtomicBool>) -> Self {
        Self { started: Arc::default(), stopping }
    }

    /// Reports that the program has started.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.started.load(Ordering::Relaxed) && !self.stopping.load(Ordering::Relaxed)
    }
}

/// What is served.
pub struct Site {
    /// At `/metrics`.
    pub metrics: Arc<Metrics>,
    /// At `/`.
    pub page: Page,
    /// At `/-/ready`.
    pub readiness: Readiness,
}

/// Answers requests.
pub(crate) struct Service {
    site: Site,
    /// Held from rendering the metrics until their last byte is sent: see [`Rendered`].
    scrape: Arc<Semaphore>,
}

impl Service {
    pub(crate) fn new(site: Site) -> Self {
        Self { site, scrape: Arc::new(Semaphore::new(1)) }
    }

    /// The response to `request`. hyper replaces the body by its length if the method is HEAD.
    pub(crate) async fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/-/healthy" | "/-/ready" | "/") {
            return response(StatusCode::NOT_FOUND, TEXT, "not found: see /\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "use GET or HEAD\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/metrics" => response(StatusCode::OK, EXPOSITION, self.metrics().await),
            "/-/healthy" => response(StatusCode::OK, TEXT, "ok\n"),
            "/-/ready" if self.site.readiness.is_ready() => response(StatusCode::OK, TEXT, "ready\n"),
            "/-/ready" => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
            _ => response(StatusCode::OK, HTML, self.site.page.html()),
        }
    }

    async fn metrics(&self) -> Bytes {
        // The semaphore is never closed. Without a permit, two scrapes would merely need more memory.
        let permit = Arc::clone(&self.scrape).acquire_owned().await.ok();
        Bytes::from_owner(Rendered { text: self.site.metrics.text(), _permit: permit })
    }
}

/// Metrics that are being sent. hyper drops them when the last byte is written to the socket. Only then is the next
/// scrape rendered, so there is never more than one in memory, however slowly it is read.
struct Rendered {
    text: String,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Rendered {
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
pub(crate) mod tests {
    use http_body_util::BodyExt;
    use metrics::Exposition;
    use prometheus::Registry;

    use super::*;
    use crate::Status;

    /// A site whose metrics are what `tables` writes, and the flag that the program is stopping.
    pub(crate) fn site(tables: impl Fn(&mut Exposition) + Send + Sync + 'static) -> (Site, Arc<AtomicBool>) {
        let stopping = Arc::<AtomicBool>::default();
        let site = Site {
            metrics: Arc::new(Metrics::new(Registry::new(), tables)),
            page: Page::new("observe", Status::default),
            readiness: Readiness::new(Arc::clone(&stopping)),
        };
        (site, stopping)
    }

    pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(future)
    }

    /// Checks the response to a request such as `GET /`. The body must end with `body`.
    fn check(service: &Service, request: &str, status: u16, content_type: &str, body: &str) {
        let (method, uri) = request.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        block_on(async {
            let response = service.respond(&request).await;
            assert_eq!(response.status().as_u16(), status, "{request:?}");
            assert_eq!(response.headers()[CONTENT_TYPE], content_type, "{request:?}");
            assert_eq!(response.headers().contains_key(ALLOW), status == 405, "{request:?}");
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            assert!(!bytes.is_empty() && bytes.ends_with(body.as_bytes()), "{request:?}: {bytes:?}");
        });
    }

    #[test]
    fn paths_and_methods() {
        let (site, _) = site(|out| out.sample("x_total", "", 1));
        let service = Service::new(site);
        check(&service, "GET /metrics", 200, EXPOSITION, "x_total 1\n");
        check(&service, "GET /metrics?name[]=x", 200, EXPOSITION, "x_total 1\n");
        check(&service, "HEAD /metrics", 200, EXPOSITION, "x_total 1\n");
        check(&service, "GET /-/healthy", 200, TEXT, "ok\n");
        check(&service, "GET /", 200, HTML, "</html>\n");
        check(&service, "GET /favicon.ico", 404, TEXT, "not found: see /\n");
        check(&service, "POST /metrics", 405, TEXT, "use GET or HEAD\n");
        check(&service, "PUT /", 405, TEXT, "use GET or HEAD\n");
    }

    #[test]
    fn ready_between_start_and_stop() {
        let (site, stopping) = site(|_| {});
        let readiness = site.readiness.clone();
        let service = Service::new(site);
        check(&service, "GET /-/ready", 503, TEXT, "not ready\n");
        readiness.set_started();
        check(&service, "GET /-/ready", 200, TEXT, "ready\n");
        stopping.store(true, Ordering::Relaxed);
        check(&service, "GET /-/ready", 503, TEXT, "not ready\n");
        check(&service, "GET /-/healthy", 200, TEXT, "ok\n");
    }

    #[test]
    fn next_scrape_waits_until_the_last_is_sent() {
        let (site, _) = site(|out| out.sample("x_total", "", 1));
        let service = Service::new(site);
        let request = || Request::builder().uri("/metrics").body(()).unwrap();
        block_on(async {
            let first = service.respond(&request()).await;
            assert_eq!(service.scrape.available_permits(), 0);
            drop(first);
            assert_eq!(service.scrape.available_permits(), 1);
            service.respond(&request()).await;
        });
    }
}
