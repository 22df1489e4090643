//! The world: objects, native controllers, pods, a gateway, callers, evidence, and instances of the controller,
//! on one clock that moves in seconds.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use sluice_core::api::{ProgressiveRolloutStatus, Run};
use sluice_core::config::Config;
use sluice_core::policy::Policy;

use crate::api::{Api, Res};
use crate::fixture;
use crate::judge::Judge;
use crate::native::{self, Memo};
use crate::pods::{Behaviour, Pods, later};
use crate::router::Router;
use crate::shell::{Fault, Instance};
use crate::truth::Truth;

/// When every story begins.
const START: &str = "2026-11-24T12:00:00Z";
/// Native controllers come to rest within so many rounds of one second.
const ROUNDS: usize = 6;

/// The world.
#[derive(Clone, Debug)]
pub struct World {
    /// Now.
    pub now: Timestamp,
    /// The API server.
    pub api: Api,
    /// Digests that were computed before.
    pub memo: Memo,
    /// Pods.
    pub pods: Pods,
    /// The gateway.
    pub router: Router,
    /// The evidence.
    pub judge: Judge,
    /// Settings of the installation.
    pub config: Config,
    /// The policy in force.
    pub policy: Arc<Policy>,
    /// Whether the installation is being removed.
    pub releasing: bool,
    /// Instances of the controller.
    pub instances: [Instance; 2],
    /// The instance that leads.
    pub leader: usize,
    /// Native controllers do nothing until then.
    pub native_until: Option<Timestamp>,
    /// The version at which native controllers had nothing to do.
    pub(crate) rested: Option<u64>,
    /// Endpoints are not followed until then.
    pub endpoints_until: Option<Timestamp>,
    /// Faults that struck a pass.
    pub struck: u32,
    /// Whether native controllers act between two writes of a pass.
    pub eager: bool,
    /// Kinds that can't be read until then.
    pub unreadable_until: Vec<(Res, Timestamp)>,
    /// What the invariants remember.
    pub truth: Truth,
    /// What happened, for people.
    pub log: Vec<String>,
    /// Invariants that were broken.
    pub violations: Vec<String>,
    /// The last images that git applied, newest last.
    pub applied: Vec<String>,
}

impl World {
    /// A cluster with the application and nothing of ours.
    pub fn bare(replicas: i32) -> Self {
        let mut world = Self {
            now: START.parse().unwrap_or(Timestamp::UNIX_EPOCH),
            api: Api::default(),
            memo: Memo::default(),
            pods: Pods::default(),
            router: Router::default(),
            judge: Judge::default(),
            config: fixture::config(),
            policy: Arc::new(Policy::of_installation(&fixture::config())),
            releasing: false,
            instances: [Instance::default(), Instance::default()],
            leader: 0,
            native_until: None,
            rested: None,
            endpoints_until: None,
            struck: 0,
            eager: false,
            unreadable_until: Vec::new(),
            truth: Truth::default(),
            log: Vec::new(),
            violations: Vec::new(),
            applied: Vec::new(),
        };
        let at = world.now;
        let _ = world.api.create(Res::Service, fixture::service(), at);
        for route in fixture::ROUTES {
            let _ = world.api.create(Res::Route, fixture::route(route), at);
        }
        // A past: one revision in the history, one that runs.
        let _ = world.api.create(Res::Deployment, fixture::deployment("web:good-0", replicas), at);
        world.elapse(12);
        world.apply("web:good-1", None, None);
        world.elapse(30);
        world.truth.lawless = false;
        world
    }

    /// A cluster in which the application of four pods is enrolled.
    pub fn enrolled() -> Self {
        thread_local! {
            static ENROLLED: World = World::enrol(4);
        }
        ENROLLED.with(Clone::clone)
    }

    fn enrol(replicas: i32) -> Self {
        let mut world = Self::bare(replicas);
        let _ = world.api.create_rollout(fixture::rollout());
        world.tick(12);
        world
    }

    /// Writes a line of the story.
    pub fn tell(&mut self, line: String) {
        let second = self.second();
        self.log.push(format!("{second:>4} s  {line}"));
    }

    /// The whole story, with what was broken at its end.
    pub fn story(&self) -> String {
        format!("{}\n\nviolations: {:#?}", self.log.join("\n"), self.violations)
    }

    /// Seconds since the story began.
    pub fn second(&self) -> i64 {
        let start: Timestamp = START.parse().unwrap_or(Timestamp::UNIX_EPOCH);
        self.now.duration_since(start).as_secs()
    }

    /// Notes a broken invariant.
    pub fn violate(&mut self, what: &str) {
        self.tell(format!("VIOLATED {what}"));
        self.violations.push(what.to_owned());
    }

    /// The rollout's status.
    pub fn status(&self) -> ProgressiveRolloutStatus {
        self.api.now.rollout.as_ref().and_then(|rollout| rollout.status.clone()).unwrap_or_default()
    }

    /// The run under way.
    pub fn run(&self) -> Option<&Run> {
        self.api.now.rollout.as_ref().and_then(|r| r.status.as_ref()).and_then(|s| s.run.as_ref())
    }

    /// Kinds that can't be read now.
    pub fn unreadable(&self) -> Vec<Res> {
        self.unreadable_until.iter().filter(|(_, until)| *until > self.now).map(|(res, _)| *res).collect()
    }

    /// Seconds in which everything but the controller goes on.
    pub fn elapse(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.second_passes();
        }
    }

    /// Seconds with one pass of the leader each.
    pub fn tick(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.second_passes();
            self.pass(self.leader, None);
            self.look();
        }
    }

    /// Ticks until `done`, at most so many seconds; false when it never was.
    pub fn tick_until(&mut self, seconds: u32, done: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..seconds {
            if done(self) {
                return true;
            }
            self.tick(1);
        }
        done(self)
    }

    /// One second with a pass that goes wrong.
    pub fn faulty_tick(&mut self, fault: Fault) -> u8 {
        self.second_passes();
        let writes = self.pass(self.leader, Some(fault));
        self.look();
        writes
    }

    fn second_passes(&mut self) {
        self.now = later(self.now, 1);
        self.natives();
        self.note_what_callers_met();
        self.look();
    }

    /// Native controllers act until they rest, unless they are held up.
    pub fn natives(&mut self) {
        let at = self.now;
        let natives = self.native_until.is_none_or(|until| until <= at);
        let endpoints = self.endpoints_until.is_none_or(|until| until <= at);
        let quiet = self.router.silent_until.is_none() && !self.pods.stir(at);
        if quiet && self.rested == Some(self.api.version()) {
            return;
        }
        self.rested = None;
        for _ in 0..ROUNDS {
            let before = self.api.version();
            if natives {
                for rolled in native::sync(&mut self.api, &mut self.memo, at) {
                    self.truth.rolled.push(rolled);
                }
                self.pods.sync(&mut self.api, &mut self.memo, at);
            }
            if endpoints {
                self.pods.sync_endpoints(&mut self.api, at);
            }
            self.router.follow(&mut self.api, at);
            if self.api.version() == before {
                self.rested = (natives && endpoints).then_some(before);
                break;
            }
        }
    }

    /// A write of ours arrived.
    pub fn wrote(&mut self) {
        self.router.follow(&mut self.api, self.now);
        self.look();
        if self.eager {
            self.natives();
            self.look();
        }
    }

    fn note_what_callers_met(&mut self) {
        let at = self.now;
        let met: BTreeSet<String> = self
            .router
            .possible(at)
            .flat_map(|plane| plane.receivers().into_iter().map(ToOwned::to_owned).collect::<Vec<_>>())
            .collect();
        let pods: Vec<_> = met.iter().filter_map(|name| self.pods.all.get(name)).collect();
        let sets: BTreeSet<String> = pods.iter().map(|pod| pod.set.clone()).collect();
        let digests: BTreeSet<String> = pods.iter().map(|pod| pod.digest.clone()).collect();
        let released = self.run().filter(|run| run.released).map(|run| run.canary.digest.clone());
        for pod in self.pods.all.values() {
            let late = pod.behaviour() == Behaviour::Late && released.as_ref() == Some(&pod.digest);
            if pod.behaviour() == Behaviour::Bad || late {
                self.judge.bad.insert(pod.digest.clone());
            }
        }
        self.judge.note(&sets, &digests, at);
    }

    /// Stops all faults: watches catch up, what can't be read can, what is late arrives.
    pub fn calm(&mut self) {
        self.tell("faults stop".to_owned());
        self.rested = None;
        self.native_until = None;
        self.endpoints_until = None;
        self.unreadable_until.clear();
        self.router.silent_until = None;
        self.pods.flapping.clear();
        self.pods.delay = 0;
        let at = self.now;
        self.judge.set_outage(false, at);
        self.judge.incident = None;
        self.thaw();
        for instance in &mut self.instances {
            instance.caches.clear();
        }
        let _ = self.api.edit_rollout(|rollout| rollout.spec.suspend = false);
    }

    /// A run that a person paused is resumed.
    pub fn nobody_waits_for_a_person(&mut self) {
        if let Some(id) = self.run().filter(|run| run.paused).map(|run| run.id.clone()) {
            self.request(&format!("resume/{id}"));
        }
    }

    /// Applies a template as git does; `paused` is what the manifest says, if it says so.
    pub fn apply(&mut self, image: &str, restart: Option<&str>, paused: Option<bool>) {
        self.tell(format!(
            "git applies {image}{}",
            restart.map(|r| format!(" restarted {r}")).unwrap_or_default()
        ));
        // Unguarded, it rolls at once, good or bad.
        self.truth.lawless |= !self.is_guarded();
        let template = fixture::template(image, restart);
        self.applied.push(image.to_owned());
        let result = self.api.update(Res::Deployment, fixture::NAME, crate::admission::Actor::GitOps, |d| {
            d["spec"]["template"] = template;
            if let Some(paused) = paused {
                d["spec"]["paused"] = json!(paused);
            }
        });
        if let Err(why) = result {
            self.tell(format!("refused: {why:?}"));
        }
    }

    /// A person's verb.
    pub fn request(&mut self, value: &str) {
        self.tell(format!("a person asks {value}"));
        let _ = self.api.edit_rollout(|rollout| {
            let annotations = rollout.metadata.annotations.get_or_insert_default();
            annotations.insert(sluice_core::api::ANNOTATION_REQUEST.to_owned(), value.to_owned());
        });
    }
}
