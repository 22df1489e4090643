//! Constant client load through the router, open loop: requests leave on schedule whether or not earlier ones were
//! answered, so a slow server cannot hide failures by slowing its clients. What it counts is the truth that the
//! reports use; the controller's own numbers are never taken for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// A request that takes longer counts as failed: `timeout`.
const LIMIT: Duration = Duration::from_secs(5);

/// Where the load goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// Host and port to connect to, such as [`crate::cluster::ADDRESSES`]`.gateway`.
    pub address: String,
    /// The Host header.
    pub host: String,
    pub path: String,
    pub requests_per_second: u32,
}

impl Target {
    /// A load through the cluster's Gateway for one hostname.
    pub fn gateway(host: &str, requests_per_second: u32) -> Self {
        Self {
            address: crate::cluster::ADDRESSES.gateway.into(),
            host: host.into(),
            path: "/".into(),
            requests_per_second,
        }
    }
}

/// Counts of one second, by the time at which the requests were sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Second {
    pub requests: u64,
    pub failed: u64,
    /// Requests by the image that answered; none for those that no pod answered.
    pub by_image: BTreeMap<String, u64>,
}

/// What has been counted so far, or between two moments ([`Snapshot::since`]). Requests under way are not in it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub requests: u64,
    /// Every request that got no answer, or one with status 500 and above.
    pub failed: u64,
    /// All answers other than 200.
    pub non_200: u64,
    pub by_status: BTreeMap<u16, u64>,
    /// Requests without an answer, by what happened: `connect`, `timeout`, `broken`.
    pub by_transport_error: BTreeMap<String, u64>,
    /// Answers by the image of the pod that gave them (header `x-image`).
    pub by_image: BTreeMap<String, u64>,
    /// Failed answers by the image of the pod that gave them; router errors are under "".
    pub failed_by_image: BTreeMap<String, u64>,
    /// When the last request that an image answered was due to be sent.
    pub last_by_image: BTreeMap<String, Instant>,
    /// Microseconds from the scheduled time of a request to its whole answer.
    pub latency: Histogram<u64>,
    /// Second by second since the load began; [`Snapshot::since`] keeps the seconds of its span.
    pub seconds: Vec<Second>,
    /// Time since the load began.
    pub at: Duration,
}

impl Snapshot {
    fn new() -> Self {
        Self {
            requests: 0,
            failed: 0,
            non_200: 0,
            by_status: BTreeMap::new(),
            by_transport_error: BTreeMap::new(),
            by_image: BTreeMap::new(),
            failed_by_image: BTreeMap::new(),
            last_by_image: BTreeMap::new(),
            latency: histogram(),
            seconds: Vec::new(),
            at: Duration::ZERO,
        }
    }

    /// What was counted after the earlier snapshot of the same load.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut latency = self.latency.clone();
        // Both have the same bounds and the earlier one is part of this one: nothing can be missing.
        let _ = latency.subtract(&earlier.latency);
        Self {
            requests: self.requests - earlier.requests,
            failed: self.failed - earlier.failed,
            non_200: self.non_200 - earlier.non_200,
            by_status: difference(&self.by_status, &earlier.by_status),
            by_transport_error: difference(&self.by_transport_error, &earlier.by_transport_error),
            by_image: difference(&self.by_image, &earlier.by_image),
            failed_by_image: difference(&self.failed_by_image, &earlier.failed_by_image),
            last_by_image: self.last_by_image.clone(),
            latency,
            seconds: self.seconds.iter().skip(earlier.at.as_secs() as usize).cloned().collect(),
            at: self.at - earlier.at,
        }
    }

    /// Percent of the answered requests that pods of this image answered.
    pub fn share_percent(&self, image: &str) -> f64 {
        let all: u64 = self.by_image.values().sum();
        if all == 0 {
            0.0
        } else {
            100.0 * self.by_image.get(image).copied().unwrap_or(0) as f64 / all as f64
        }
    }

    /// A quantile of the latency in milliseconds; `q` from 0 to 1.
    pub fn latency_ms(&self, q: f64) -> f64 {
        self.latency.value_at_quantile(q) as f64 / 1000.0
    }

    /// One line for people: what failed and how.
    pub fn failures(&self) -> String {
        let statuses = self.by_status.iter().filter(|(s, _)| **s != 200).map(|(s, n)| format!("{n} x {s}"));
        let broken = self.by_transport_error.iter().map(|(e, n)| format!("{n} x {e}"));
        let all: Vec<String> = statuses.chain(broken).collect();
        if all.is_empty() { "none".into() } else { all.join(", ") }
    }
}

fn difference<K: Ord + Clone>(now: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let left = now.iter().map(|(k, n)| (k.clone(), n - earlier.get(k).copied().unwrap_or(0)));
    left.filter(|(_, n)| *n > 0).collect()
}

fn histogram() -> Histogram<u64> {
    // Three digits up to a minute: the bounds are constants that the constructor accepts.
    Histogram::new_with_bounds(1, 60_000_000, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// A running load; it ends when it is dropped.
pub struct Load {
    started: Instant,
    counts: Arc<Mutex<Snapshot>>,
    task: JoinHandle<()>,
    under_way: TaskTracker,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    /// Begins to send.
    pub fn start(target: Target) -> Self {
        let started = Instant::now();
        let counts = Arc::new(Mutex::new(Snapshot::new()));
        let under_way = TaskTracker::new();
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(2)));
        let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .build(connector);
        let task = tokio::spawn(send(target, client, started, counts.clone(), under_way.clone()));
        Self { started, counts, task, under_way }
    }

    /// What has been counted so far.
    pub fn snapshot(&self) -> Snapshot {
        let mut now = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        now.at = self.started.elapsed();
        now
    }

    /// Sends no more, waits for the answers that are due and returns all counts.
    pub async fn stop(self) -> Snapshot {
        self.task.abort();
        self.under_way.close();
        let _ = tokio::time::timeout(LIMIT + Duration::from_secs(1), self.under_way.wait()).await;
        self.snapshot()
    }
}

async fn send(
    target: Target,
    client: Client<HttpConnector, Empty<Bytes>>,
    started: Instant,
    counts: Arc<Mutex<Snapshot>>,
    under_way: TaskTracker,
) {
    let uri = format!("http://{}{}", target.address, target.path);
    let gap = Duration::from_secs(1) / target.requests_per_second.max(1);
    for number in 0u32.. {
        // Scheduled from the start, not from the last request: a late timer does not lower the rate.
        let due = started + gap * number;
        tokio::time::sleep_until(due.into()).await;
        let request = Request::get(&uri).header("host", &target.host).body(Empty::new());
        let Ok(request) = request else { return };
        let (client, counts) = (client.clone(), counts.clone());
        under_way.spawn(async move {
            let outcome = one(&client, request).await;
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.record((due - started).as_secs() as usize, due, outcome);
        });
    }
}

/// Status and image, or what went wrong.
type Outcome = Result<(u16, Option<String>), &'static str>;

async fn one(client: &Client<HttpConnector, Empty<Bytes>>, request: Request<Empty<Bytes>>) -> Outcome {
    let answer = async {
        let response =
            client.request(request).await.map_err(|e| if e.is_connect() { "connect" } else { "broken" })?;
        let status = response.status().as_u16();
        let image = response.headers().get("x-image").and_then(|v| v.to_str().ok()).map(String::from);
        response.into_body().collect().await.map_err(|_| "broken")?;
        Ok((status, image))
    };
    tokio::time::timeout(LIMIT, answer).await.unwrap_or(Err("timeout"))
}

impl Snapshot {
    fn record(&mut self, second: usize, due: Instant, outcome: Outcome) {
        let took = due.elapsed();
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, Second::default());
        }
        self.requests += 1;
        self.seconds[second].requests += 1;
        self.latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
        let (failed, image) = match outcome {
            Ok((status, image)) => {
                *self.by_status.entry(status).or_default() += 1;
                self.non_200 += u64::from(status != 200);
                if let Some(image) = &image {
                    *self.by_image.entry(image.clone()).or_default() += 1;
                    let last = self.last_by_image.entry(image.clone()).or_insert(due);
                    *last = due.max(*last);
                    *self.seconds[second].by_image.entry(image.clone()).or_default() += 1;
                }
                (status >= 500, image)
            }
            Err(what) => {
                *self.by_transport_error.entry(what.into()).or_default() += 1;
                (true, None)
            }
        };
        if failed {
            self.failed += 1;
            self.seconds[second].failed += 1;
            *self.failed_by_image.entry(image.unwrap_or_default()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_less_an_earlier_one_is_what_came_between() {
        let mut counts = Snapshot::new();
        let ok = |image: &str| Ok((200, Some(image.to_owned())));
        let (now, earlier_on) = (Instant::now(), Instant::now() - Duration::from_millis(900));
        counts.record(0, now, ok("a"));
        counts.record(0, now, Err("timeout"));
        let mut earlier = counts.clone();
        earlier.at = Duration::from_secs(1);
        counts.record(1, now, ok("b"));
        counts.record(1, earlier_on, ok("b"));
        counts.record(1, now, Ok((503, None)));
        counts.record(1, now, Ok((404, None)));
        counts.at = Duration::from_secs(2);
        let between = counts.since(&earlier);
        assert_eq!((between.requests, between.failed, between.non_200), (4, 1, 2));
        assert_eq!(between.failures(), "1 x 404, 1 x 503");
        assert_eq!(between.by_image, BTreeMap::from([("b".into(), 2)]));
        assert_eq!(between.last_by_image["b"], now, "an answer that comes late does not move it back");
        assert!((between.share_percent("b") - 100.0).abs() < 1e-9);
        assert!(between.latency_ms(1.0) > 890.0);
        assert_eq!(between.seconds.iter().map(|s| s.requests).sum::<u64>(), 4);
    }
}
