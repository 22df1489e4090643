//! One question to one source: which provider a rollout asks, with which Secret, for what. Whatever goes wrong is an
//! answer too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use sluice_core::api::{
    AlertSource, Counted, Guard, GuardAction, MetricGuard, PROVIDER_SECRET, Plan, ProgressiveRollout,
    ProviderConfig, Run,
};
use sluice_core::evidence::{DataState, GaugeLook, Outcome, Poll, Sample, Trouble};
use sluice_core::judge::{Weighed, weighed};
use sluice_providers::auth::SecretData;
use sluice_providers::prometheus::{Prometheus, not_configured};
use sluice_providers::queries::{Arms, MetricQuery, RatioQuery, ask, budget, history, look, record};
use sluice_providers::{ProviderKey, Providers};

use crate::client::bounded;
use crate::context::Context;
use crate::pods;
use crate::watch::Key;

/// Limit on reading the Secret of a provider.
const SECRET_LIMIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
enum Kind {
    Prometheus,
    Alertmanager,
}

/// The rollout's own provider with its namespace's Secret, else the installation's with that of the controller.
fn choose(ctx: &Context, key: &Key, rollout: &ProgressiveRollout, kind: Kind) -> Option<ProviderKey> {
    let (own, installed) = match kind {
        Kind::Prometheus => (&rollout.spec.prometheus, &ctx.config.prometheus),
        Kind::Alertmanager => (&rollout.spec.alertmanager, &ctx.config.alertmanager),
    };
    let own = own.clone().map(|config| (key.namespace.clone(), config));
    own.or_else(|| installed.clone().map(|config| (ctx.clients.namespace.clone(), config)))
}

/// The providers that these rollouts would ask.
pub(super) fn in_use<'a>(ctx: &Context, keys: impl Iterator<Item = &'a Key>) -> BTreeSet<ProviderKey> {
    let mut used = BTreeSet::new();
    for key in keys {
        if let Some(Ok(rollout)) = ctx.newest(key) {
            let kinds = [Kind::Prometheus, Kind::Alertmanager];
            used.extend(kinds.into_iter().filter_map(|kind| choose(ctx, key, &rollout, kind)));
        }
    }
    used
}

/// What is known of a guard before it is asked for.
#[derive(Clone, Copy)]
pub(super) struct Known {
    /// Nothing was counted yet, by this process or one before it.
    pub from_scratch: bool,
    /// The bound that follows from what was usual for stable, in seconds.
    pub bound: Option<f64>,
}

/// The counters of a guard.
pub(super) struct Counters {
    /// Of the time before, oldest first; empty unless nothing was known yet.
    pub history: Vec<Sample>,
    /// Now.
    pub now: Sample,
}

/// Asks for one rollout.
pub(super) struct Asker<'a> {
    pub ctx: &'a Context,
    pub providers: &'a Providers,
    pub key: &'a Key,
    pub rollout: &'a ProgressiveRollout,
}

impl Asker<'_> {
    /// The alerts that fire now.
    pub async fn alerts(&self, source: AlertSource) -> Arc<Poll> {
        // All rollouts of one source share an answer that is younger than half an interval.
        let seconds = f64::from(self.ctx.config.evaluation_interval_seconds.max(1));
        let max_age = Duration::from_secs_f64(seconds / 2.0);
        let unanswered = |message: String| {
            Arc::new(Poll { at: Timestamp::now(), answer: Err(message), silences: Vec::new() })
        };
        if source == AlertSource::Prometheus {
            return match self.prometheus().await {
                Ok(prometheus) => prometheus.alerts(max_age).await,
                Err(trouble) => unanswered(trouble.message),
            };
        }
        let Some((namespace, config)) = choose(self.ctx, self.key, self.rollout, Kind::Alertmanager) else {
            return unanswered(
                "no Alertmanager is configured: set spec.alertmanager.url or the chart's alertmanager.url"
                    .to_owned(),
            );
        };
        let secret = match self.secret(&namespace, &config).await {
            Ok(secret) => secret,
            Err(message) => return unanswered(message),
        };
        match self.providers.alertmanager(&namespace, &config, &secret) {
            Ok(source) => source.poll(max_age).await,
            Err(error) => unanswered(error.to_string()),
        }
    }

    /// The counters of a guard; of one from scratch, those of the hour before as well.
    pub async fn samples(
        &self,
        run: &Run,
        counted: Counted<'_>,
        created: &BTreeMap<String, Timestamp>,
        known: Known,
    ) -> Counters {
        let trouble = |trouble: Trouble| Counters {
            history: Vec::new(),
            now: Sample { bound: None, at: Timestamp::now(), outcome: Outcome::Trouble(trouble) },
        };
        let prometheus = match self.prometheus().await {
            Ok(prometheus) => prometheus,
            Err(error) => return trouble(error),
        };
        let query = RatioQuery::new(&Arms::of(&self.key.namespace, run), counted, created);
        let query = query.with_bound(known.bound);
        let seconds = self.ctx.config.evaluation_interval_seconds;
        let history = match known.from_scratch {
            true => match history(&prometheus, &query, Timestamp::now(), seconds).await {
                Ok(history) => history,
                // The next look begins from scratch again.
                Err(down) => return trouble(down),
            },
            false => Vec::new(),
        };
        let query = query.with_bound(history.last().and_then(|sample| sample.bound));
        Counters { history, now: ask(&prometheus, &query, Timestamp::now()).await }
    }

    /// The value that a guard of a person's own watches.
    pub async fn value(&self, run: &Run, metric: &MetricGuard) -> GaugeLook {
        let at = Timestamp::now();
        let query = match MetricQuery::new(&Arms::of(&self.key.namespace, run), metric) {
            Ok(query) => query,
            Err(trouble) => return GaugeLook { at, answer: Err(trouble) },
        };
        match self.prometheus().await {
            Ok(prometheus) => look(&prometheus, &query, Timestamp::now()).await,
            Err(trouble) => GaugeLook { at, answer: Err(trouble) },
        }
    }

    /// The share that is left of the error budget by a policy's query, or why that is not known.
    pub async fn budget(&self, query: &str) -> Result<f64, String> {
        let stable = self.rollout.status.as_ref().and_then(|status| status.stable.as_ref());
        let stable = stable.map_or("", |stable| stable.replica_set.as_str());
        let promql = budget::promql(&self.key.namespace, stable, &self.rollout.spec.routing.service, query);
        let answer = async {
            let prometheus = self.prometheus().await?;
            budget::left(&prometheus, &promql, Timestamp::now()).await
        };
        answer.await.map_err(|trouble: Trouble| trouble.message)
    }

    /// Stable's record by each guard that a plan is forecast for, one after the other: nothing is in a hurry.
    pub async fn record(&self, plan: &Plan, stable: &str) -> Vec<(String, Vec<Sample>)> {
        let arms = Arms::at_rest(&self.key.namespace, stable, plan);
        let counting = |weighed: &Weighed<'_>| {
            weighed.judged.needs_evidence && weighed.guard.action != GuardAction::Observe
        };
        let mut records = Vec::new();
        for weighed in weighed(plan).into_iter().filter(counting) {
            let query = RatioQuery::new(&arms, weighed.counted, &BTreeMap::new());
            let at = Timestamp::now();
            let seconds = self.ctx.config.evaluation_interval_seconds;
            let found = async {
                let prometheus = self.prometheus().await?;
                record(&prometheus, &query, at, seconds).await
            };
            let samples = found.await.unwrap_or_else(|trouble: Trouble| {
                vec![Sample { bound: None, at, outcome: Outcome::Trouble(trouble) }]
            });
            records.push((weighed.guard.name.clone(), samples));
        }
        records
    }

    /// The Prometheus that the rollout asks.
    async fn prometheus(&self) -> Result<Arc<Prometheus>, Trouble> {
        let chosen = choose(self.ctx, self.key, self.rollout, Kind::Prometheus);
        let (namespace, config) = chosen.ok_or_else(not_configured)?;
        let secret = self.secret(&namespace, &config).await;
        let secret = secret.map_err(|message| Trouble::new(DataState::QueryError, message))?;
        Ok(self.providers.prometheus(&namespace, &config, &secret)?)
    }

    /// When the pods of a run were created, if a guard counts by pod.
    pub async fn created(&self, run: &Run) -> BTreeMap<String, Timestamp> {
        match run.plan.guards.iter().filter_map(Guard::counted).any(|counted| counted.by_pod()) {
            true => pods::created(self.ctx, self.key, run).await,
            false => BTreeMap::new(),
        }
    }

    /// The Secret that a provider refers to; not read when it refers to none.
    async fn secret(&self, namespace: &str, config: &ProviderConfig) -> Result<SecretData, String> {
        if !config.refers_to_secret() {
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
