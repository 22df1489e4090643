//! Three changes with generative AI at once, in a namespace that lets one be tried at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use sluice_core::api::{ProgressiveRollout, Provenance, QueueRoom};

use super::narrator::Narrator;
use super::play::Play;
use super::provenance::scanned;
use super::report::Scenario;
use super::{PAST, RUN_LIMIT};
use crate::world::{App, AppSpec, World};

/// Their namespace.
const NAMESPACE: &str = "queue";
/// How often the namespace is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How many wait behind the first.
const WAITING: usize = 2;

/// Three applications of one namespace ship at the same moment: one is tried, two wait in a line that status shows.
pub async fn queued(n: &Narrator, world: &World<'_>) -> Result<Vec<Scenario>> {
    let spec = |number: usize| AppSpec { name: format!("shop-{number}"), rps: 60, ..AppSpec::new(NAMESPACE) };
    let apps = try_join_all((1..=WAITING + 1).map(|number| world.app(spec(number)))).await?;
    let first = apps.first().context("no application")?;
    let row = |name| json!({"name": name, "maxInFlightPerNamespace": 1});
    let classes = ["R0", "R1", "R2", "R3", "R4"].map(row);
    first
        .apply_object(&json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "RiskPolicy",
            "metadata": {"name": "one-at-a-time", "namespace": NAMESPACE},
            "spec": {"classes": classes},
        }))
        .await?;
    n.say(NAMESPACE, "three more in one namespace, whose policy lets one change be tried at a time");
    tokio::time::sleep(PAST).await;
    let shipped = try_join_all(apps.iter().map(|app| change(n, app)));
    let (scenarios, waited) = tokio::try_join!(shipped, in_line(world, apps.len()))?;
    ensure!(waited.len() == WAITING, "{waited:?} waited in line");
    Ok(scenarios)
}

/// A small change with generative AI, of class R1.
async fn change(n: &Narrator, app: &App<'_>) -> Result<Scenario> {
    let name = app.spec.name.replace("shop", "queued");
    let mut play = Play::begin(app).await?;
    let image = app.spec.image("2");
    n.say(&name, &format!("ships {image}, declared GenAIAssisted, 30 changed lines"));
    let change = scanned("GenAIAssisted", &image, 30);
    app.patch_rollout(json!({"spec": {"change": change}})).await?;
    app.set_image(&image).await?;
    play.follow(n, &name, app).await?;
    play.end(n, &name, app, Some(Provenance::GenAIAssisted)).await
}

/// Looks on until all have had their run: never two at once, and who waits has a place in the line. Gives the names of those
/// that waited.
async fn in_line(world: &World<'_>, all: usize) -> Result<BTreeSet<String>> {
    let api: Api<ProgressiveRollout> = Api::namespaced(world.cluster.client.clone(), NAMESPACE);
    let (mut waited, mut places) = (BTreeSet::new(), BTreeSet::new());
    let looking = async {
        loop {
            let rollouts = api.list(&ListParams::default()).await?.items;
            let statuses = || rollouts.iter().filter_map(|rollout| Some((rollout, rollout.status.as_ref()?)));
            let tried: Vec<_> = statuses().filter(|(_, status)| status.run.is_some()).collect();
            ensure!(tried.len() <= 1, "{} changes are tried at once", tried.len());
            for (rollout, status) in statuses() {
                let queued = status.waiting.as_ref().is_some_and(|waiting| waiting.reason == "Queued");
                let name = rollout.metadata.name.clone().unwrap_or_default();
                ensure!(queued == status.queue.is_some(), "{name}: {:?}, {:?}", status.waiting, status.queue);
                if let Some(queue) = status.queue {
                    ensure!(queue.room == QueueRoom::Namespace, "{name} waits for {:?}", queue.room);
                    waited.insert(name);
                    places.insert((queue.position, queue.length));
                }
            }
            if statuses().filter(|(_, status)| status.run_count > 0 && status.run.is_none()).count() == all {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(RUN_LIMIT, looking).await.context("they do not end")??;
    let second = [(1, 2), (2, 2)];
    ensure!(second.iter().all(|place| places.contains(place)), "places in the line: {places:?}");
    Ok(waited)
}
