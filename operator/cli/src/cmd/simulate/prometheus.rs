//! Range queries, one after the other, with the provider's warnings seen.
//!
//! The typed answer of prometheus-http-query leaves out `warnings`, by which Thanos and Mimir say that an answer is
//! partial, so the envelope is read here. A warning makes the answer unusable: counters of half the pods look like a
//! revision without failures.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use prometheus_http_query::{Client, Error};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Response, Url, redirect::Policy};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use crate::fail::{Failure, root};
use crate::input::cause;
use crate::out::clean;

/// Limit on opening a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit on a whole request, body included.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Least time between two requests: others use this Prometheus too, alerts among them.
const PAUSE: Duration = Duration::from_millis(100);
/// Before a request that failed is made again, once.
const RECOVERY: Duration = Duration::from_secs(2);
/// Prometheus answers no more points a series than 11,000.
const MOST_POINTS: i64 = 10_000;
/// Largest answer that is read.
const BODY_LIMIT: usize = 128 << 20;

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its points: Unix seconds and value, which may be no number.
    pub points: Vec<(i64, f64)>,
}

impl Series {
    /// Value of a label; a missing label is the empty string, as in PromQL.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Times of a range query, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First point.
    pub start: i64,
    /// No point is later.
    pub end: i64,
    /// Distance of two points.
    pub step: i64,
    /// Seconds that one request may ask for.
    pub chunk: i64,
}

/// A Prometheus, or anything with its query API.
pub struct Prometheus {
    client: Client,
    /// Where it is, for messages.
    pub address: String,
    next: Instant,
}

/// Why there is no answer.
enum Trouble {
    /// It may answer later.
    Down(String),
    /// It would say the same again.
    Refused(String),
}

impl Prometheus {
    /// A client for a base address.
    pub fn new(url: &str, headers: &[(String, String)], bearer: Option<&Path>) -> Result<Self, Failure> {
        let usage = |problem: &str| {
            Failure::usage(format!(
                "--from-prometheus: {problem}: write its base address, such as https://prometheus.example.com"
            ))
        };
        let parsed = Url::parse(url).map_err(|error| usage(&format!("{url:?}: {error}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(usage(&format!("{url:?} is neither http nor https")));
        }
        if parsed.password().is_some() || !parsed.username().is_empty() {
            // Not repeated: it would be in the log of a pipeline.
            return Err(usage("credentials in the address end up in logs, use --header or --bearer-file"));
        }
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let parsed: HeaderName = name.parse().map_err(|_| {
                Failure::usage(format!("--header {name:?}: is not the name of a header: write NAME=VALUE"))
            })?;
            all.append(parsed, sensitive(&format!("--header {name}"), value)?);
        }
        if let Some(file) = bearer {
            let place = format!("--bearer-file {}", file.display());
            let token = std::fs::read_to_string(file)
                .map_err(|error| Failure::new(format!("{place}: {}", cause(&error))))?;
            if token.trim().is_empty() {
                return Err(Failure::new(format!("{place}: is empty: write the token into it")));
            }
            all.insert(AUTHORIZATION, sensitive(&place, &format!("Bearer {}", token.trim()))?);
        }
        // No redirects and no proxy of the environment: both would carry a token to another host.
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("kubectl-sluice/", env!("CARGO_PKG_VERSION")))
            .default_headers(all)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy();
        if parsed.scheme() == "http" {
            // TLS is never used. The certificates of the system are not read then: an image may have none.
            builder = builder.tls_certs_only([]);
        }
        let address = url.trim_end_matches('/').to_owned();
        let client = builder
            .build()
            .map_err(|error| Failure::new(format!("{address}: TLS can't be set up: {}", root(&error))))?;
        let client = Client::from(client, &address).map_err(|error| usage(&root(&error)))?;
        Ok(Self { client, address, next: Instant::now() })
    }

    /// Evaluates `promql` at the times of a range. An empty answer is `Ok` and empty.
    pub async fn range(&mut self, promql: &str, range: Range) -> Result<Vec<Series>, String> {
        let mut all: BTreeMap<BTreeMap<String, String>, Vec<(i64, f64)>> = BTreeMap::new();
        let chunk = range.chunk.clamp(range.step, MOST_POINTS * range.step) / range.step * range.step;
        let mut start = range.start;
        while start <= range.end {
            // Both ends are points, so the next one begins a step later.
            let end = range.end.min(start + chunk - range.step);
            for series in self.patiently(promql, start, end, range.step).await? {
                all.entry(series.labels).or_default().extend(series.points);
            }
            start += chunk;
        }
        Ok(all.into_iter().map(|(labels, points)| Series { labels, points }).collect())
    }

    async fn patiently(
        &mut self,
        promql: &str,
        start: i64,
        end: i64,
        step: i64,
    ) -> Result<Vec<Series>, String> {
        for last in [false, true] {
            sleep_until(self.next).await;
            let answer = self.ask(promql, start, end, step).await;
            self.next = Instant::now() + PAUSE;
            match answer {
                Ok(series) => return Ok(series),
                Err(Trouble::Down(_)) if !last => self.next = Instant::now() + RECOVERY,
                Err(Trouble::Down(text) | Trouble::Refused(text)) => return Err(text),
            }
        }
        Ok(Vec::new()) // not reached: the last attempt returns
    }

    async fn ask(&self, promql: &str, start: i64, end: i64, step: i64) -> Result<Vec<Series>, Trouble> {
        let address = &self.address;
        let request = self
            .client
            .query_range(promql, start, end, step as f64)
            .timeout(TOTAL_TIMEOUT.as_millis() as i64)
            // Thanos: no answer rather than half of one. Others ignore it.
            .query("partial_response", "false");
        let response = request.get_raw().await.map_err(|error| match &error {
            Error::Client(error) => match error.inner() {
                Some(error) => of_request(address, error),
                None => Trouble::Down(format!("{address}: {error}")),
            },
            error => Trouble::Refused(format!("{address}: {}", root(error))),
        })?;
        let status = response.status();
        let redirect = response.headers().get(reqwest::header::LOCATION).and_then(|v| v.to_str().ok());
        let redirect = redirect.map(str::to_owned);
        let body = body(address, response).await;
        if status.is_success() {
            return self.read(promql, &body?);
        }
        let said: Option<Envelope> = body.ok().and_then(|body| serde_json::from_slice(&body).ok());
        let said = said.and_then(|envelope| envelope.error);
        let reason = said.map_or_else(String::new, |said| format!(": {}", excerpt(&said)));
        Err(match status.as_u16() {
            300..=399 => Trouble::Refused(format!(
                "{address}: redirects to {}; redirects are not followed: give the final address",
                excerpt(redirect.as_deref().unwrap_or("nowhere"))
            )),
            401 | 403 => Trouble::Refused(format!(
                "{address}: {status}{reason}: the sign-in is refused: check --bearer-file and --header"
            )),
            404 | 405 => Trouble::Refused(format!(
                "{address}: {status}{reason}: no such API here: give the part of the address before /api"
            )),
            429 | 500.. => {
                Trouble::Down(format!("{address}: {status}{reason}: try again later, or a shorter --since"))
            }
            _ => self.refused(promql, &format!("{status}{reason}")),
        })
    }

    fn refused(&self, promql: &str, reason: &str) -> Trouble {
        Trouble::Refused(format!(
            "{} refuses the query: {reason}; check --metric, --code-label and --matchers; the query: {promql}",
            self.address
        ))
    }

    fn read(&self, promql: &str, body: &[u8]) -> Result<Vec<Series>, Trouble> {
        let foreign = |error: String| {
            Trouble::Refused(format!(
                "{}: the answer is not that of a Prometheus: {error}: is the address right?",
                self.address
            ))
        };
        let envelope: Envelope = serde_json::from_slice(body).map_err(|error| foreign(error.to_string()))?;
        if envelope.status != "success" {
            return Err(
                self.refused(promql, &excerpt(envelope.error.as_deref().unwrap_or("no reason given")))
            );
        }
        if let Some(warning) = envelope.warnings.first() {
            return Err(Trouble::Refused(format!(
                "{}: the answer may be partial: {}",
                self.address,
                excerpt(warning)
            )));
        }
        let data = envelope.data.ok_or_else(|| foreign("there is no data".to_owned()))?;
        if data.result_type != "matrix" {
            return Err(foreign(format!("the result is a {:?}, not a matrix", data.result_type)));
        }
        let rows: Vec<Wire> =
            serde_json::from_value(data.result).map_err(|error| foreign(error.to_string()))?;
        rows.into_iter().map(|row| row.series().map_err(foreign)).collect()
    }
}

/// A header value that HTTP libraries don't print.
fn sensitive(place: &str, value: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        Failure::usage(format!("{place}: has characters that a header can't carry, such as a line break"))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn of_request(address: &str, error: &reqwest::Error) -> Trouble {
    let cause = root(error);
    Trouble::Down(if error.is_timeout() {
        format!("{address}: no answer within {} s: try a shorter --since", TOTAL_TIMEOUT.as_secs())
    } else if error.is_connect() {
        format!("{address}: can't connect: {cause}: is the address right, and can this machine reach it?")
    } else {
        format!("{address}: the connection broke: {cause}")
    })
}

async fn body(address: &str, mut response: Response) -> Result<Vec<u8>, Trouble> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| of_request(address, &error))? {
        if body.len() + chunk.len() > BODY_LIMIT {
            let limit = BODY_LIMIT >> 20;
            return Err(Trouble::Refused(format!(
                "{address}: the answer is larger than {limit} MiB: narrow it with --matchers"
            )));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The beginning of other people's text, on one line.
fn excerpt(text: &str) -> String {
    clean(&text.chars().take(400).collect::<String>())
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    status: String,
    data: Option<Data>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default, rename = "resultType")]
    result_type: String,
    #[serde(default)]
    result: serde_json::Value,
}

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Missing where the series is a native histogram.
    values: Option<Vec<(f64, String)>>,
}

impl Wire {
    fn series(self) -> Result<Series, String> {
        let values = self.values.ok_or("a series has no values: native histograms are not supported")?;
        let point = |(at, value): (f64, String)| {
            let value = match value.as_str() {
                "+Inf" => f64::INFINITY,
                "-Inf" => f64::NEG_INFINITY,
                value => value.parse().map_err(|_| format!("{:?} is not a number", excerpt(value)))?,
            };
            Ok((at.round() as i64, value))
        };
        let points = values.into_iter().map(point).collect::<Result<_, String>>()?;
        Ok(Series { labels: self.metric, points })
    }
}
