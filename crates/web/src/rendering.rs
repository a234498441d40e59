//! Renderings of the metrics, which scrapes share.
//!
//! A scrape gets a rendering that began after the scrape arrived, so it never misses what happened before. All scrapes that
//! arrive while a rendering runs share the next one: a scrape waits for at most two renderings, and any number of scrapes
//! costs one rendering at a time.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio::time::{self, Instant};
use tracing::warn;

use crate::Metrics;
use crate::connections::Connections;

/// Renderings in memory: one that is being made, and two that are being sent.
const MAX_RENDERINGS: usize = 3;

/// How long a reader may make no progress while others wait for its rendering to be released.
const STALLED: Duration = Duration::from_secs(1);

/// How long a scrape waits for readers that make progress: half of Prometheus' default scrape timeout.
const PATIENCE: Duration = Duration::from_secs(5);

/// Interval in which readers are looked at, and time for a closed connection to release its rendering.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// The compression level, of 9. 21 MB of flows and streams become 3.1 MB; with level 6, 1.9 MB in 2.4 times the time.
const LEVEL: u32 = 1;

/// The metrics at one time. Clones of the bytes share their memory.
pub(crate) struct Rendering {
    text: Bytes,
    gzip: OnceCell<Option<Bytes>>,
    permit: Arc<OwnedSemaphorePermit>,
}

/// A rendering that has not begun, or `None` in the cell if it panicked.
type Pending = OnceCell<Option<Arc<Rendering>>>;

/// Renders the metrics, on a thread of its own.
pub(crate) struct Renderer {
    metrics: Arc<Metrics>,
    connections: Arc<Connections>,
    /// What scrapes that arrive now will share.
    next: Mutex<Arc<Pending>>,
    turn: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

impl Renderer {
    /// Renders `metrics` for these connections.
    pub(crate) fn new(metrics: Arc<Metrics>, connections: Arc<Connections>) -> Self {
        Self {
            metrics,
            connections,
            next: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            room: Arc::new(Semaphore::new(MAX_RENDERINGS)),
        }
    }

    /// A rendering that begins after this call. `None` if rendering panicked.
    pub(crate) async fn render(&self) -> Option<Arc<Rendering>> {
        let pending = Arc::clone(&self.next.lock());
        // If the client whose request began this disconnects, another one takes over.
        pending.get_or_init(|| self.begin(&pending)).await.clone()
    }

    async fn begin(&self, pending: &Arc<Pending>) -> Option<Arc<Rendering>> {
        // The semaphores are never closed.
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        let permit = Arc::new(self.make_room().await?);
        {
            let mut next = self.next.lock();
            if Arc::ptr_eq(&next, pending) {
                *next = Arc::default();
            }
        }
        let metrics = Arc::clone(&self.metrics);
        let body_permit = Arc::clone(&permit);
        // If the client disconnects, the rendering runs on, with its turn and its permit.
        let rendered = task::spawn_blocking(move || {
            let body = Body { bytes: metrics.text(), _permit: body_permit };
            drop(turn);
            body
        });
        let text = Bytes::from_owner(rendered.await.ok()?);
        Some(Arc::new(Rendering { text, gzip: OnceCell::new(), permit }))
    }

    /// Waits until there are fewer renderings than allowed. Readers that stall lose their connections in favor of the next
    /// scrape, and after a while the slowest one.
    async fn make_room(&self) -> Option<OwnedSemaphorePermit> {
        let begin = Instant::now();
        loop {
            let acquired = time::timeout(CHECK_INTERVAL, Arc::clone(&self.room).acquire_owned()).await;
            if let Ok(permit) = acquired {
                return permit.ok();
            }
            let now = Instant::now();
            let stalled_since = if now - begin < PATIENCE { now.checked_sub(STALLED) } else { Some(now) };
            if let Some(time) = stalled_since {
                self.connections.evict_reader_stalled_since(time);
            }
        }
    }
}

impl Rendering {
    /// The text.
    pub(crate) fn text(&self) -> Bytes {
        self.text.clone()
    }

    /// The text, compressed once for all. `None` if compressing it failed.
    pub(crate) async fn gzip(&self) -> Option<Bytes> {
        let compressed = self.gzip.get_or_init(|| async {
            let text = self.text.clone();
            let bytes = match task::spawn_blocking(move || compress(&text)).await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(error)) => {
                    warn!(%error, "cannot compress the metrics");
                    return None;
                }
                Err(_) => return None,
            };
            Some(Bytes::from_owner(Body { bytes, _permit: Arc::clone(&self.permit) }))
        });
        compressed.await.clone()
    }
}

/// A text or its compressed form. hyper drops it when the last byte is written to the socket.
struct Body<T> {
    bytes: T,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Body<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

fn compress(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::new(LEVEL));
    encoder.write_all(text)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;

    use flate2::read::GzDecoder;
    use prometheus::Registry;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::service::tests::{block_on, block_on_paused};

    /// A renderer whose metrics are the number of the rendering. Each rendering waits for a message.
    fn numbered() -> (Arc<Renderer>, mpsc::SyncSender<()>, Arc<AtomicU64>) {
        let (allow, allowed) = mpsc::sync_channel(100);
        let allowed = Mutex::new(allowed);
        let begun = Arc::<AtomicU64>::default();
        let metrics = Metrics::new(Registry::new(), {
            let begun = Arc::clone(&begun);
            move |out| {
                let number = begun.fetch_add(1, Ordering::Relaxed) + 1;
                allowed.lock().recv().unwrap();
                out.sample("x_total", "", number);
            }
        });
        (Arc::new(Renderer::new(Arc::new(metrics), Connections::new(1))), allow, begun)
    }

    fn spawn(renderer: &Arc<Renderer>) -> JoinHandle<Bytes> {
        let renderer = Arc::clone(renderer);
        tokio::spawn(async move { renderer.render().await.unwrap().text() })
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            task::yield_now().await;
        }
    }

    #[test]
    fn scrapes_during_a_rendering_share_the_next_one() {
        block_on(async {
            let (renderer, allow, begun) = numbered();
            let first = spawn(&renderer);
            until(|| begun.load(Ordering::Relaxed) == 1).await;
            let later: Vec<_> = (0..50).map(|_| spawn(&renderer)).collect();
            // All of them have asked.
            task::yield_now().await;
            (0..2).for_each(|_| allow.send(()).unwrap());
            assert_eq!(first.await.unwrap(), "x_total 1\n");
            let texts = futures(later).await;
            assert!(texts.iter().all(|text| text == "x_total 2\n"), "{texts:?}");
            assert!(texts.windows(2).all(|pair| pair[0].as_ptr() == pair[1].as_ptr()), "copied");
            assert_eq!(begun.load(Ordering::Relaxed), 2);
        });
    }

    async fn futures(tasks: Vec<JoinHandle<Bytes>>) -> Vec<Bytes> {
        let mut texts = Vec::new();
        for task in tasks {
            texts.push(task.await.unwrap());
        }
        texts
    }

    #[test]
    fn rendering_goes_on_if_the_first_client_disconnects() {
        block_on(async {
            let (renderer, allow, begun) = numbered();
            let first = spawn(&renderer);
            until(|| begun.load(Ordering::Relaxed) == 1).await;
            let [second, third] = [spawn(&renderer), spawn(&renderer)];
            task::yield_now().await;
            first.abort();
            second.abort();
            (0..3).for_each(|_| allow.send(()).unwrap());
            assert_eq!(third.await.unwrap(), "x_total 2\n");
        });
    }

    #[test]
    fn renderings_in_memory_are_bounded() {
        block_on_paused(async {
            let (renderer, allow, _) = numbered();
            (0..10).for_each(|_| allow.send(()).unwrap());
            let mut held = Vec::new();
            for _ in 0..MAX_RENDERINGS {
                held.push(spawn(&renderer).await.unwrap());
            }
            let next = renderer.render();
            assert!(time::timeout(2 * PATIENCE, next).await.is_err());
            held.pop();
            assert_eq!(spawn(&renderer).await.unwrap(), "x_total 4\n");
        });
    }

    #[test]
    fn compressed_text_is_the_text() {
        block_on(async {
            let metrics = Metrics::new(Registry::new(), |out| {
                (0..1000).for_each(|number| out.sample(&format!("x_{number}"), "", number));
            });
            let renderer = Renderer::new(Arc::new(metrics), Connections::new(1));
            let rendering = renderer.render().await.unwrap();
            let compressed = rendering.gzip().await.unwrap();
            assert!(compressed.len() < rendering.text().len(), "{}", compressed.len());
            assert_eq!(compressed.as_ptr(), rendering.gzip().await.unwrap().as_ptr());
            let mut text = String::new();
            GzDecoder::new(&*compressed).read_to_string(&mut text).unwrap();
            assert_eq!(text, rendering.text());
        });
    }
}
