//! Events for people. They are written one after another, beside the passes: no pass waits for one, least of all the
//! pass that returns traffic, and while many go forward they let these go first for a moment. What waits is written before
//! the process ends; what can't be is logged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event as Wire, EventType, Recorder, Reporter};
use kube::{Client, Resource, ResourceExt};
use sluice_core::action::{Event, EventKind};
use sluice_core::api::ProgressiveRollout;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::client::{FORWARD_LIMIT, bounded};

/// Longest note of an event in bytes, as the API server has it.
const NOTE_LIMIT: usize = 1024;
/// Events that may wait; an API server that takes none must not fill the memory.
const WAITING_LIMIT: usize = 4096;
/// How long the end of the process waits for events.
const FINISH_LIMIT: Duration = Duration::from_secs(5);

/// An event lets passes that go forward go first for at most so long.
const YIELD_LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked whether they are done.
const YIELD_LOOK: Duration = Duration::from_millis(50);

/// An event and what it is about.
struct Told {
    reference: ObjectReference,
    event: Event,
    at: Instant,
}

/// Events that wait to be written.
pub struct Events {
    waiting: Sender<Told>,
    stop: CancellationToken,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Events {
    /// Starts the writer; `identity` is the name of this process in events, `forward` has the places of the passes that
    /// go forward.
    pub fn start(client: Client, identity: String, forward: Arc<Semaphore>) -> Self {
        let (waiting, events) = mpsc::channel(WAITING_LIMIT);
        let stop = CancellationToken::new();
        let reporter = Reporter { controller: "sluice".to_owned(), instance: Some(identity) };
        let writer = tokio::spawn(write_all(client, reporter, events, forward, stop.clone()));
        Self { waiting, stop, writer: Mutex::new(Some(writer)) }
    }

    /// Tells of a rollout; returns at once.
    pub fn tell(&self, rollout: &ProgressiveRollout, events: &[Event]) {
        for event in events {
            info!(rollout = %rollout.name_any(), reason = event.reason, message = %event.message, "event");
            let told = Told { reference: rollout.object_ref(&()), event: event.clone(), at: Instant::now() };
            if let Err(error) = self.waiting.try_send(told) {
                warn!(reason = event.reason, %error, "an event was not written");
            }
        }
    }

    /// Waits, for a while, until everything is written that was told so far. What is told later is only logged.
    pub async fn finish(&self) {
        self.stop.cancel();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && let Err(cause) = writer.await
        {
            error!(%cause, "the writer of events ended badly");
        }
    }
}

async fn write_all(
    client: Client,
    reporter: Reporter,
    mut events: Receiver<Told>,
    forward: Arc<Semaphore>,
    stop: CancellationToken,
) {
    loop {
        let told = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            told = events.recv() => told,
        };
        let Some(told) = told else {
            return;
        };
        while forward.available_permits() == 0 && told.at.elapsed() < YIELD_LIMIT && !stop.is_cancelled() {
            tokio::time::sleep(YIELD_LOOK).await;
        }
        write(&client, &reporter, &told, FORWARD_LIMIT).await;
    }
    events.close();
    let end = Instant::now() + FINISH_LIMIT;
    while let Some(told) = events.recv().await {
        let left = end.saturating_duration_since(Instant::now());
        write(&client, &reporter, &told, left.min(FORWARD_LIMIT)).await;
    }
}

async fn write(client: &Client, reporter: &Reporter, told: &Told, limit: Duration) {
    let Told { reference, event, .. } = told;
    let end = event.message.floor_char_boundary(NOTE_LIMIT);
    let wire = Wire {
        type_: match event.kind {
            EventKind::Normal => EventType::Normal,
            EventKind::Warning => EventType::Warning,
        },
        reason: event.reason.to_owned(),
        note: Some(event.message[..end].to_owned()),
        action: event.reason.to_owned(),
        secondary: None,
    };
    // One for each event: a recorder that lives on counts a second event of the same reason into the first one's series,
    // and its message, with other numbers, is lost.
    let recorder = Recorder::new(client.clone(), reporter.clone());
    if let Err(error) = bounded("publish event", limit, recorder.publish(&wire, reference)).await {
        warn!(rollout = ?reference.name, reason = event.reason, %error, "an event was not written");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::{Json, Router, routing::post};
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::api_server;

    fn rollout() -> ProgressiveRollout {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u"},
            "spec": {"workloadRef": {"name": "web"}, "routing": {"service": "web", "routes": [{"name": "web"}]}},
        }))
        .unwrap()
    }

    fn event(reason: &'static str) -> Event {
        Event { kind: EventKind::Normal, reason, message: "told".to_owned() }
    }

    /// An API server that takes so long for each event, and what it got.
    async fn server(pause: Duration) -> (Client, Arc<Mutex<Vec<String>>>) {
        let written: Arc<Mutex<Vec<String>>> = Arc::default();
        let taken = written.clone();
        let take = post(move |Json(event): Json<Value>| async move {
            tokio::time::sleep(pause).await;
            taken.lock().unwrap().push(event["reason"].as_str().unwrap_or_default().to_owned());
            Json(event)
        });
        (api_server(Router::new().fallback(take)).await.normal, written)
    }

    #[tokio::test]
    async fn who_tells_does_not_wait_and_the_end_of_the_process_does() {
        let (client, written) = server(Duration::from_millis(100)).await;
        let events = Events::start(client, "me".to_owned(), Arc::new(Semaphore::new(1)));
        let begin = Instant::now();
        events.tell(&rollout(), &[event("Held"), event("RunStarted"), event("Aborted")]);
        assert!(begin.elapsed() < Duration::from_millis(90));
        events.finish().await;
        assert_eq!(*written.lock().unwrap(), ["Held", "RunStarted", "Aborted"], "in order, none lost");
        events.tell(&rollout(), &[event("TooLate")]);
        events.finish().await;
        assert_eq!(written.lock().unwrap().len(), 3);
    }

    #[tokio::test]
    async fn an_event_lets_passes_go_first_but_not_for_ever() {
        let (client, written) = server(Duration::ZERO).await;
        let busy = Arc::new(Semaphore::new(0));
        let events = Events::start(client, "me".to_owned(), busy);
        let begin = Instant::now();
        events.tell(&rollout(), &[event("Held")]);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(written.lock().unwrap().is_empty());
        while written.lock().unwrap().is_empty() {
            assert!(begin.elapsed() < YIELD_LIMIT + Duration::from_secs(2));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn an_api_server_that_takes_none_does_not_keep_the_process_alive() {
        let (client, written) = server(Duration::from_secs(60)).await;
        let events = Events::start(client, "me".to_owned(), Arc::new(Semaphore::new(1)));
        let told: Vec<Event> = std::iter::repeat_n(event("Held"), 20).collect();
        events.tell(&rollout(), &told);
        let begin = Instant::now();
        events.finish().await;
        assert!(begin.elapsed() < FINISH_LIMIT + FORWARD_LIMIT + Duration::from_secs(1));
        assert!(written.lock().unwrap().is_empty());
    }
}
