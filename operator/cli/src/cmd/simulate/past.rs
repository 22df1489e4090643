//! Past rollouts, found in the metrics and judged by each class.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use sluice_core::api::RiskClass;
use sluice_core::trace::Trace;

use super::find::{Ended, History, Rollout, STEP, rollouts};
use super::prometheus::{Prometheus, Range, Series};
use super::query::Query;
use super::record::{BASELINE, Tape, WATCHED, totals};
use super::report::{Arm, PastRollout, Verdict};
use super::{Context, Form, Judge, report, table};
use crate::args::Past;
use crate::cmd::{now, size};
use crate::exit::Code;
use crate::fail::Failure;
use crate::out::{Line, clean};

/// Seconds of presence that one query asks for: it touches every sample of the counter.
const DAY: i64 = 86_400;
/// Seconds of counters that one query asks for.
const HOUR: i64 = 3600;
/// A trace is not longer than this after the canary appears. A rollout that was stuck for weeks says no more.
const LONGEST: i64 = 2 * DAY;
/// Scrape intervals that people set, in seconds. What is measured is one of them.
const INTERVALS: [i64; 8] = [1, 5, 10, 15, 20, 30, 60, 120];
/// Traces begin steps at the weights of this class, the one of traces that name none. One trace for all classes keeps
/// what they say comparable: a tighter class never stops later.
const STEPS_OF: RiskClass = RiskClass::R2;

/// Runs `simulate --from-prometheus`.
pub async fn run(
    context: &Context,
    form: Form,
    judge: &Judge,
    url: &str,
    args: &Past,
) -> Result<Code, Failure> {
    let query = Query::new(args, context.global.namespace.as_deref())?;
    if let Some(limit) = args.latency_slo.filter(|limit| !(limit.is_finite() && *limit > 0.0)) {
        return Err(Failure::usage(format!("--latency-slo {limit}: write seconds above 0, such as 0.5")));
    }
    let prometheus = Prometheus::new(url, &args.headers, args.bearer_file.as_deref())?;
    let mut search = Search { prometheus, query, args, judge, now: now().as_second() };
    let Found { rollouts, scrape, words } = search.find().await?;
    if rollouts.is_empty() {
        eprintln!("{}", clean(&words));
        return Ok(Code::Fine);
    }
    let (width, _) = size(context.terminal);
    let mut code = Code::Fine;
    let mut held = false;
    if let Form::Table { .. } = form {
        context.print(&[Line::new(&words)])?;
    }
    for rollout in &rollouts {
        let past = match search.judge(rollout, scrape).await {
            Ok((past, trace)) => {
                if let Some(dir) = &args.write {
                    keep(dir, &trace)?;
                }
                past
            }
            Err(problem) => {
                let at = Timestamp::from_second(rollout.from).unwrap_or_default();
                let Rollout { stable, canary, .. } = rollout;
                eprintln!("error: rollout {stable} -> {canary} of about {at}: {}", clean(&problem));
                code = Code::Error;
                continue;
            }
        };
        held |= past.is_held();
        match form {
            Form::Table { .. } => context.print(&report::lines(&past, width))?,
            Form::Documents(format) => context.document(format, "", &past, true)?,
        }
    }
    if let (Form::Table { .. }, true) = (form, held) {
        context.print(&report::about_held(width))?;
    }
    Ok(code)
}

/// What a search works with.
pub struct Search<'a> {
    pub prometheus: Prometheus,
    pub query: Query,
    pub args: &'a Past,
    pub judge: &'a Judge,
    /// Unix seconds.
    pub now: i64,
}

/// What is found in the history.
pub struct Found {
    /// Rollouts, oldest first.
    pub rollouts: Vec<Rollout>,
    /// Seconds between two scrapes.
    pub scrape: i64,
    /// What was looked for, and what was there.
    pub words: String,
}

impl Search<'_> {
    /// Finds the rollouts. The clock is the caller's.
    pub async fn find(&mut self) -> Result<Found, Failure> {
        let start = (self.now - self.args.since.as_secs()).div_euclid(STEP) * STEP;
        let range = Range { start, end: self.now, step: STEP, chunk: DAY };
        let series = self.prometheus.range(&self.query.presence(), range).await.map_err(Failure::new)?;
        let history = self.history(&series).map_err(Failure::new)?;
        let Query { namespace, name, .. } = &self.query;
        let since = Timestamp::from_second(start).unwrap_or_default();
        if history.is_empty() {
            return Err(Failure::new(format!(
                "{} has no series of the pods of {namespace}/{name} since {since}: looked for {}, pods named \
                 {name}-HASH-xxxxx as those of a Deployment are. Check --workload, --metric and --matchers, and how \
                 far back this Prometheus remembers.",
                self.prometheus.address,
                self.query.selector(&self.query.metric)
            )));
        }
        let rollouts = rollouts(&history);
        let scrape = match self.args.scrape {
            Some(scrape) => scrape.as_secs().max(1),
            None => measured(&series),
        };
        let words = match rollouts.len() {
            0 => {
                let first = history.values().filter_map(|points| points.keys().next()).min();
                let first = first.and_then(|first| Timestamp::from_second(*first).ok()).unwrap_or(since);
                format!(
                    "no rollout of {namespace}/{name} since {first}, where its metrics begin: {} seen, none of which \
                     appeared while another one served. Look further back with --since, or elsewhere with --workload.",
                    plural(history.len(), "revision")
                )
            }
            count => format!("{} of {namespace}/{name} since {since}", plural(count, "rollout")),
        };
        Ok(Found { rollouts, scrape, words })
    }

    fn history(&self, series: &[Series]) -> Result<History, String> {
        let mut history = History::new();
        let mut seen: BTreeMap<(&str, i64), &Series> = BTreeMap::new();
        for one in series {
            let pod = one.label("pod");
            let Some(hash) = self.query.revision(pod) else { continue };
            let points = history.entry(hash.to_owned()).or_default();
            for (t, _) in &one.points {
                if let Some(other) = seen.insert((pod, *t), one) {
                    return Err(format!(
                        "pod {pod} is scraped twice, by job {:?} instance {:?} and by job {:?} instance {:?}: its \
                         requests would count as often. Choose one, such as --matchers 'job={:?}'.",
                        other.label("job"),
                        other.label("instance"),
                        one.label("job"),
                        one.label("instance"),
                        one.label("job")
                    ));
                }
                *points.entry(*t).or_default() += 1;
            }
        }
        Ok(history)
    }

    /// Makes a rollout's trace and judges it.
    pub async fn judge(&mut self, rollout: &Rollout, scrape: i64) -> Result<(PastRollout, Trace), String> {
        // Only after a promotion does anything follow: the time at weight 100.
        let after = if rollout.ended == Ended::Promoted { WATCHED } else { 0 };
        let end = (rollout.to + after).min(rollout.next.unwrap_or(i64::MAX)).min(self.now);
        let start = (rollout.from - BASELINE).div_euclid(scrape) * scrape;
        let cut = rollout.from + LONGEST;
        let range = Range { start, end: end.min(cut), step: scrape, chunk: HOUR };
        let counts = self.prometheus.range(&self.query.counts(scrape), range).await?;
        let buckets = match (&self.args.latency_metric, self.args.latency_slo) {
            (Some(metric), Some(limit)) => {
                let buckets = self.query.buckets(metric, scrape);
                Some((limit, self.prometheus.range(&buckets, range).await?))
            }
            _ => None,
        };
        let weights = self.judge.table.weights(STEPS_OF);
        let tape = Tape {
            rollout,
            query: &self.query,
            start,
            end: range.end,
            scrape,
            weights: &weights,
            counts: &counts,
            latency: buckets.as_ref().map(|(limit, series)| (*limit, series.as_slice())),
        };
        let (mut trace, mut notes) = tape.trace()?;
        if end > cut {
            notes.push(format!("only its first {} hours are judged", LONGEST / HOUR));
        }
        let exposed = table::exposed(&trace).ok_or("the newer revision never had counters")?;
        let first =
            trace.records.iter().find(|record| record.weight > 0.0).map_or(exposed, |record| record.t);
        let started = Timestamp::from_second(first as i64).unwrap_or_default();
        let Query { namespace, name, .. } = &self.query;
        trace.header.id = format!("{name}-{}-{}", rollout.canary, started.strftime("%Y%m%dT%H%M%SZ"));
        let classes = match self.judge.classes.as_slice() {
            [] => &RiskClass::ALL[..],
            some => some,
        };
        let outcomes = self.judge.outcomes(&trace, classes);
        let [stable, canary] = totals(&trace, f64::INFINITY);
        let last = trace.records.last().map_or(exposed, |record| record.t);
        let (api_version, kind) = PastRollout::KIND;
        let past = PastRollout {
            api_version,
            kind,
            trace: trace.header.id.clone(),
            workload: format!("{namespace}/{name}"),
            started,
            seconds: (last - exposed) as i64,
            ended: rollout.ended,
            scrape_seconds: scrape,
            stable: Arm::new(&rollout.stable, stable),
            canary: Arm::new(&rollout.canary, canary),
            classes: outcomes.into_iter().map(|outcome| Verdict::new(&trace, exposed, outcome)).collect(),
            notes,
        };
        Ok((past, trace))
    }
}

/// The scrape interval, from samples a pod has in a step: half of the steps are whole ones, or all are short.
fn measured(series: &[Series]) -> i64 {
    let mut samples: Vec<f64> = series.iter().flat_map(|one| &one.points).map(|(_, value)| *value).collect();
    samples.sort_by(f64::total_cmp);
    let median = samples.get(samples.len() / 2).copied().unwrap_or(1.0).max(1.0);
    let seconds = STEP as f64 / median;
    let distance = |interval: &i64| (*interval as f64 / seconds).ln().abs();
    INTERVALS.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap_or(15)
}

fn keep(dir: &Path, trace: &Trace) -> Result<(), Failure> {
    let file = dir.join(format!("{}.jsonl", trace.header.id));
    let text: String = trace.lines().map(|line| line + "\n").collect();
    std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&file, text)).map_err(|error| {
        Failure::new(format!(
            "--write: {} can't be written: {error}: choose another directory",
            file.display()
        ))
    })
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { format!("1 {word}") } else { format!("{count} {word}s") }
}
