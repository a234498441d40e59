//! A task that several clients wait for.

use tokio::sync::watch;

/// A task whose result many wait for. It runs on if any of them, or all, disconnect: none of its work is done twice. Clones
/// wait for the same result.
#[derive(Clone, Debug)]
pub(crate) struct SharedTask<T>(watch::Receiver<Option<T>>);

impl<T: Clone + Send + Sync + 'static> SharedTask<T> {
    /// Starts a task in the current runtime.
    pub(crate) fn spawn(task: impl Future<Output = Option<T>> + Send + 'static) -> Self {
        let (sender, receiver) = watch::channel(None);
        tokio::spawn(async move {
            if let Some(result) = task.await {
                sender.send_replace(Some(result));
            }
        });
        Self(receiver)
    }

    /// The result. `None` if the task has none, or panicked.
    pub(crate) async fn result(mut self) -> Option<T> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::service::tests::block_on;

    #[test]
    fn task_runs_on_without_those_who_wait() {
        block_on(async {
            let (finish, finished) = oneshot::channel();
            let task = SharedTask::spawn(async { finished.await.ok() });
            let first = tokio::spawn(task.clone().result());
            tokio::task::yield_now().await;
            first.abort();
            assert!(first.await.is_err());
            finish.send(7).unwrap();
            assert_eq!(task.clone().result().await, Some(7));
            assert_eq!(task.result().await, Some(7));
        });
    }

    #[test]
    fn failed_task_has_no_result() {
        block_on(async {
            assert_eq!(SharedTask::<u8>::spawn(async { None }).result().await, None);
            assert_eq!(SharedTask::<u8>::spawn(async { panic!("on purpose") }).result().await, None);
        });
    }
}
