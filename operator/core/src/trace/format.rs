//! The format of a trace: JSON Lines, a header and one record per evaluation.
//!
//! ```text
//! {"sluiceTrace":1,"id":"t1","scrapeSeconds":15,"les":[0.1,0.5],"riskClass":"R2","latencySLOSeconds":0.5}
//! {"t":3600,"weight":2,"state":"ok","arms":{"stable":[{"id":"s0","req":100,"err":1,"le":[90,99]}],"canary":[]}}
//! {"t":3615,"weight":2,"state":"outage"}
//! ```
//!
//! Counters are cumulative as scraped, resets included. `weight` is the percentage in force since the record before;
//! records before the first weight above 0 are the baseline. Unknown keys are ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::api::RiskClass;

/// The version of the format.
pub const VERSION: u32 = 1;

/// A trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Its header.
    pub header: Header,
    /// Its records, in the order of time.
    pub records: Vec<Record>,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Version of the format, 1.
    pub sluice_trace: u32,
    /// Name of the trace.
    pub id: String,
    /// Seconds between two scrapes.
    #[serde(serialize_with = "number")]
    pub scrape_seconds: f64,
    /// Upper bounds of the latency buckets in seconds, rising.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub les: Vec<f64>,
    /// Risk class of the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_class: Option<RiskClass>,
    /// Requests slower than this are bad, in seconds; without it latency is not judged.
    #[serde(default, rename = "latencySLOSeconds", skip_serializing_if = "Option::is_none")]
    pub latency_slo_seconds: Option<f64>,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Time in seconds, rising.
    #[serde(serialize_with = "number")]
    pub t: f64,
    /// Percent of the traffic that met the canary since the record before, 0 to 100.
    #[serde(serialize_with = "number")]
    pub weight: f64,
    /// What the source answered.
    pub state: State,
    /// Counters; only with state `ok`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arms: Option<Arms>,
    /// Gauges of each arm, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gauges: BTreeMap<String, Gauge>,
    /// Results of the user's queries, by name; null without data.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub queries: BTreeMap<String, Option<f64>>,
}

/// What the source answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Counters.
    Ok,
    /// No series.
    NoData,
    /// A value that is no number.
    Nan,
    /// Samples that are too old.
    Stale,
    /// Several series where one is expected.
    MultiSeries,
    /// It refused the query.
    Error,
    /// It did not answer.
    Outage,
}

/// Counters of both arms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arms {
    /// Of the revision that served when the run began.
    #[serde(default)]
    pub stable: Vec<Series>,
    /// Of the revision that is tried.
    #[serde(default)]
    pub canary: Vec<Series>,
}

/// Counters of one pod; of a whole arm, with an empty id, where pods can't be told apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The pod.
    pub id: String,
    /// Requests.
    #[serde(serialize_with = "number")]
    pub req: f64,
    /// Failed requests.
    #[serde(default, serialize_with = "number")]
    pub err: f64,
    /// Requests that took at most each of the header's bounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty", serialize_with = "numbers")]
    pub le: Vec<f64>,
}

/// A gauge of both arms; null without data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gauge {
    /// Stable's value.
    #[serde(default)]
    pub stable: Option<f64>,
    /// The canary's value.
    #[serde(default)]
    pub canary: Option<f64>,
}

/// What is wrong with a trace, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// The field, its value, and what to write instead.
    pub what: String,
}

impl Trace {
    /// Reads a trace from its lines. Empty lines count and are skipped.
    ///
    /// # Errors
    /// The first line that can't be used, with its field.
    pub fn read<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, Problem> {
        let mut header: Option<Header> = None;
        let mut records: Vec<Record> = Vec::new();
        for (index, text) in lines.into_iter().enumerate() {
            let at = |what: String| Problem { line: index + 1, what };
            if text.trim().is_empty() {
                continue;
            }
            let Some(header) = &header else {
                header = Some(self::header(text).map_err(at)?);
                continue;
            };
            let record: Record = parse(text).map_err(at)?;
            check(&record, header).map_err(at)?;
            if let Some(last) = records.last().filter(|last| record.t <= last.t) {
                return Err(at(format!(
                    "t: {} is not after {}, that of the record before: records are in the order of time",
                    record.t, last.t
                )));
            }
            records.push(record);
        }
        let header = header.ok_or_else(|| Problem {
            line: 1,
            what: "the trace is empty: the first line is a header such as \
                   {\"sluiceTrace\":1,\"id\":\"t1\",\"scrapeSeconds\":15}"
                .to_owned(),
        })?;
        Ok(Self { header, records })
    }

    /// Its lines.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        // Numbers, strings and lists of them: nothing that JSON can't write.
        let line = |value: Result<String, serde_json::Error>| value.unwrap_or_default();
        std::iter::once(line(serde_json::to_string(&self.header)))
            .chain(self.records.iter().map(move |record| line(serde_json::to_string(record))))
    }
}

fn header(text: &str) -> Result<Header, String> {
    let header: Header = parse(text).map_err(|problem| {
        let records = parse::<Record>(text).is_ok();
        match records {
            true => "the header is missing: the first line is one such as \
                     {\"sluiceTrace\":1,\"id\":\"t1\",\"scrapeSeconds\":15}"
                .to_owned(),
            false => format!("header: {problem}"),
        }
    })?;
    if header.sluice_trace != VERSION {
        return Err(format!("sluiceTrace: {}: this program reads version {VERSION}", header.sluice_trace));
    }
    if !(header.scrape_seconds.is_finite() && header.scrape_seconds > 0.0) {
        return Err(format!("scrapeSeconds: {}: a number above 0", header.scrape_seconds));
    }
    if let Some(at) = header.les.windows(2).position(|pair| pair[0] >= pair[1]) {
        return Err(format!("les[{}]: {} does not rise from {}", at + 1, header.les[at + 1], header.les[at]));
    }
    if let Some(slo) = header.latency_slo_seconds.filter(|slo| *slo <= 0.0) {
        return Err(format!("latencySLOSeconds: {slo}: a number above 0"));
    }
    Ok(header)
}

fn parse<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.into_inner().to_string());
        // The line is that of the file, and said by the caller.
        let inner = inner.replace(" at line 1 column", " at column");
        // A line that breaks off has no field to name.
        if matches!(path.as_str(), "." | "?") { inner } else { format!("{path}: {inner}") }
    })?;
    json.end().map_err(|error| {
        format!("more follows the object: {error}").replace(" at line 1 column", " at column")
    })?;
    Ok(value)
}

fn check(record: &Record, header: &Header) -> Result<(), String> {
    if !(0.0..=100.0).contains(&record.weight) {
        return Err(format!("weight: {}: a percentage, 0 to 100", record.weight));
    }
    if record.state != State::Ok {
        return Ok(());
    }
    let arms = record.arms.as_ref().ok_or("arms: missing: state ok comes with the counters of both arms")?;
    for (name, series) in [("stable", &arms.stable), ("canary", &arms.canary)] {
        for (index, one) in series.iter().enumerate() {
            let field = |field: &str| format!("arms.{name}[{index}].{field}");
            let counters = [("req", one.req), ("err", one.err)].map(|(name, value)| (name.to_owned(), value));
            let buckets = one.le.iter().enumerate().map(|(at, value)| (format!("le[{at}]"), *value));
            for (counter, value) in counters.into_iter().chain(buckets) {
                if !(value.is_finite() && value >= 0.0) {
                    return Err(format!("{}: {value}: a counter is a number of at least 0", field(&counter)));
                }
            }
            if !one.le.is_empty() && one.le.len() != header.les.len() {
                let (has, wants) = (one.le.len(), header.les.len());
                return Err(format!("{}: {has} buckets, the header's les has {wants}", field("le")));
            }
            if series[..index].iter().any(|other| other.id == one.id) {
                return Err(format!("{}: {:?} appears twice: one series per pod", field("id"), one.id));
            }
        }
    }
    Ok(())
}

/// Whole numbers without a fraction, as counters are written.
pub(super) fn number<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

fn numbers<S: serde::Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Number(#[serde(serialize_with = "number")] f64);
    serializer.collect_seq(values.iter().map(|value| Number(*value)))
}
