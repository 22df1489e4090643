//! The last look at a source of alerts: one answer serves all rollouts.

use std::sync::Arc;
use std::time::Duration;

use sluice_core::evidence::Poll;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// What a source of alerts last answered.
#[derive(Default)]
pub(crate) struct LastPoll(Mutex<Option<Answer>>);

/// An answer, when it was asked for and when it came.
struct Answer {
    asked: Instant,
    came: Instant,
    poll: Arc<Poll>,
}

impl LastPoll {
    /// All alerts, not older than `max_age`: callers that come in the meantime share one answer, a failure too.
    pub async fn poll(&self, max_age: Duration, ask: impl Future<Output = Poll>) -> Arc<Poll> {
        let wanted = Instant::now();
        // Held while asking, so that the others wait for the same answer instead of asking too.
        let mut last = self.0.lock().await;
        // One that came while the caller waited is for it too, however slow it was: of a source that hangs, each would
        // else wait for all before it.
        if let Some(answer) = &*last
            && (answer.came >= wanted || answer.asked.elapsed() < max_age)
        {
            return answer.poll.clone();
        }
        let asked = Instant::now();
        let poll = Arc::new(ask.await);
        *last = Some(Answer { asked, came: Instant::now(), poll: poll.clone() });
        poll
    }
}
