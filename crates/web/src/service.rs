//! The answers to requests.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | the metrics |
//! | `/-/healthy` | 200 |
//! | `/-/ready` | 200 while the program is running, 503 while it starts or stops |
//! | `/` | a status page |
//!
//! With users in `WEB_CONFIG_FILE`, every path needs a password except the health checks, because the probes of Kubernetes
//! and of load balancers have none. They tell nothing but that the program runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{
    ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use ring::error::Unspecified;
use tokio::sync::Semaphore;
use tokio::task;
use tracing::warn;

use crate::authentication::{Access, Authentication};
use crate::config::WebConfig;
use crate::connections::Connections;
use crate::counters::Counters;
use crate::encoding::accepts_gzip;
use crate::log_limit::LogLimit;
use crate::rendering::Renderer;
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
    page: Arc<Page>,
    /// Held while the page is rendered, so that any number of requests needs one thread.
    page_turn: Arc<Semaphore>,
    readiness: Readiness,
    renderer: Arc<Renderer>,
    authentication: Authentication,
    counters: Arc<Counters>,
    log_limit: LogLimit,
}

impl Service {
    /// # Errors
    ///
    /// The system has no random numbers.
    pub(crate) fn new(
        site: Site,
        connections: Arc<Connections>,
        counters: Arc<Counters>,
    ) -> Result<Self, Unspecified> {
        Ok(Self {
            page: Arc::new(site.page),
            page_turn: Arc::new(Semaphore::new(1)),
            readiness: site.readiness,
            renderer: Arc::new(Renderer::new(site.metrics, connections)),
            authentication: Authentication::new()?,
            counters,
            log_limit: LogLimit::default(),
        })
    }

    /// The response to `request`. hyper replaces the body by its length if the method is HEAD.
    pub(crate) async fn respond<B>(
        &self,
        request: &Request<B>,
        config: Option<&Arc<WebConfig>>,
    ) -> Response<Full<Bytes>> {
        let Some(config) = config else { return self.answer(request).await };
        let mut response = match self.authenticate(request, config).await {
            Access::Granted => self.answer(request).await,
            Access::Denied => denied(),
            Access::Busy => busy(),
        };
        response.headers_mut().extend(config.headers().iter().cloned());
        response
    }

    async fn authenticate<B>(&self, request: &Request<B>, config: &Arc<WebConfig>) -> Access {
        if matches!(request.uri().path(), "/-/healthy" | "/-/ready") {
            return Access::Granted;
        }
        let access = self.authentication.check(config, request.headers().get(AUTHORIZATION)).await;
        if access != Access::Granted {
            self.counters.unauthorized.increment();
            if self.log_limit.allows(Instant::now()) {
                warn!("request without a valid user name and password; repeats suppressed for a minute");
            }
        }
        access
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
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
            "/metrics" => self.metrics(accepts_gzip(request.headers())).await,
            "/-/healthy" => response(StatusCode::OK, TEXT, "ok\n"),
            "/-/ready" if self.readiness.is_ready() => response(StatusCode::OK, TEXT, "ready\n"),
            "/-/ready" => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
            _ => self.page().await,
        }
    }

    /// The status page, rendered on another thread: its figures may be locked by a thread that waits for the output.
    async fn page(&self) -> Response<Full<Bytes>> {
        let failed = || {
            response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "cannot render the status page: see the log\n")
        };
        // The semaphore is never closed.
        let Ok(turn) = Arc::clone(&self.page_turn).acquire_owned().await else { return failed() };
        let page = Arc::clone(&self.page);
        let html = task::spawn_blocking(move || {
            let html = page.html();
            // Not earlier: if the client disconnects, the rendering runs on.
            drop(turn);
            html
        });
        match html.await {
            Ok(html) => response(StatusCode::OK, HTML, html),
            Err(_) => failed(),
        }
    }

    async fn metrics(&self, gzip: bool) -> Response<Full<Bytes>> {
        let Some(rendering) = self.renderer.render().await else {
            return response(
                StatusCode::INTERNAL_SERVER_ERROR,
                TEXT,
                "cannot render the metrics: see the log\n",
            );
        };
        let compressed = if gzip { rendering.gzip().await } else { None };
        let encoding = compressed.is_some().then(|| HeaderValue::from_static("gzip"));
        let mut response =
            response(StatusCode::OK, EXPOSITION, compressed.unwrap_or_else(|| rendering.text()));
        // RFC 9110, section 12.5.5.
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept-Encoding"));
        if let Some(encoding) = encoding {
            response.headers_mut().insert(CONTENT_ENCODING, encoding);
        }
        response
    }
}

fn denied() -> Response<Full<Bytes>> {
    let mut response = response(StatusCode::UNAUTHORIZED, TEXT, "user name and password required\n");
    // RFC 7617, section 2 and 2.1.
    let challenge = HeaderValue::from_static("Basic realm=\"pcktr\", charset=\"UTF-8\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    response
}

fn busy() -> Response<Full<Bytes>> {
    let mut response =
        response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "too many passwords to check: try again\n");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
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

    /// As [`block_on`], with a clock that advances only while nothing else is to do.
    pub(crate) fn block_on_paused<T>(future: impl Future<Output = T>) -> T {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(future)
    }

    fn service(site: Site) -> Service {
        Service::new(site, Connections::new(1), Arc::default()).unwrap()
    }

    /// Checks the response to a request such as `GET /`. The body must end with `body`.
    fn check(service: &Service, request: &str, status: u16, content_type: &str, body: &str) {
        let (method, uri) = request.split_once(' ').unwrap();
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        block_on(async {
            let response = service.respond(&request, None).await;
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
        let service = service(site);
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
        let service = service(site);
        check(&service, "GET /-/ready", 503, TEXT, "not ready\n");
        readiness.set_started();
        check(&service, "GET /-/ready", 200, TEXT, "ready\n");
        stopping.store(true, Ordering::Relaxed);
        check(&service, "GET /-/ready", 503, TEXT, "not ready\n");
        check(&service, "GET /-/healthy", 200, TEXT, "ok\n");
    }
}
