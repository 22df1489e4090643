//! Reads the alerts of Alertmanager's API v2, from every peer.
//!
//! One unfiltered answer serves all rollouts and is matched in the core: suppressed alerts are asked for too, or
//! a silence made during a rollout would look like a problem solved. One peer that answers is enough, since
//! Prometheus sends its alerts to all of them; an alert that any peer knows counts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use jiff::Timestamp;
use reqwest::Client;
use serde::de::DeserializeOwned;
use sluice_core::{
    api::ProviderConfig,
    evidence::{Alert, Poll, Silence, SourceState},
};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use super::{CONCURRENCY, Failure, Heard, body, last::LastPoll, place};

/// Every alert, suppressed ones included. The states are spelled out: defaults of a server may change.
const ALERTS: &str = "api/v2/alerts?active=true&silenced=true&inhibited=true&unprocessed=true";
const SILENCES: &str = "api/v2/silences";

/// An Alertmanager and its peers.
pub struct Alertmanager {
    client: Client,
    peers: Vec<String>,
    places: Semaphore,
    heard: Heard,
    last: LastPoll,
}

impl std::fmt::Debug for Alertmanager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alertmanager").field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl Alertmanager {
    pub(super) fn new(client: Client, config: &ProviderConfig, heard: Heard) -> Self {
        let peers: BTreeSet<String> = std::iter::once(&config.url)
            .chain(&config.peers)
            .map(|url| url.trim_end_matches('/').to_string())
            .collect();
        Self {
            client,
            peers: peers.into_iter().collect(),
            places: Semaphore::new(CONCURRENCY),
            heard,
            last: LastPoll::default(),
        }
    }

    /// Addresses of the peers, for messages.
    pub fn peers(&self) -> &[String] {
        &self.peers
    }

    /// All alerts, not older than `max_age`: callers that ask in the meantime share one answer, a failure too.
    pub async fn poll(&self, max_age: Duration) -> Arc<Poll> {
        self.last.poll(max_age, async { self.ask(Timestamp::now()).await }).await
    }

    async fn ask(&self, at: Timestamp) -> Poll {
        let answers = join_all(self.peers.iter().map(|peer| self.get::<Vec<Alert>>(peer, ALERTS))).await;
        let (answers, failures): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        let failures: Vec<String> = failures
            .into_iter()
            .filter_map(Result::err)
            .map(|failure| failure.message().to_string())
            .collect();
        if answers.is_empty() {
            return Poll { at, answer: Err(failures.join("; ")), silences: Vec::new() };
        }
        if !failures.is_empty() {
            warn!(failures = failures.join("; "), "some peers of the Alertmanager do not answer");
        }
        let alerts = union(answers.into_iter().flatten().flatten());
        let silences = self.silences(&alerts).await;
        Poll { at, answer: Ok(alerts), silences }
    }

    /// The silences that alerts name, to tell who made them. Without them the alerts still count as silenced.
    async fn silences(&self, alerts: &[Alert]) -> Vec<Silence> {
        let named: BTreeSet<&str> =
            alerts.iter().flat_map(|alert| alert.status.silenced_by.iter().map(String::as_str)).collect();
        if named.is_empty() {
            return Vec::new();
        }
        let answers = join_all(self.peers.iter().map(|peer| self.get::<Vec<Silence>>(peer, SILENCES))).await;
        let mut silences = BTreeMap::new();
        for answer in answers {
            match answer {
                Ok(list) => silences.extend(list.into_iter().map(|silence| (silence.id.clone(), silence))),
                Err(failure) => debug!(failure = failure.message(), "silences can't be read"),
            }
        }
        silences.into_values().filter(|silence| named.contains(silence.id.as_str())).collect()
    }

    async fn get<T: DeserializeOwned>(&self, peer: &str, path: &str) -> Result<T, Failure> {
        let result = self.fetch(peer, path).await;
        let label = match &result {
            Ok(_) => "ok",
            Err(failure) => failure.label(),
        };
        (self.heard)("alertmanager", label);
        result
    }

    async fn fetch<T: DeserializeOwned>(&self, peer: &str, path: &str) -> Result<T, Failure> {
        let _place = place(&self.places, peer).await?;
        let request = self.client.get(format!("{peer}/{path}"));
        let response = request.send().await.map_err(|error| Failure::of_request(peer, &error))?;
        if let Some(failure) = Failure::of_status(peer, &response) {
            return Err(failure);
        }
        let body = body(peer, response).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Failure::Down(format!("{peer}: the answer is not that of an Alertmanager: {error}"))
        })
    }
}

/// One alert per fingerprint. Peers learn of silences and alerts at different moments: the one that says it fires
/// is believed, and the earliest onset, which does not change when a peer comes or goes late.
fn union(alerts: impl Iterator<Item = Alert>) -> Vec<Alert> {
    let mut by_fingerprint: BTreeMap<String, Alert> = BTreeMap::new();
    for alert in alerts {
        match by_fingerprint.get_mut(&alert.fingerprint) {
            None => {
                by_fingerprint.insert(alert.fingerprint.clone(), alert);
            }
            Some(known) => {
                let starts_at = known.starts_at.min(alert.starts_at);
                if rank(&alert) < rank(known) {
                    *known = alert;
                }
                known.starts_at = starts_at;
            }
        }
    }
    by_fingerprint.into_values().collect()
}

fn rank(alert: &Alert) -> u8 {
    match alert.status.state {
        SourceState::Active => 0,
        SourceState::Unprocessed => 1,
        SourceState::Suppressed => 2,
    }
}

#[cfg(test)]
mod tests {
    //! Servers that answer as told: for the wire format, status codes and the union of peers only.

    use super::*;
    use crate::{
        auth::SecretData,
        testing::{providers, serve},
    };
    use axum::{Router, http::StatusCode, http::Uri, routing::get};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// An answer of Alertmanager 0.28, shortened.
    fn alert(fingerprint: &str, starts: &str, state: &str, silenced_by: &str) -> String {
        format!(
            r#"{{"annotations":{{"summary":"s"}},"endsAt":"2026-01-01T00:10:00.000Z","fingerprint":"{fingerprint}",
            "receivers":[{{"name":"null"}}],"startsAt":"{starts}","updatedAt":"2026-01-01T00:06:00.000Z",
            "status":{{"inhibitedBy":[],"mutedBy":[],"silencedBy":[{silenced_by}],"state":"{state}"}},
            "generatorURL":"http://p/graph","labels":{{"alertname":"HighErrors","service":"web"}}}}"#
        )
    }

    async fn peer(alerts: Vec<String>) -> String {
        let alerts = format!("[{}]", alerts.join(","));
        let app = Router::new()
            .route(
                "/api/v2/alerts",
                get(move |uri: Uri| async move {
                    let asked = uri.query().unwrap_or_default();
                    assert_eq!(asked, "active=true&silenced=true&inhibited=true&unprocessed=true");
                    alerts
                }),
            )
            .route(
                "/api/v2/silences",
                get(|| async {
                    r#"[{"id":"s1","createdBy":"kim","comment":"c","startsAt":"2026-01-01T00:02:00.000Z",
                     "endsAt":"2026-01-01T01:00:00.000Z","updatedAt":"2026-01-01T00:02:00.000Z",
                     "matchers":[],"status":{"state":"active"}},
                    {"id":"s2","createdBy":"lee","startsAt":"2026-01-01T00:02:00.000Z"}]"#
                }),
            );
        serve(app).await
    }

    fn client(mut urls: Vec<String>) -> Arc<Alertmanager> {
        let url = urls.remove(0);
        let config = ProviderConfig { url, peers: urls, ..Default::default() };
        providers().alertmanager("ns", &config, &SecretData::default()).expect("a client")
    }

    #[tokio::test]
    async fn alerts_and_who_silenced_them_are_read() {
        let url = peer(vec![
            alert("a", "2026-01-01T00:05:00.123Z", "active", ""),
            alert("b", "2026-01-01T00:05:00.123Z", "suppressed", r#""s1""#),
        ])
        .await;
        let poll = client(vec![url]).poll(Duration::ZERO).await;
        let alerts = poll.answer.as_ref().expect("an answer");
        assert_eq!(alerts.len(), 2);
        assert_eq!(alerts[0].labels["alertname"], "HighErrors");
        assert_eq!(alerts[0].starts_at, "2026-01-01T00:05:00.123Z".parse().expect("a time"));
        assert_eq!(alerts[1].status.state, SourceState::Suppressed);
        assert_eq!(poll.silences.len(), 1, "only silences that an alert names");
        assert_eq!(poll.silences[0].created_by, "kim");
    }

    #[tokio::test]
    async fn peers_are_joined_and_the_one_that_says_it_fires_is_believed() {
        let one = peer(vec![
            alert("a", "2026-01-01T00:05:00Z", "suppressed", r#""s1""#),
            alert("b", "2026-01-01T00:05:00Z", "active", ""),
        ])
        .await;
        let two = peer(vec![
            alert("a", "2026-01-01T00:06:00Z", "active", ""),
            alert("c", "2026-01-01T00:05:00Z", "unprocessed", ""),
        ])
        .await;
        let poll = client(vec![one, "http://127.0.0.1:9".into(), two]).poll(Duration::ZERO).await;
        let alerts = poll.answer.as_ref().expect("two of three peers answer");
        let names: Vec<&str> = alerts.iter().map(|a| a.fingerprint.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(alerts[0].status.state, SourceState::Active);
        assert_eq!(alerts[0].starts_at, "2026-01-01T00:05:00Z".parse().expect("a time"));
    }

    #[tokio::test]
    async fn no_answer_is_an_answer_in_words() {
        let broken = serve(Router::new().fallback(|| async { "{}" })).await;
        let angry =
            serve(Router::new().fallback(|| async { (StatusCode::INTERNAL_SERVER_ERROR, "no") })).await;
        let odd = peer(vec![alert("a", "2026-01-01T00:05:00Z", "dreaming", "")]).await;
        let poll = client(vec![broken, angry, odd, "http://127.0.0.1:9".into()]).poll(Duration::ZERO).await;
        let why = poll.answer.as_ref().expect_err("nobody answers");
        for says in ["not that of an Alertmanager", "500", "dreaming", "refused"] {
            assert!(why.contains(says), "{says}: {why}");
        }
    }

    #[tokio::test]
    async fn callers_share_one_answer() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let app = Router::new().fallback(move || {
            count.fetch_add(1, Ordering::SeqCst);
            async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                "[]"
            }
        });
        let alertmanager = client(vec![serve(app).await]);
        let polls = join_all((0..20).map(|_| alertmanager.poll(Duration::from_secs(5)))).await;
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        assert!(polls.iter().all(|poll| Arc::ptr_eq(poll, &polls[0]) && poll.answer == Ok(vec![])));
        alertmanager.poll(Duration::ZERO).await;
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        // An answer that takes longer than it may be old is shared by those who waited for it.
        join_all((0..20).map(|_| alertmanager.poll(Duration::from_millis(10)))).await;
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }
}
