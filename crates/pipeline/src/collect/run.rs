//! The loop of a collector's thread.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use relay::{Message, PullError, Receiver};
use sink::StreamError;
use tracing::info;

use super::clock::{MergeClock, Time};
use super::collector::{Collector, HandleError};
use super::peer::Received;
use super::{CollectError, Shared};
use crate::Stop;

/// Maximum time to wait for a message before checking for a stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// Maximum messages to receive before the merge gets its turn.
const MAX_MESSAGES_PER_POLL: usize = 64;

/// How long receiving pauses before the merge is checked again.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a stopped collector keeps receiving messages that are in transit.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(200);

/// Without a message for this long, nothing more is in transit.
const DRAIN_POLL_TIMEOUT: Duration = Duration::from_millis(5);

/// Where the loop receives messages.
pub(super) trait Receive {
    /// A message that holds its bytes.
    type Message: Received;

    /// The next message, or `None` if none arrives within `timeout`.
    fn receive(&mut self, timeout: Duration) -> Result<Option<Self::Message>, PullError>;
}

impl Receive for Receiver {
    type Message = Message;

    fn receive(&mut self, timeout: Duration) -> Result<Option<Message>, PullError> {
        Receiver::receive(self, timeout)
    }
}

/// The loop and all that it owns. `R` receives, `W` is the output, `T` tells the time.
pub(super) struct CollectLoop<R: Receive, W, T> {
    pub(super) receiver: R,
    pub(super) collector: Collector<R::Message, W>,
    pub(super) clock: MergeClock<T>,
    pub(super) stop: Stop,
    pub(super) exit_on_end: bool,
    pub(super) shared: Arc<Shared>,
}

impl<R: Receive, W: Write, T: Time> CollectLoop<R, W, T> {
    /// See [`StartedCollect::run`](super::StartedCollect::run).
    pub(super) fn run(mut self) -> Result<(), CollectError> {
        let collected = self.collect().and_then(|()| self.drain());
        let now = self.clock.now();
        self.collector.settle(now.merge);
        match collected.and_then(|()| Ok(self.collector.finish(now.wall)?)) {
            Err(CollectError::Stream(StreamError::ReaderGone)) => {
                info!("the output's reader has gone: exiting");
                Ok(())
            }
            ended => ended,
        }
    }

    fn collect(&mut self) -> Result<(), CollectError> {
        while !self.stop.is_set() && !self.collector.is_full() {
            if self.collector.should_pause(self.clock.now().merge) {
                self.clock.time().sleep(PAUSE);
                self.write_ready()?;
                continue;
            }
            let received = self.receive(Duration::ZERO)?;
            self.write_ready()?;
            if received {
                continue;
            }
            // Before waiting, hand over what is buffered.
            self.output(Collector::flush)?;
            if self.exit_on_end && self.collector.has_ended(self.clock.now().wall) {
                info!("all sources have ended");
                return Ok(());
            }
            self.receive(self.poll_timeout())?;
            self.write_ready()?;
        }
        Ok(())
    }

    /// Receives messages, and waits for the first one up to `timeout`. Returns false if there was none.
    fn receive(&mut self, timeout: Duration) -> Result<bool, CollectError> {
        let mut timeout = timeout;
        for received in 0..MAX_MESSAGES_PER_POLL {
            let Some(message) = self.receiver.receive(timeout)? else { return Ok(received > 0) };
            self.handle_message(message)?;
            if self.collector.should_write(self.clock.now().merge) {
                break;
            }
            timeout = Duration::ZERO;
        }
        Ok(true)
    }

    fn handle_message(&mut self, message: R::Message) -> Result<(), CollectError> {
        let (now, peer) = (self.clock.now(), message.peer());
        match self.collector.handle_message(message, peer, now) {
            Ok(()) => Ok(()),
            Err(HandleError::Rejected(message, rejection)) => {
                self.shared.rejections.record(&rejection, &message, now.merge);
                Ok(())
            }
            Err(HandleError::Output(error)) => Err(error.into()),
        }
    }

    fn write_ready(&mut self) -> Result<(), CollectError> {
        let now = self.clock.now();
        self.output(|collector| collector.write_ready(now.merge))?;
        self.collector.forget_idle(now);
        Ok(())
    }

    /// Calls `write`, and tells the merge's clock how long it took.
    fn output(
        &mut self,
        write: impl FnOnce(&mut Collector<R::Message, W>) -> Result<(), StreamError>,
    ) -> Result<(), CollectError> {
        let started = self.clock.time().elapsed();
        let written = write(&mut self.collector);
        self.clock.exclude_stall(self.clock.time().elapsed().saturating_sub(started));
        Ok(written?)
    }

    /// How long to wait for a message before packets in the merge are due.
    fn poll_timeout(&self) -> Duration {
        let deadline = self.collector.next_deadline();
        deadline.map_or(POLL_TIMEOUT, |deadline| deadline.since(self.clock.now().merge).min(POLL_TIMEOUT))
    }

    /// Receives what is already in transit, and writes everything.
    fn drain(&mut self) -> Result<(), CollectError> {
        let deadline = self.clock.time().elapsed() + DRAIN_TIMEOUT;
        while !self.collector.is_full()
            && self.clock.time().elapsed() < deadline
            && self.receive(DRAIN_POLL_TIMEOUT)?
        {
            self.write_ready()?;
        }
        Ok(self.collector.write_all(self.clock.now().merge)?)
    }
}

#[cfg(test)]
mod tests;
