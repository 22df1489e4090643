//! The two halves of an answer: counters, and the time and scrape target of the sample behind each.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sluice_core::evidence::{Arm, CodePoint, DataState, PodCounters, Trouble, by_code};

use crate::{excerpt, prometheus::Series};

/// Label that tells the two halves of an answer apart.
pub(super) const PART: &str = "sluice_part";

/// Label of the second half that names the metric, where several were asked for.
pub(super) const METRIC: &str = "sluice_metric";

/// Id and arm of a counter.
pub(super) type Key = (String, Arm);
/// Job and instance of a scrape target.
pub(super) type Target = (String, String);

/// The two halves of an answer.
pub(super) struct Parts<'a> {
    pub counts: Vec<(Key, &'a Series)>,
    pub newest: BTreeMap<Key, BTreeMap<Target, Timestamp>>,
}

impl<'a> Parts<'a> {
    /// `key` answers `None` for a series that is not ours.
    pub(super) fn split(series: &'a [Series], key: impl Fn(&Series) -> Option<Key>) -> Result<Self, Trouble> {
        let mut parts = Self { counts: Vec::new(), newest: BTreeMap::new() };
        for series in series {
            let Some(key) = key(series) else { continue };
            if series.label(PART) == "count" {
                parts.counts.push((key, series));
                continue;
            }
            let at = (series.value * 1000.0).round();
            // A saturating cast: NaN is 0, and a nonsense time is refused below or is merely stale.
            let newest = Timestamp::from_millisecond(at as i64).map_err(|_| {
                Trouble::new(
                    DataState::NotANumber,
                    format!("the time of the newest sample is {}", series.value),
                )
            })?;
            let target = (series.label("job").to_string(), series.label("instance").to_string());
            parts.newest.entry(key).or_default().insert(target, newest);
        }
        Ok(parts)
    }

    pub(super) fn newest_of_pod(&self, key: &Key) -> Result<Timestamp, Trouble> {
        self.newest_of(key, |target| {
            format!(
                "pod {} is scraped {} times, which would count its requests as often: add a matcher such as job={:?}",
                key.0,
                target.len(),
                target[0].0
            )
        })
    }

    pub(super) fn newest_of(
        &self,
        key: &Key,
        several: impl Fn(&[Target]) -> String,
    ) -> Result<Timestamp, Trouble> {
        let targets = self.newest.get(key);
        match targets.map(|targets| (targets.len(), targets.values().max())) {
            Some((1, Some(newest))) => Ok(*newest),
            Some((2.., _)) => {
                let targets: Vec<Target> =
                    targets.into_iter().flatten().map(|(target, _)| target.clone()).collect();
                Err(Trouble::new(DataState::MultipleSeries, several(&targets)))
            }
            _ => Err(invalid(format!("the answer has no sample time for {}", key.0))),
        }
    }
}

/// Counters by code, per arm.
#[derive(Default)]
pub(super) struct Points {
    stable: Vec<CodePoint>,
    canary: Vec<CodePoint>,
}

impl Points {
    pub(super) fn add(
        &mut self,
        (id, arm): &Key,
        code: &str,
        value: f64,
        newest_sample: Timestamp,
        metric: &str,
    ) -> Result<(), Trouble> {
        if !is_status_code(code) {
            return Err(invalid(format!(
                "{metric} of {id} has code {:?}, which is no HTTP status code: name another label in codeLabel",
                excerpt(code, 40)
            )));
        }
        let point = CodePoint { id: id.clone(), code: code.into(), value, newest_sample };
        match arm {
            Arm::Stable => self.stable.push(point),
            Arm::Canary => self.canary.push(point),
        }
        Ok(())
    }

    pub(super) fn counters(&self) -> Result<Vec<PodCounters>, Trouble> {
        let mut counters = by_code(Arm::Stable, &self.stable)?;
        counters.extend(by_code(Arm::Canary, &self.canary)?);
        Ok(counters)
    }
}

/// Sums by id and code, and the time of the newest sample by id and scrape target, in one answer.
pub(super) fn combined(selector: &str, id: &str, codes: &str, target: &str) -> String {
    halves(selector, selector, id, codes, target)
}

/// The same, where `counted` is what `selector` selects with more labels.
pub(super) fn halves(counted: &str, selector: &str, id: &str, codes: &str, target: &str) -> String {
    let part = |query: String, part: &str| format!(r#"label_replace({query}, "{PART}", "{part}", "", "")"#);
    let counts = part(format!("sum by ({id}, {codes}) ({counted})"), "count");
    let newest = part(format!("max by ({id}, {target}) (timestamp({selector}))"), "newest");
    format!("{counts} or {newest}")
}

/// As [`combined`], of whichever of several metrics there are. `conditions` are those of a selector, without braces.
/// `timestamp` drops the name of its metric, and only reads samples of a selector as such: each is asked by itself.
pub(super) fn combined_any(
    metrics: &[String],
    conditions: &str,
    id: &str,
    codes: &str,
    target: &str,
) -> String {
    let names = metrics.join("|");
    let mut query = format!(
        r#"label_replace(sum by (__name__, {id}, {codes}) ({{__name__=~"{names}",{conditions}}}), "{PART}", "count", "", "")"#
    );
    for metric in metrics {
        let newest = format!("max by ({id}, {target}) (timestamp({metric}{{{conditions}}}))");
        let newest = format!(r#"label_replace({newest}, "{PART}", "newest", "", "")"#);
        query.push_str(&format!(r#" or label_replace({newest}, "{METRIC}", "{metric}", "", "")"#));
    }
    query
}

pub(super) fn invalid(message: String) -> Trouble {
    Trouble::new(DataState::QueryError, message)
}

/// `200`, `5xx`, and the `0` and `000` of proxies.
fn is_status_code(code: &str) -> bool {
    let b = code.as_bytes();
    match b {
        b"0" | b"000" => true,
        [b'1'..=b'5', rest @ ..] if rest.len() == 2 => {
            rest.iter().all(u8::is_ascii_digit) || rest.eq_ignore_ascii_case(b"xx")
        }
        _ => false,
    }
}
