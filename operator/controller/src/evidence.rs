//! The evidence loop: asks Prometheus and Alertmanager for every run under way, keeps each run's evidence, and
//! wakes the rollout with a new verdict.
//!
//! Passes never wait for it: a provider that hangs costs freshness, which the verdict says, not reaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt};
use sluice_core::api::{
    ErrorRatioGuard, Guard, PROVIDER_SECRET, ProgressiveRollout, ProviderConfig, RatioSource, Run,
};
use sluice_core::config::Config;
use sluice_core::evidence::{DataState, EvidenceState, Outcome, Poll, Sample, Trouble};
use sluice_core::judge::{Evaluation, Quiet, at_rest, judge};
use sluice_core::verdict::Verdict;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::client::bounded;
use crate::context::Context;
use crate::panics::contained;
use crate::pods;
use crate::providers::Providers;
use crate::providers::auth::SecretData;
use crate::providers::queries::{PodsQuery, RatioQuery, TraefikQuery, ask};
use crate::watch::Key;

/// Limit on reading the Secret of a provider.
const SECRET_LIMIT: Duration = Duration::from_secs(2);
/// Answers that come within this time of each other are judged together.
const TOGETHER: Duration = Duration::from_millis(250);
/// Clients of providers that no rollout names any more are dropped this often.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(60);
/// Alerts for held revisions are looked at this often.
const HELD_INTERVAL: Duration = Duration::from_secs(10);

/// Verdicts by rollout.
#[derive(Default)]
pub struct EvidenceStore {
    entries: Mutex<BTreeMap<Key, Entry>>,
}

#[derive(Clone, Default)]
struct Entry {
    /// UID of the rollout: one that is created again may have a run of the same name.
    uid: String,
    run_id: String,
    state: EvidenceState,
    quiet: Option<Quiet>,
    verdict: Verdict,
}

impl EvidenceStore {
    /// The newest verdict on a rollout; an empty one when there is none.
    pub fn verdict(&self, key: &Key) -> Verdict {
        self.lock().get(key).map(|entry| entry.verdict.clone()).unwrap_or_default()
    }

    /// Whether the run must go back.
    pub fn wants_back(&self, key: &Key) -> bool {
        self.lock().get(key).is_some_and(|entry| entry.verdict.abort.is_some())
    }

    /// Forgets a rollout.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Keeps what is about these rollouts, by their UIDs.
    fn retain(&self, known: &BTreeMap<Key, String>) {
        self.lock().retain(|key, entry| known.get(key) == Some(&entry.uid));
    }

    /// The entry of a run: what is known in this process, or what status remembers.
    fn entry(&self, key: &Key, uid: &str, run: &Run) -> Entry {
        match self.lock().get(key) {
            Some(entry) if entry.uid == uid && entry.run_id == run.id => entry.clone(),
            _ => Entry {
                uid: uid.to_owned(),
                run_id: run.id.clone(),
                state: run.evidence.clone().unwrap_or_default(),
                quiet: None,
                verdict: Verdict::default(),
            },
        }
    }

    fn put(&self, key: &Key, entry: Entry) {
        self.lock().insert(key.clone(), entry);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Entry>> {
        // Entries are inserted whole: a panic elsewhere leaves nothing half-done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a rollout is evaluated next, if at all, and the version of it that says so.
struct Due {
    version: Option<String>,
    at: Option<tokio::time::Instant>,
}

/// Evaluates every run once per interval, spread over it, until `stop`.
pub async fn poll(ctx: Arc<Context>, providers: Providers, stop: CancellationToken) {
    let interval =
        Duration::from_secs(u64::try_from(ctx.config.evaluation_interval_seconds).unwrap_or(15).max(1));
    let mut next: BTreeMap<Key, Due> = BTreeMap::new();
    let mut tasks: tokio::task::JoinSet<Key> = tokio::task::JoinSet::new();
    let mut running = BTreeSet::new();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut cleaned = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(done) = tasks.join_next() => {
                if let Ok(key) = done {
                    running.remove(&key);
                }
                continue;
            }
            _ = tick.tick() => {}
        }
        let now = tokio::time::Instant::now();
        let mut known = BTreeMap::new();
        for object in ctx.stores.rollouts() {
            let key = Key::of(&object);
            known.insert(key.clone(), object.uid().unwrap_or_default());
            let version = object.resource_version();
            let due = next.get(&key);
            // Ten times a second: only what changed or is due is read.
            if due.is_some_and(|due| due.version == version && due.at.is_none_or(|at| at > now)) {
                continue;
            }
            let Some(Ok(rollout)) = ctx.newest(&key) else {
                continue;
            };
            let Some(every) = due_every(&ctx.config, &rollout, interval) else {
                // An old run's verdict has nothing to say any more.
                ctx.evidence.forget(&key);
                next.insert(key, Due { version, at: None });
                continue;
            };
            // A run that starts is not kept waiting by the longer interval at rest.
            let when = due
                .and_then(|due| due.at)
                .map_or_else(|| now + spread(&key, every), |when| when.min(now + every));
            if when > now || running.contains(&key) {
                next.insert(key, Due { version, at: Some(when) });
                continue;
            }
            next.insert(key.clone(), Due { version, at: Some(now + every) });
            running.insert(key.clone());
            let (ctx, providers) = (ctx.clone(), providers.clone());
            tasks.spawn(async move {
                contained("evidence", evaluate(&ctx, &providers, &key, &rollout)).await;
                key
            });
        }
        next.retain(|key, _| known.contains_key(key));
        ctx.evidence.retain(&known);
        if cleaned.elapsed() >= CLEANUP_INTERVAL {
            cleaned = now;
            let used = in_use(&ctx, known.keys());
            providers.retain(|provider| used.contains(provider));
        }
    }
}

/// The providers of the installation and those that these rollouts name, with the namespaces of their Secrets.
fn in_use<'a>(ctx: &Context, keys: impl Iterator<Item = &'a Key>) -> BTreeSet<(String, ProviderConfig)> {
    let installed = [&ctx.config.prometheus, &ctx.config.alertmanager].into_iter().flatten();
    let mut used: BTreeSet<_> =
        installed.map(|config| (ctx.clients.namespace.clone(), config.clone())).collect();
    for key in keys {
        if let Some(Ok(rollout)) = ctx.newest(key) {
            let own = [&rollout.spec.prometheus, &rollout.spec.alertmanager];
            used.extend(own.into_iter().flatten().map(|config| (key.namespace.clone(), config.clone())));
        }
    }
    used
}

/// How often a rollout is evaluated now, if at all.
fn due_every(config: &Config, rollout: &ProgressiveRollout, interval: Duration) -> Option<Duration> {
    let status = rollout.status.as_ref()?;
    if status.run.is_some() {
        return Some(interval);
    }
    // At rest, the alerts of the last moments before a hold are what tells an old alert from a new one.
    let watches = guards_at_rest(config, rollout).iter().any(|guard| guard.alert.is_some());
    // A held template does not start before such a look.
    let waits = status.held.as_ref().is_some_and(|held| held.ended.is_none());
    watches.then_some(if waits { interval } else { HELD_INTERVAL.max(interval) })
}

/// The guards that a run would have.
fn guards_at_rest<'a>(config: &'a Config, rollout: &'a ProgressiveRollout) -> &'a Vec<Guard> {
    if rollout.spec.guards.is_empty() { &config.default_guards } else { &rollout.spec.guards }
}

/// Rollouts ask at different moments of the interval; a short interval needs no spreading.
fn spread(key: &Key, every: Duration) -> Duration {
    if every < Duration::from_secs(5) {
        return Duration::ZERO;
    }
    let bytes = key.namespace.bytes().chain(key.name.bytes());
    let hash = bytes.fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
    every.mul_f64(f64::from(hash % 1000) / 1000.0)
}

/// What one source answered.
enum Answer {
    Alerts(Arc<Poll>),
    Counters(String, Sample),
}

async fn evaluate(ctx: &Context, providers: &Providers, key: &Key, rollout: &ProgressiveRollout) {
    let secrets = Secrets { ctx, key };
    let uid = rollout.uid().unwrap_or_default();
    let run = rollout.status.as_ref().and_then(|status| status.run.as_ref());
    let guards = run.map_or_else(|| guards_at_rest(&ctx.config, rollout), |run| &run.plan.guards);
    let poll = guards
        .iter()
        .any(|guard| guard.alert.is_some())
        .then(|| async { Answer::Alerts(alerts(ctx, providers, &secrets, rollout).await) }.boxed());
    let Some(run) = run else {
        let poll = match poll {
            Some(poll) => Some(poll.await),
            None => None,
        };
        let poll = poll.as_ref().and_then(Answer::poll);
        let verdict = at_rest(guards, poll, &ctx.evidence.verdict(key));
        ctx.evidence.put(key, Entry { uid, verdict, ..Entry::default() });
        return;
    };
    let created = created(ctx, key, run).shared();
    let ratios = guards.iter().filter_map(|guard| Some((&guard.name, guard.error_ratio.as_ref()?)));
    let samples = ratios.map(|(name, ratio)| {
        let (secrets, created) = (&secrets, created.clone());
        async move {
            let created = created.await;
            Answer::Counters(
                name.clone(),
                sample(ctx, providers, secrets, rollout, run, ratio, &created).await,
            )
        }
        .boxed()
    });
    let mut asked: FuturesUnordered<_> = poll.into_iter().chain(samples).collect();
    // Sources that are well answer together and are judged together. One that hangs must not keep the answer of
    // another waiting, which may be reason enough to go back.
    while let Some(first) = asked.next().await {
        let mut answers = vec![first];
        let until = tokio::time::Instant::now() + TOGETHER;
        while let Ok(Some(next)) = tokio::time::timeout_at(until, asked.next()).await {
            answers.push(next);
        }
        take_in(ctx, key, &uid, run, answers);
    }
}

impl Answer {
    fn poll(&self) -> Option<&Poll> {
        match self {
            Self::Alerts(poll) => Some(poll),
            Self::Counters(..) => None,
        }
    }
}

/// Judges a run anew with these answers, and wakes it.
fn take_in(ctx: &Context, key: &Key, uid: &str, run: &Run, answers: Vec<Answer>) {
    let (mut poll, mut samples) = (None, Vec::new());
    for answer in answers {
        match answer {
            Answer::Alerts(answer) => poll = Some(answer),
            Answer::Counters(name, sample) => samples.push((name, sample)),
        }
    }
    let mut entry = ctx.evidence.entry(key, uid, run);
    let counts = run.plan.guards.iter().find(|guard| guard.error_ratio.is_some()).map(|guard| &guard.name);
    if let Some((_, sample)) = samples.iter().find(|(name, _)| Some(name) == counts) {
        entry.quiet = Quiet::update(entry.quiet, sample);
    }
    let evaluation = Evaluation {
        run,
        samples: &samples,
        poll: poll.as_deref(),
        quiet: entry.quiet,
        interval_seconds: ctx.config.evaluation_interval_seconds,
        now: Timestamp::now(),
    };
    let before = std::mem::take(&mut entry.verdict);
    entry.verdict = judge(&evaluation, &mut entry.state);
    // Once is enough: a score that fell again before the abort could be written is no acquittal.
    entry.verdict.abort = before.abort.or(entry.verdict.abort);
    if poll.is_none() {
        entry.verdict.firing = before.firing;
    }
    debug!(rollout = %key.name, namespace = %key.namespace, run = %run.id, abort = ?entry.verdict.abort, gate = entry.verdict.gate_open, "evaluated");
    ctx.evidence.put(key, entry);
    let _ = ctx.queue.send(key.clone());
}

/// When the pods of a run were created, if a guard counts by pod.
async fn created(ctx: &Context, key: &Key, run: &Run) -> BTreeMap<String, Timestamp> {
    let by_pod = run.plan.guards.iter().filter_map(|guard| guard.error_ratio.as_ref());
    match by_pod.map(|ratio| ratio.source).any(|source| source == RatioSource::Pods) {
        true => pods::created(ctx, key, run).await,
        false => BTreeMap::new(),
    }
}

async fn sample(
    ctx: &Context,
    providers: &Providers,
    secrets: &Secrets<'_>,
    rollout: &ProgressiveRollout,
    run: &Run,
    ratio: &ErrorRatioGuard,
    created: &BTreeMap<String, Timestamp>,
) -> Sample {
    let at = Timestamp::now();
    let trouble = |trouble: Trouble| Sample { at, outcome: Outcome::Trouble(trouble) };
    let Some((namespace, config)) =
        choose(ctx, secrets.key, rollout.spec.prometheus.as_ref(), ctx.config.prometheus.as_ref())
    else {
        return trouble(crate::providers::prometheus::not_configured());
    };
    let secret = match secrets.read(&namespace, config).await {
        Ok(secret) => secret,
        Err(message) => return trouble(Trouble::new(DataState::QueryError, message)),
    };
    match providers.prometheus(&namespace, config, &secret) {
        Ok(prometheus) => ask(&prometheus, &query(secrets.key, run, ratio, created), at).await,
        Err(error) => trouble(error.into()),
    }
}

/// Which series belong to which arm. The arms stay those of the run: after promotion both Services lead to the
/// new revision.
fn query(key: &Key, run: &Run, ratio: &ErrorRatioGuard, created: &BTreeMap<String, Timestamp>) -> RatioQuery {
    match ratio.source {
        RatioSource::Pods => RatioQuery::Pods(PodsQuery {
            namespace: key.namespace.clone(),
            stable: vec![run.stable.replica_set.clone()],
            canary: vec![run.canary.replica_set.clone()],
            metric: ratio.metric.clone(),
            code_label: ratio.code_label.clone(),
            matchers: ratio.matchers.clone(),
            created: created.clone(),
        }),
        RatioSource::Traefik => RatioQuery::Traefik(TraefikQuery {
            namespace: key.namespace.clone(),
            routes: run.plan.routes.iter().map(|route| route.name.clone()).collect(),
            promoted: run.released,
            stable_service: run.plan.stable_service.clone(),
            canary_service: run.plan.canary_service.clone(),
        }),
    }
}

async fn alerts(
    ctx: &Context,
    providers: &Providers,
    secrets: &Secrets<'_>,
    rollout: &ProgressiveRollout,
) -> Arc<Poll> {
    let unanswered =
        |message: String| Arc::new(Poll { at: Timestamp::now(), answer: Err(message), silences: Vec::new() });
    let Some((namespace, config)) =
        choose(ctx, secrets.key, rollout.spec.alertmanager.as_ref(), ctx.config.alertmanager.as_ref())
    else {
        return unanswered(
            "no Alertmanager is configured: set spec.alertmanager.url or the chart's alertmanager.url"
                .to_owned(),
        );
    };
    let secret = match secrets.read(&namespace, config).await {
        Ok(secret) => secret,
        Err(message) => return unanswered(message),
    };
    match providers.alertmanager(&namespace, config, &secret) {
        // All rollouts of one Alertmanager share an answer that is younger than half an interval.
        Ok(source) => {
            let seconds = f64::from(ctx.config.evaluation_interval_seconds.max(1));
            source.poll(Duration::from_secs_f64(seconds / 2.0)).await
        }
        Err(error) => unanswered(error.to_string()),
    }
}

/// The rollout's own provider with its namespace's Secret, else the installation's with that of the controller.
fn choose<'a>(
    ctx: &Context,
    key: &Key,
    own: Option<&'a ProviderConfig>,
    installed: Option<&'a ProviderConfig>,
) -> Option<(String, &'a ProviderConfig)> {
    match (own, installed) {
        (Some(own), _) => Some((key.namespace.clone(), own)),
        (None, Some(installed)) => Some((ctx.clients.namespace.clone(), installed)),
        (None, None) => None,
    }
}

struct Secrets<'a> {
    ctx: &'a Context,
    key: &'a Key,
}

impl Secrets<'_> {
    /// The Secret that a provider refers to; not read when it refers to none.
    async fn read(&self, namespace: &str, config: &ProviderConfig) -> Result<SecretData, String> {
        let refers = config.ca_key.is_some()
            || config.bearer_token_key.is_some()
            || config.basic_user_key.is_some()
            || config.headers.iter().any(|header| header.value_key.is_some());
        if !refers {
            return Ok(SecretData::default());
        }
        let api: Api<Secret> = Api::namespaced(self.ctx.clients.normal.clone(), namespace);
        let read = bounded(
            format!("get Secret {namespace}/{PROVIDER_SECRET}"),
            SECRET_LIMIT,
            api.get_opt(PROVIDER_SECRET),
        );
        read.await.map(|secret| SecretData::from(secret.as_ref())).map_err(|error| error.to_string())
    }
}
