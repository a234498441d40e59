//! Renderings of the metrics, which scrapes share.
//!
//! A scrape gets a rendering that began after the scrape arrived, so it never misses what happened before. All scrapes that
//! arrive while a rendering runs share the next one: a scrape waits for at most two renderings, and any number of scrapes
//! costs one rendering at a time. Scrapes whose clients disconnect change nothing about that: renderings and compressions
//! run on, so that none is done twice.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::body::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;
use tokio::time::{self, Instant};
use tracing::warn;

use crate::Metrics;
use crate::connections::Connections;
use crate::shared_task::SharedTask;

/// Renderings in memory: one that is being made, and two that are being sent.
pub(crate) const MAX_RENDERINGS: usize = 3;

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
    gzip: OnceLock<SharedTask<Bytes>>,
    permit: Arc<OwnedSemaphorePermit>,
}

/// Renders the metrics, on a thread of its own.
pub(crate) struct Renderer {
    metrics: Arc<Metrics>,
    connections: Arc<Connections>,
    /// What scrapes that arrive now will share: a rendering that has not begun, if one of them has asked for it.
    next: Mutex<Option<SharedTask<Arc<Rendering>>>>,
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
    pub(crate) async fn render(self: &Arc<Self>) -> Option<Arc<Rendering>> {
        let begin = || SharedTask::spawn(Arc::clone(self).begin());
        let pending = self.next.lock().get_or_insert_with(begin).clone();
        pending.result().await
    }

    /// Waits for the rendering that runs, and for room; then renders.
    async fn begin(self: Arc<Self>) -> Option<Arc<Rendering>> {
        // The semaphores are never closed.
        let turn = Arc::clone(&self.turn).acquire_owned().await.ok()?;
        let permit = Arc::new(self.make_room().await?);
        // Scrapes that arrive from here on share another one.
        *self.next.lock() = None;
        let metrics = Arc::clone(&self.metrics);
        let body_permit = Arc::clone(&permit);
        let rendered = task::spawn_blocking(move || {
            let body = Body { bytes: metrics.text(), _permit: body_permit };
            drop(turn);
            body
        });
        let text = Bytes::from_owner(rendered.await.ok()?);
        Some(Arc::new(Rendering { text, gzip: OnceLock::new(), permit }))
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
        let begin = || SharedTask::spawn(compressed(self.text.clone(), Arc::clone(&self.permit)));
        let compressed = self.gzip.get_or_init(begin).clone();
        compressed.result().await
    }
}

async fn compressed(text: Bytes, permit: Arc<OwnedSemaphorePermit>) -> Option<Bytes> {
    let bytes = match task::spawn_blocking(move || compress(&text)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => {
            warn!(%error, "cannot compress the metrics");
            return None;
        }
        Err(_) => return None,
    };
    Some(Bytes::from_owner(Body { bytes, _permit: permit }))
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
    use crate::client_address::ClientAddress;
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

    /// As many renderings as there may be in memory. More are allowed to be made.
    async fn hold_all(renderer: &Arc<Renderer>, allow: &mpsc::SyncSender<()>) -> Vec<Bytes> {
        (0..10).for_each(|_| allow.send(()).unwrap());
        let mut held = Vec::new();
        // One after another: at once, they would share one.
        for _ in 0..MAX_RENDERINGS {
            held.push(spawn(renderer).await.unwrap());
        }
        held
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
    fn rendering_is_not_discarded_when_the_client_that_began_it_disconnects() {
        block_on(async {
            let (renderer, allow, begun) = numbered();
            let first = spawn(&renderer);
            until(|| begun.load(Ordering::Relaxed) == 1).await;
            let second = spawn(&renderer);
            let later: Vec<_> = (0..30).map(|_| spawn(&renderer)).collect();
            task::yield_now().await;
            allow.send(()).unwrap();
            first.await.unwrap();
            until(|| begun.load(Ordering::Relaxed) == 2).await;
            second.abort();
            _ = second.await;
            (0..2).for_each(|_| allow.send(()).unwrap());
            let texts = futures(later).await;
            assert!(texts.iter().all(|text| text == "x_total 2\n"), "{texts:?}");
            assert_eq!(begun.load(Ordering::Relaxed), 2);
        });
    }

    #[test]
    fn disconnecting_clients_do_not_prolong_the_patience_with_readers() {
        block_on_paused(async {
            let (renderer, allow, _) = numbered();
            let _held = hold_all(&renderer, &allow).await;
            // A reader that makes progress.
            let reader = renderer.connections.add(ClientAddress::LOCAL, Instant::now());
            reader.activity.set_sending(Instant::now());
            let mut waiting = spawn(&renderer);
            let start = Instant::now();
            while start.elapsed() < 2 * PATIENCE && renderer.connections.evicted() == 0 {
                time::sleep(STALLED / 2).await;
                reader.activity.set_progress(Instant::now());
                // The client that has waited the longest disconnects.
                waiting.abort();
                waiting = spawn(&renderer);
            }
            assert_eq!(renderer.connections.evicted(), 1);
        });
    }

    #[test]
    fn text_is_compressed_once_even_if_the_first_client_disconnects() {
        // What is to be done on the only thread for it is done in order.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (release, released) = mpsc::channel::<()>();
        runtime.block_on(async {
            let metrics = Metrics::new(Registry::new(), |out| out.sample("x_total", "", 1));
            let renderer = Arc::new(Renderer::new(Arc::new(metrics), Connections::new(1)));
            let rendering = renderer.render().await.unwrap();
            let gzip = || {
                let rendering = Arc::clone(&rendering);
                tokio::spawn(async move { rendering.gzip().await })
            };
            let (begin, begun) = mpsc::channel::<()>();
            task::spawn_blocking(move || begun.recv());
            let first = gzip();
            // It has asked for the compression, and waits.
            for _ in 0..10 {
                task::yield_now().await;
            }
            task::spawn_blocking(move || released.recv());
            first.abort();
            _ = first.await;
            let second = gzip();
            task::yield_now().await;
            begin.send(()).unwrap();
            // A second compression would not begin before the thread is released.
            let compressed = time::timeout(Duration::from_secs(5), second).await;
            drop(release);
            assert!(compressed.expect("compressed twice").unwrap().is_some());
        });
    }

    #[test]
    fn renderings_in_memory_are_bounded() {
        block_on_paused(async {
            let (renderer, allow, _) = numbered();
            let mut held = hold_all(&renderer, &allow).await;
            let mut next = spawn(&renderer);
            assert!(time::timeout(2 * PATIENCE, &mut next).await.is_err());
            held.pop();
            assert_eq!(next.await.unwrap(), "x_total 4\n");
        });
    }

    #[test]
    fn compressed_text_is_the_text() {
        block_on(async {
            let metrics = Metrics::new(Registry::new(), |out| {
                (0..1000).for_each(|number| out.sample(&format!("x_{number}"), "", number));
            });
            let renderer = Arc::new(Renderer::new(Arc::new(metrics), Connections::new(1)));
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
