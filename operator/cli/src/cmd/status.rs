//! `status`: the screen of one rollout; with `-w` until its run ends.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::{API_VERSION, Context, now, size, write};
use crate::args::{Output, Status};
use crate::cluster::{Cluster, Watched};
use crate::exit::Code;
use crate::fail::Failure;
use crate::follow::{Follow, Progress};
use crate::model::{Controller, Seen};
use crate::out::{Line, Role, labelled};
use crate::view::{self, Look};

/// How often a live screen is drawn, for its clocks.
const TICK: Duration = Duration::from_secs(1);
/// After how many ticks the objects beside the rollout are read again.
const REFRESH_TICKS: u32 = 3;
/// A `--timeout` above this many seconds is as good as none.
const LONGEST_TIMEOUT: u64 = 10 * 365 * 86_400;

/// Runs `status`.
pub async fn run(context: &Context, args: Status) -> Result<Code, Failure> {
    let watch = args.watch || args.commit.is_some();
    if !watch && (args.timeout.is_some() || args.until_pause) {
        return Err(Failure::usage("--timeout and --until-pause need --watch or --commit"));
    }
    let cluster = Cluster::connect(&context.global).await?;
    let name = cluster.resolve(args.name.as_deref()).await?;
    // Asked once, before the loop: a missing rollout is an error now, not a wait.
    let rollout = cluster.get(&name).await?;
    let mut seen = cluster.gather(rollout, wants_events(context)).await;
    let text = context.machine().is_none();
    if text {
        seen.controller = cluster.controller().await;
    }
    if watch {
        return Watch::new(context, cluster, name, args, seen).run().await;
    }
    match context.machine() {
        Some(format) => context.document(format, &name, &document(&seen, None), false)?,
        None => context.print(&view::screen(&look(context, &seen)))?,
    }
    Ok(seen.standing().code())
}

fn wants_events(context: &Context) -> bool {
    context.machine().is_none() && (context.wide() || size(context.terminal).0 >= view::PANE_WIDTH)
}

fn look<'a>(context: &'a Context, seen: &'a Seen) -> Look<'a> {
    let (width, _) = size(context.terminal);
    Look { seen, now: now(), width, wide: context.wide(), call: &context.call }
}

/// A rollout being followed.
struct Watch<'a> {
    context: &'a Context,
    cluster: Cluster,
    name: String,
    follow: Follow,
    deadline: Option<Instant>,
    timeout: String,
    seen: Seen,
    controller: Option<Controller>,
    /// Lines on the screen that the next drawing replaces.
    drawn: usize,
    /// Key of the last line or document that was printed.
    printed: Option<String>,
    /// The last line that was printed, without its time.
    line: Option<Line>,
    /// Why the connection is lost, if it is.
    lost: Option<String>,
}

impl<'a> Watch<'a> {
    fn new(context: &'a Context, cluster: Cluster, name: String, args: Status, seen: Seen) -> Self {
        let limit =
            args.timeout.map(|time| time.unsigned_abs()).filter(|time| time.as_secs() < LONGEST_TIMEOUT);
        Self {
            context,
            cluster,
            name,
            follow: Follow::new(args.commit, args.until_pause),
            deadline: limit.map(|limit| Instant::now() + limit),
            timeout: limit
                .map(|limit| view::words::span(i64::try_from(limit.as_secs()).unwrap_or(0)))
                .unwrap_or_default(),
            controller: seen.controller.clone(),
            seen,
            drawn: 0,
            printed: None,
            line: None,
            lost: None,
        }
    }

    async fn run(mut self) -> Result<Code, Failure> {
        let cluster = self.cluster.clone();
        let mut changes = pin!(cluster.watch(&self.name));
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks: u32 = 0;
        if let Some(code) = self.show()? {
            return Ok(code);
        }
        if let Some(commit) = self.follow.missing().filter(|_| !self.live()) {
            eprintln!(
                "waiting for commit {commit} to arrive in Deployment {}",
                self.seen.rollout.spec.workload_ref.name
            );
        }
        loop {
            let deadline = self.deadline;
            let late = async {
                match deadline {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => return Err(self.timed_out()),
                change = changes.next() => match change {
                    Some(Watched::Changed(rollout)) => {
                        self.lost = None;
                        self.take(*rollout).await;
                    }
                    Some(Watched::Gone) => return Err(self.gone()),
                    Some(Watched::Failed(failure)) => return Err(failure),
                    Some(Watched::Lost(why)) => self.lose(why),
                    None => return Err(Failure::new("the watch ended unexpectedly; run the command again")),
                },
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(REFRESH_TICKS) && self.lost.is_none() {
                        let rollout = self.seen.rollout.clone();
                        self.take(rollout).await;
                    }
                }
            }
            if let Some(code) = self.show()? {
                return Ok(code);
            }
        }
    }

    async fn take(&mut self, rollout: sluice_core::api::ProgressiveRollout) {
        self.seen = self.cluster.gather(rollout, self.live() && wants_events(self.context)).await;
        self.seen.controller.clone_from(&self.controller);
    }

    /// Whether the screen is redrawn, not added to.
    fn live(&self) -> bool {
        self.context.terminal && self.context.machine().is_none()
    }

    /// Shows what changed; the code once it is over.
    fn show(&mut self) -> Result<Option<Code>, Failure> {
        let progress = self.follow.look(&self.seen);
        let look = look(self.context, &self.seen);
        if let Some(format) = self.context.machine() {
            let over = match &progress {
                Progress::Going => None,
                Progress::Over(code, text) => Some((*code, text.as_str())),
            };
            // A name says nothing twice, and nothing before the end.
            let key = if format == Output::Name {
                format!("{over:?}")
            } else {
                format!("{}{over:?}", view::change_key(&look))
            };
            if self.printed.as_ref() != Some(&key) && (format != Output::Name || over.is_some()) {
                self.context.document(format, &self.name, &document(&self.seen, over), true)?;
                self.printed = Some(key);
            }
        } else if self.live() {
            let lines = view::screen(&look);
            self.draw(lines)?;
        } else {
            let key = view::change_key(&look);
            if self.printed.as_ref() != Some(&key) {
                self.printed = Some(key);
                // Not all that changes is in the line.
                let line = view::change_line(&look);
                if self.line.as_ref() != Some(&line) {
                    self.context.print(&[view::time(&look).join(line.clone())])?;
                    self.line = Some(line);
                }
            }
        }
        let Progress::Over(code, text) = progress else {
            return Ok(None);
        };
        if self.context.machine().is_none() {
            self.context.print(&[ending(code, &text)])?;
        }
        Ok(Some(code))
    }

    /// Draws over the last screen, with plain ANSI: up, clear each line, clear the rest.
    fn draw(&mut self, mut lines: Vec<Line>) -> Result<(), Failure> {
        let (width, height) = size(true);
        if let Some(why) = &self.lost {
            lines.extend(labelled("lost", Role::Attention, &format!("{why} Trying again."), width));
        }
        if let Some(commit) = self.follow.missing() {
            let text = format!(" waiting for commit {commit} to arrive");
            lines.push(Line::default().mark(Role::Running).add(Role::Running, text).clip(width));
        }
        // What scrolled off the top can't be drawn over.
        lines.truncate(height.unwrap_or(usize::MAX).saturating_sub(1));
        let mut text = if self.drawn > 0 { format!("\x1b[{}A\r", self.drawn) } else { String::new() };
        for line in &lines {
            text.push_str(&line.clone().clip(width).paint(self.context.colour));
            text.push_str("\x1b[K\n");
        }
        text.push_str("\x1b[J");
        self.drawn = lines.len();
        write(&text)
    }

    fn lose(&mut self, why: String) {
        if !self.live() && self.lost.is_none() {
            eprintln!("warning: {} Trying again until it works.", crate::out::clean(&why));
        }
        self.lost = Some(why);
    }

    fn timed_out(&self) -> Failure {
        let waits = self.follow.waits_for(&self.seen);
        let lost =
            self.lost.as_ref().map(|why| format!(". The connection is lost: {why}")).unwrap_or_default();
        Failure::timeout(format!("gave up after {}: {waits}{lost}", self.timeout))
    }

    fn gone(&self) -> Failure {
        Failure::new(format!(
            "ProgressiveRollout {:?} was deleted from namespace {:?}.",
            self.name, self.cluster.namespace
        ))
    }
}

/// The last line: how it ended.
fn ending(code: Code, text: &str) -> Line {
    let role = match code {
        Code::Fine => Role::Ok,
        Code::Person | Code::Superseded | Code::Timeout => Role::Attention,
        Code::Error | Code::Usage | Code::Rejected | Code::Gate => Role::Bad,
    };
    Line::default().mark(role).plain(" ").add(role, text)
}

/// One rollout for programs.
fn document(seen: &Seen, over: Option<(Code, &str)>) -> Value {
    let status = seen.status();
    let pods = |name: &str| {
        seen.replica_set(name).map(|set| json!({ "available": set.available, "wanted": set.replicas }))
    };
    let arm = |revision: &sluice_core::api::Revision| {
        json!({
            "hash": revision.hash,
            "replicaSet": revision.replica_set,
            "images": revision.images,
            "commit": revision.commit,
            "pods": pods(&revision.replica_set),
        })
    };
    let run = status.run.as_ref().map(|run| {
        json!({
            "id": run.id,
            "kind": run.kind,
            "stage": run.stage,
            "step": run.step + 1,
            "steps": run.plan.steps,
            "riskClass": run.plan.risk_class,
            "provenance": run.plan.provenance,
            "startedAt": run.started_at,
            "maxWeightPercent": run.max_weight_percent,
            "paused": run.paused,
            "goingBack": run.going_back,
            "stable": arm(&run.stable),
            "canary": arm(&run.canary),
        })
    });
    json!({
        "apiVersion": API_VERSION,
        "kind": "RolloutStatus",
        "namespace": seen.namespace(),
        "name": seen.name(),
        "phase": status.phase,
        "phaseSince": status.phase_since,
        "exitCode": over.map_or_else(|| seen.standing().code(), |(code, _)| code).number(),
        "ended": over.map(|(_, text)| text),
        "notSeenYet": seen.unseen(),
        "waiting": status.waiting,
        "summary": status.summary,
        "run": run,
        "held": status.held,
        "stable": status.stable.as_ref().map(arm),
        "stableCommit": status.stable_commit,
        "traffic": status.traffic,
        "guards": status.guards,
        "conditions": status.conditions,
        "history": status.history,
        "quarantine": status.quarantine,
        "request": status.request,
    })
}
