//! What a panic may stop: the work of one rollout, for a while, and never that of the others. A loop that all of them
//! depend on ends the process instead, so that the other replica takes over.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tracing::error;

/// Work on one rollout: `None` when it panicked. The panic's own message stands in the log before.
pub async fn contained<T>(what: &'static str, work: impl Future<Output = T>) -> Option<T> {
    // State that outlives the work stands behind locks whose entries are written whole.
    let answer = AssertUnwindSafe(work).catch_unwind().await.ok();
    if answer.is_none() {
        error!(what, "a panic was contained; please report it");
    }
    answer
}

/// A loop that the whole process depends on.
pub fn essential<T: Send + 'static>(
    what: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    tokio::spawn(async move {
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(answer) => answer,
            Err(_) => {
                error!(what, "the process ends after a panic; please report it");
                std::process::abort()
            }
        }
    })
}
