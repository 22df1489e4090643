//! Instant and range queries and the alerts of rules, with the provider's warnings seen.
//!
//! prometheus-http-query makes the request; its typed answer leaves out `warnings`, by which Thanos and Mimir
//! say that an answer is partial, so the envelope is read here. A warning makes the answer unusable: counters
//! of half the pods look like a canary without failures.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use prometheus_http_query::{Client, Error};
use serde::Deserialize;
use sluice_core::{
    api::ProviderConfig,
    digest,
    evidence::{Alert, AlertStatus, DataState, Poll, Trouble},
};
use tokio::sync::Semaphore;
use tracing::debug;

use super::{
    CONCURRENCY, Failure, Heard, ProviderError, auth::TOTAL_TIMEOUT, body, excerpt, innermost,
    last::LastPoll, place,
};

/// One series of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Labels of the series.
    pub labels: BTreeMap<String, String>,
    /// Its value; may be NaN or infinite.
    pub value: f64,
    /// Time of the evaluation, not of the sample behind it.
    pub at: Timestamp,
}

impl Series {
    /// Value of a label; a missing label is the empty string, as in PromQL.
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// A question in PromQL.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The query.
    pub promql: &'a str,
    /// What to correct when it is refused.
    pub correct: &'a str,
}

/// A Prometheus, or anything with its query API.
pub struct Prometheus {
    client: Client,
    address: String,
    places: Semaphore,
    heard: Heard,
    alerts: LastPoll,
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Prometheus {
    pub(super) fn new(
        client: reqwest::Client,
        config: &ProviderConfig,
        heard: Heard,
    ) -> Result<Self, ProviderError> {
        let address = config.url.trim_end_matches('/').to_string();
        let client = Client::from(client, &address).map_err(|error| {
            ProviderError::Certificates(format!("url {address:?}: {}", innermost(&error)))
        })?;
        let places = Semaphore::new(CONCURRENCY);
        Ok(Self { client, address, places, heard, alerts: LastPoll::default() })
    }

    /// Base address, for messages.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Evaluates a query at one time. An empty answer is `Ok` and empty.
    pub async fn instant(&self, query: Query<'_>, at: Timestamp) -> Result<Vec<Series>, Trouble> {
        let request = self
            .client
            .query(query.promql)
            // The builder's own `at` takes whole seconds, which would hide samples for up to one second.
            .query("time", format_args!("{}.{:03}", at.as_second(), at.subsec_millisecond()))
            .query("timeout", format_args!("{}s", TOTAL_TIMEOUT.as_secs()))
            // Thanos: no answer rather than half of one. Others ignore it.
            .query("partial_response", "false");
        let answer = self.query(query, request.get_raw()).await.and_then(|data| {
            let points: Vec<Point> = self.points(query, data, "vector")?;
            points.into_iter().map(|point| point.series().map_err(|error| self.unreadable(&error))).collect()
        });
        self.counted(answer)
    }

    /// Evaluates a query at several times, `step` seconds apart: each time that has an answer, with its vector.
    pub async fn range(
        &self,
        query: Query<'_>,
        (start, end): (Timestamp, Timestamp),
        step: f64,
    ) -> Result<Vec<(Timestamp, Vec<Series>)>, Trouble> {
        let request = self
            .client
            .query_range(query.promql, start.as_second(), end.as_second(), step)
            .query("timeout", format_args!("{}s", TOTAL_TIMEOUT.as_secs()))
            .query("partial_response", "false");
        let answer = self.query(query, request.get_raw()).await.and_then(|data| {
            let mut times: BTreeMap<Timestamp, Vec<Series>> = BTreeMap::new();
            for point in self.points::<Points>(query, data, "matrix")? {
                for series in point.series() {
                    let series = series.map_err(|error| self.unreadable(&error))?;
                    times.entry(series.at).or_default().push(series);
                }
            }
            Ok(times.into_iter().collect())
        });
        self.counted(answer)
    }

    /// The alerts that its rules fire, not older than `max_age`: callers that come in the meantime share one answer, a
    /// failure too. Those that still wait for their rule's `for` do not fire.
    pub async fn alerts(&self, max_age: Duration) -> Arc<Poll> {
        let ask = async {
            let at = Timestamp::now();
            let url = format!("{}/api/v1/alerts", self.address);
            let request = self.client.inner().get(url).send();
            let request = async { request.await.map_err(|error| Failure::of_request(&self.address, &error)) };
            let answer = self.answer(None, request).await.map(|data| {
                let firing = data.alerts.into_iter().filter(|alert| alert.state == "firing");
                firing.map(RuleAlert::alert).collect()
            });
            let answer = self.counted(answer).map_err(|trouble| trouble.message);
            Poll { at, answer, silences: Vec::new() }
        };
        self.alerts.poll(max_age, ask).await
    }

    fn counted<T>(&self, answer: Result<T, Failure>) -> Result<T, Trouble> {
        let label = match &answer {
            Ok(_) => "ok",
            Err(failure) => failure.label(),
        };
        (self.heard)("prometheus", label);
        answer.map_err(Failure::into_trouble)
    }

    async fn query(
        &self,
        query: Query<'_>,
        request: impl Future<Output = Result<reqwest::Response, Error>>,
    ) -> Result<Data, Failure> {
        let failure = |error: Error| match &error {
            Error::Client(error) => match error.inner() {
                Some(error) => Failure::of_request(&self.address, error),
                None => Failure::Down(format!("{}: {error}", self.address)),
            },
            error => Failure::Refused(format!("{}: {}", self.address, innermost(error))),
        };
        self.answer(Some(query), async { request.await.map_err(failure) }).await
    }

    /// `query`: the one that is asked for, if it is one.
    async fn answer(
        &self,
        query: Option<Query<'_>>,
        request: impl Future<Output = Result<reqwest::Response, Failure>>,
    ) -> Result<Data, Failure> {
        let _place = place(&self.places, &self.address).await?;
        let response = request.await?;
        let status = Failure::of_status(&self.address, &response);
        let code = response.status().as_u16();
        let body = body(&self.address, response).await;
        match (status, body) {
            (None, body) => self.read(query, &body?),
            (Some(failure), body) => {
                Err(self.explain(query, code, &body.unwrap_or_default()).unwrap_or(failure))
            }
        }
    }

    /// The reason in the body of an answer that is not 2xx.
    fn explain(&self, query: Option<Query<'_>>, code: u16, body: &[u8]) -> Option<Failure> {
        let envelope: Envelope = serde_json::from_slice(body).ok()?;
        let error = envelope.error.filter(|error| !error.is_empty())?;
        let error = excerpt(&error, 400);
        Some(match (code, envelope.error_type.as_deref()) {
            (400 | 422, Some("timeout" | "canceled" | "unavailable")) | (429 | 500.., _) => {
                Failure::Down(format!("{}: {code}: {error}", self.address))
            }
            (400 | 422, _) => self.refused(query, &error),
            _ => Failure::Refused(format!("{}: {code}: {error}", self.address)),
        })
    }

    fn refused(&self, query: Option<Query<'_>>, error: &str) -> Failure {
        let Some(Query { promql, correct }) = query else {
            return Failure::Refused(format!("{}: refused: {error}", self.address));
        };
        // The reason first: messages are cut at their end.
        Failure::Refused(format!(
            "{} refuses the query: {error}; {correct}; the query: {}",
            self.address,
            excerpt(promql, 300)
        ))
    }

    fn read(&self, query: Option<Query<'_>>, body: &[u8]) -> Result<Data, Failure> {
        let envelope: Envelope = serde_json::from_slice(body).map_err(|error| {
            Failure::Down(format!("{}: the answer is not that of a Prometheus: {error}", self.address))
        })?;
        if envelope.status != "success" {
            return Err(
                self.refused(query, &excerpt(envelope.error.as_deref().unwrap_or("no reason given"), 400))
            );
        }
        if let Some(first) = envelope.warnings.first() {
            let more = envelope.warnings.len() - 1;
            let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            return Err(Failure::Refused(format!(
                "{}: the answer may be partial: {}{more}",
                self.address,
                excerpt(first, 400)
            )));
        }
        if let Some(info) = envelope.infos.first() {
            debug!(address = %self.address, %info, "the provider remarks");
        }
        Ok(envelope.data.unwrap_or_default())
    }

    fn points<T: for<'a> Deserialize<'a>>(
        &self,
        query: Query<'_>,
        data: Data,
        kind: &str,
    ) -> Result<Vec<T>, Failure> {
        if data.result_type != kind {
            return Err(
                self.refused(Some(query), &format!("the result is a {:?}, not a {kind}", data.result_type))
            );
        }
        serde_json::from_value(data.result).map_err(|error| self.unreadable(&error.to_string()))
    }

    fn unreadable(&self, error: &str) -> Failure {
        Failure::Down(format!("{}: the answer is not that of a Prometheus: {error}", self.address))
    }
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    status: String,
    data: Option<Data>,
    #[serde(rename = "errorType")]
    error_type: Option<String>,
    error: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    infos: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(default, rename = "resultType")]
    result_type: String,
    #[serde(default)]
    result: serde_json::Value,
    /// Of the alerts' own address.
    #[serde(default)]
    alerts: Vec<RuleAlert>,
}

/// Characters that tell one set of labels from another.
const FINGERPRINT: usize = 16;

/// An alert as the rules' owner knows it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuleAlert {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// `pending`, `firing` or `inactive`.
    state: String,
    /// When the rule's condition became true.
    active_at: Timestamp,
}

impl RuleAlert {
    fn alert(self) -> Alert {
        Alert {
            fingerprint: digest::of(&self.labels).chars().skip("sha256:".len()).take(FINGERPRINT).collect(),
            labels: self.labels,
            starts_at: self.active_at,
            active_at: Some(self.active_at),
            status: AlertStatus::default(),
        }
    }
}

#[derive(Deserialize)]
struct Point {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    /// Missing where the series is a native histogram.
    value: Option<(f64, String)>,
}

/// A series of a matrix.
#[derive(Deserialize)]
struct Points {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    #[serde(default)]
    values: Vec<(f64, String)>,
}

impl Points {
    fn series(self) -> impl Iterator<Item = Result<Series, String>> {
        let metric = self.metric;
        self.values
            .into_iter()
            .map(move |value| Point { metric: metric.clone(), value: Some(value) }.series())
    }
}

impl Point {
    fn series(self) -> Result<Series, String> {
        let (at, value) = self.value.ok_or("a series has no value; native histograms are not supported")?;
        let value = match value.as_str() {
            "+Inf" => f64::INFINITY,
            "-Inf" => f64::NEG_INFINITY,
            value => value.parse().map_err(|_| format!("{:?} is not a number", excerpt(value, 40)))?,
        };
        // Prometheus writes at most milliseconds.
        let at =
            Timestamp::from_millisecond((at * 1000.0).round() as i64).map_err(|error| error.to_string())?;
        Ok(Series { labels: self.metric, value, at })
    }
}

/// For callers that have no provider to ask.
pub fn not_configured() -> Trouble {
    Trouble::new(
        DataState::ProviderDown,
        "no Prometheus is configured: set spec.prometheus.url, or the installation's prometheus.url".into(),
    )
}

#[cfg(test)]
mod tests {
    //! A server that answers as told: for the wire format, status codes and timeouts only.

    use super::*;
    use crate::{auth::SecretData, testing::providers};
    use axum::{
        Router,
        http::{HeaderMap, StatusCode, Uri},
        response::IntoResponse,
    };
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        time::{Duration, Instant},
    };

    async fn serve(app: Router) -> Arc<Prometheus> {
        let config = ProviderConfig {
            url: format!("{}/base/", crate::testing::serve(app).await),
            headers: vec![sluice_core::api::Header {
                name: "X-Scope-OrgID".into(),
                value: Some("team".into()),
                value_key: None,
            }],
            ..Default::default()
        };
        providers().prometheus("ns", &config, &SecretData::default()).expect("a client")
    }

    fn question(promql: &str) -> Query<'_> {
        Query { promql, correct: "correct spec.query" }
    }

    async fn answer(code: u16, body: &'static str) -> Result<Vec<Series>, Trouble> {
        let status = StatusCode::from_u16(code).expect("a status code");
        let prometheus = serve(Router::new().fallback(move || async move { (status, body) })).await;
        prometheus.instant(question("sum by (pod) (x)"), Timestamp::UNIX_EPOCH).await
    }

    #[tokio::test]
    async fn the_request_carries_query_time_and_headers() {
        let app = Router::new().fallback(|uri: Uri, headers: HeaderMap| async move {
            let told = format!("{uri} {} {}", headers["x-scope-orgid"].to_str().unwrap_or(""), uri.path());
            let body = serde_json::json!({"status": "success", "data": {"resultType": "vector",
                "result": [{"metric": {"told": told}, "value": [1700000000.25, "1"]}]}});
            axum::Json(body)
        });
        let prometheus = serve(app).await;
        let at = Timestamp::from_millisecond(1_700_000_000_250).expect("in range");
        let series = prometheus.instant(question("a{b=\"c\"}"), at).await.expect("an answer");
        let told = series[0].label("told");
        assert!(told.contains("/base/api/v1/query?"), "{told}");
        assert!(told.contains("time=1700000000.250") && told.contains("query=a%7Bb%3D%22c%22%7D"), "{told}");
        assert!(told.contains("partial_response=false") && told.contains(" team "), "{told}");
        assert_eq!(series[0].at, at);
    }

    #[tokio::test]
    async fn values_are_read_as_prometheus_writes_them() {
        let series = answer(
            200,
            r#"{"status":"success","data":{"resultType":"vector","result":[
                {"metric":{"pod":"a"},"value":[1700000000,"1.5e+06"]},{"metric":{},"value":[1700000000.001,"NaN"]},
                {"metric":{},"value":[1700000000,"+Inf"]},{"metric":{},"value":[1700000000,"-Inf"]}]},
                "infos":["PromQL info: metric might not be a counter"]}"#,
        )
        .await
        .expect("an answer");
        assert_eq!(series[0].value, 1_500_000.0);
        assert_eq!((series[0].label("pod"), series[0].label("none")), ("a", ""));
        assert!(series[1].value.is_nan());
        assert_eq!((series[2].value, series[3].value), (f64::INFINITY, f64::NEG_INFINITY));
        let empty = answer(200, r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#).await;
        assert_eq!(empty, Ok(vec![]));
    }

    #[tokio::test]
    async fn a_range_is_read_time_by_time() {
        let app = Router::new().fallback(|uri: Uri| async move {
            let uri = uri.to_string();
            assert!(uri.contains("/base/api/v1/query_range?"), "{uri}");
            assert!(uri.contains("start=1700000000&end=1700000030&step=15"), "{uri}");
            r#"{"status":"success","data":{"resultType":"matrix","result":[
                {"metric":{"pod":"a"},"values":[[1700000000,"1"],[1700000030,"3"]]},
                {"metric":{"pod":"b"},"values":[[1700000030,"NaN"]]}]}}"#
        });
        let at = |second| Timestamp::from_second(second).expect("in range");
        let range = (at(1_700_000_000), at(1_700_000_030));
        let times = serve(app).await.range(question("x"), range, 15.0).await.expect("an answer");
        let pods: Vec<(Timestamp, Vec<&str>)> = times
            .iter()
            .map(|(at, series)| (*at, series.iter().map(|series| series.label("pod")).collect()))
            .collect();
        assert_eq!(pods, [(range.0, vec!["a"]), (range.1, vec!["a", "b"])]);
        assert_eq!(times[1].1[0].value, 3.0);
    }

    #[tokio::test]
    async fn every_refusal_and_outage_has_its_state_and_words() {
        use DataState::{ProviderDown, QueryError};
        let ok = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
        let syntax =
            r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error: unexpected \")\""}"#;
        for (code, body, state, says) in [
            (
                400,
                syntax,
                QueryError,
                r#"refuses the query: 1:5: parse error: unexpected ")"; correct spec.query; the query: sum by (pod) (x)"#,
            ),
            (
                422,
                r#"{"status":"error","errorType":"execution","error":"too many samples"}"#,
                QueryError,
                "too many",
            ),
            (
                503,
                r#"{"status":"error","errorType":"timeout","error":"query timed out"}"#,
                ProviderDown,
                "timed out",
            ),
            (500, "boom", ProviderDown, "500 Internal Server Error"),
            (502, ok, ProviderDown, "502 Bad Gateway"),
            (429, "", ProviderDown, "429"),
            (401, "no", QueryError, "sign-in is refused"),
            (404, "<html>", QueryError, "check url"),
            (302, "", QueryError, "redirects are not followed"),
            (200, "<html>sign in</html>", ProviderDown, "not that of a Prometheus"),
            (200, "", ProviderDown, "not that of a Prometheus"),
            (
                200,
                r#"{"status":"success","data":{"resultType":"ve"#,
                ProviderDown,
                "not that of a Prometheus",
            ),
            (200, r#"{"status":"error","error":"nope"}"#, QueryError, "nope"),
            (
                200,
                r#"{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}"#,
                QueryError,
                "scalar",
            ),
            (200, r#"{"status":"success"}"#, QueryError, "not a vector"),
            (
                200,
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}"#,
                ProviderDown,
                "is not a number",
            ),
            (
                200,
                r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}"#,
                ProviderDown,
                "native histograms",
            ),
            (
                200,
                r#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["store down","b"]}"#,
                QueryError,
                "may be partial: store down (and 1 more)",
            ),
        ] {
            let trouble = answer(code, body).await.expect_err(says);
            assert_eq!(trouble.state, state, "{code} {body}: {}", trouble.message);
            assert!(trouble.message.contains(says), "{code} {body}: {}", trouble.message);
            assert!(trouble.message.contains("http://127.0.0.1:"), "{}", trouble.message);
        }
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let app = Router::new().fallback(move || async move {
            count.fetch_add(1, Ordering::SeqCst);
            (StatusCode::FOUND, [("location", "http://169.254.169.254/latest")]).into_response()
        });
        let trouble =
            serve(app).await.instant(question("x"), Timestamp::UNIX_EPOCH).await.expect_err("a redirect");
        assert!(
            trouble.message.contains("redirects to http://169.254.169.254/latest"),
            "{}",
            trouble.message
        );
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_slow_answer_and_a_closed_port_are_a_provider_that_is_down() {
        let app = Router::new().fallback(|| async { std::future::pending::<()>().await });
        let prometheus = serve(app).await;
        let begin = Instant::now();
        let trouble = prometheus.instant(question("x"), Timestamp::UNIX_EPOCH).await.expect_err("silence");
        assert_eq!(trouble.state, DataState::ProviderDown);
        assert!(trouble.message.contains("no answer within 5 s"), "{}", trouble.message);
        assert!(begin.elapsed() < Duration::from_secs(7));

        let config = ProviderConfig { url: "http://127.0.0.1:9".into(), ..Default::default() };
        let closed = providers().prometheus("ns", &config, &SecretData::default()).expect("a client");
        let trouble = closed.instant(question("x"), Timestamp::UNIX_EPOCH).await.expect_err("closed");
        assert_eq!(trouble.state, DataState::ProviderDown);
        assert!(trouble.message.contains("refused"), "{}", trouble.message);
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_not_read() {
        let app = Router::new().fallback(|| async { " ".repeat(5 << 20) });
        let trouble =
            serve(app).await.instant(question("x"), Timestamp::UNIX_EPOCH).await.expect_err("too large");
        assert!(trouble.message.contains("larger than 4 MiB"), "{}", trouble.message);
    }

    #[tokio::test]
    async fn alerts_of_rules_fire_or_do_not() {
        // An answer of Prometheus 3.
        let body = r#"{"status":"success","data":{"alerts":[
            {"labels":{"alertname":"Slow","severity":"page"},"annotations":{},"state":"firing",
             "activeAt":"2026-01-01T00:00:00.25Z","value":"1e+00"},
            {"labels":{"alertname":"Soon"},"annotations":{},"state":"pending",
             "activeAt":"2026-01-01T00:01:00Z","value":"1e+00"}]}}"#;
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let app = Router::new().fallback(move |uri: Uri| {
            count.fetch_add(1, Ordering::SeqCst);
            async move { if uri.path() == "/base/api/v1/alerts" { body } else { "" } }
        });
        let prometheus = serve(app).await;
        let poll = prometheus.alerts(Duration::from_secs(5)).await;
        let alerts = poll.answer.as_ref().expect("an answer");
        let began = "2026-01-01T00:00:00.25Z".parse().expect("a time");
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        assert_eq!((alerts[0].starts_at, alerts[0].active_at), (began, Some(began)));
        assert_eq!(
            (alerts[0].labels["severity"].as_str(), alerts[0].fingerprint.len()),
            ("page", FINGERPRINT)
        );
        assert!(Arc::ptr_eq(&poll, &prometheus.alerts(Duration::from_secs(5)).await), "shared");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn alerts_that_cannot_be_read_are_no_silence() {
        for (code, body, says) in [
            (
                200,
                r#"{"status":"success","warnings":["half of it"],"data":{"alerts":[]}}"#,
                "may be partial: half of it",
            ),
            (
                200,
                r#"{"status":"success","data":{"alerts":[{"state":"firing"}]}}"#,
                "not that of a Prometheus",
            ),
            (404, "", "no such API here"),
            (503, "", "503"),
        ] {
            let status = StatusCode::from_u16(code).expect("a status code");
            let prometheus = serve(Router::new().fallback(move || async move { (status, body) })).await;
            let poll = prometheus.alerts(Duration::ZERO).await;
            let why = poll.answer.as_ref().expect_err(says);
            assert!(why.contains(says), "{why}");
        }
    }

    #[tokio::test]
    async fn at_most_sixteen_requests_are_in_flight() {
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (now.clone(), most.clone());
        let app = Router::new().fallback(move || {
            let (now, most) = counters.clone();
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#
            }
        });
        let prometheus = serve(app).await;
        let asks = (0..60).map(|_| prometheus.instant(question("x"), Timestamp::UNIX_EPOCH));
        let answers = futures::future::join_all(asks).await;
        assert!(answers.iter().all(Result::is_ok));
        let most = most.load(Ordering::SeqCst);
        assert!((2..=CONCURRENCY).contains(&most), "{most}");
    }
}
