//! What an HTTP status code says about a request: counted or not, failed or not.
//!
//! Failed: 5xx, and 0 as proxies report requests that never got an answer. Not counted: 499, the client went
//! away. Everything else counts as answered.

use super::counts::{Arm, PodCounters, Trouble, check_value};
use super::state::DataState;
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Labels in which a status code is looked for, in this order, unless people name one.
pub const CODE_LABELS: [&str; 5] =
    ["code", "status", "status_code", "http_response_status_code", "http_status_code"];

/// What one request adds to the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A request that was answered.
    Good,
    /// A request that failed.
    Bad,
    /// Not a request that says anything about the revision.
    NotCounted,
}

/// Class of a status code label, such as `200`, `503`, `5xx` or `0`.
pub fn classify(code: &str) -> Class {
    let code = code.trim();
    if code == "499" {
        Class::NotCounted
    } else if code == "0" || code == "000" || (code.len() == 3 && code.starts_with('5')) {
        Class::Bad
    } else {
        Class::Good
    }
}

/// One series of a counter by pod and status code.
#[derive(Clone, Debug, PartialEq)]
pub struct CodePoint {
    /// Pod or router instance, empty for a source without them.
    pub id: String,
    /// Value of the status code label.
    pub code: String,
    /// Cumulative requests.
    pub value: f64,
    /// Time of the newest sample behind the value.
    pub newest_sample: Timestamp,
}

/// Counters per pod from one query by pod and code. A pod without a failing code has `bad: None`.
///
/// # Errors
/// `MultipleSeries` when a pod and code appear twice, `NotANumber` for NaN, infinite or negative values.
pub fn by_code(arm: Arm, points: &[CodePoint]) -> Result<Vec<PodCounters>, Trouble> {
    let mut seen = BTreeMap::new();
    let mut pods: BTreeMap<&str, PodCounters> = BTreeMap::new();
    for p in points {
        check_value(arm, &p.id, p.value)?;
        if seen.insert((p.id.as_str(), p.code.as_str()), ()).is_some() {
            return Err(Trouble::new(
                DataState::MultipleSeries,
                format!("{arm} {:?} has several series with code {:?}: narrow the matchers", p.id, p.code),
            ));
        }
        let pod = pods.entry(p.id.as_str()).or_insert_with(|| PodCounters {
            id: p.id.clone(),
            arm,
            total: 0.0,
            bad: None,
            maybe_bad: None,
            newest_sample: p.newest_sample,
            created: None,
            out_of_memory: false,
        });
        pod.newest_sample = pod.newest_sample.max(p.newest_sample);
        match classify(&p.code) {
            Class::Good => pod.total += p.value,
            Class::Bad => {
                pod.total += p.value;
                pod.bad = Some(pod.bad.unwrap_or(0.0) + p.value);
            }
            Class::NotCounted => {}
        }
    }
    Ok(pods.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        for code in ["500", "503", "599", "0", "000", " 502 ", "5xx"] {
            assert_eq!(classify(code), Class::Bad, "{code}");
        }
        for code in ["200", "301", "404", "429", "100", "", "5", "50", "5000", "OK", "498"] {
            assert_eq!(classify(code), Class::Good, "{code}");
        }
        assert_eq!(classify("499"), Class::NotCounted);
    }

    #[test]
    fn counters_by_code() {
        let p = |id: &str, code: &str, value| CodePoint {
            id: id.into(),
            code: code.into(),
            value,
            newest_sample: Timestamp::UNIX_EPOCH,
        };
        let pods = by_code(
            Arm::Canary,
            &[
                p("a", "200", 90.0),
                p("a", "500", 7.0),
                p("a", "0", 3.0),
                p("a", "499", 50.0),
                p("b", "200", 4.0),
            ],
        );
        let pods = pods.unwrap_or_default();
        assert_eq!(pods.len(), 2);
        assert_eq!((pods[0].total, pods[0].bad), (100.0, Some(10.0)));
        assert_eq!((pods[1].total, pods[1].bad), (4.0, None));
        let twice = by_code(Arm::Canary, &[p("a", "200", 1.0), p("a", "200", 2.0)]);
        assert_eq!(twice.map_err(|t| t.state), Err(DataState::MultipleSeries));
        let nan = by_code(Arm::Canary, &[p("a", "200", f64::NAN)]);
        assert_eq!(nan.map_err(|t| t.state), Err(DataState::NotANumber));
    }
}
