//! Following one change to its end: which run it is, when it is over, and how. Pure.

use sluice_core::api::{Outcome, ProgressiveRolloutStatus, RunRecord};

use crate::exit::Code;
use crate::model::{Seen, Standing, code_of};

/// Shortest commit that names one.
pub const SHORTEST_COMMIT: usize = 7;

/// What is followed.
#[derive(Clone, Debug, Default)]
pub struct Follow {
    /// Only the change with this commit.
    commit: Option<String>,
    /// End as soon as a person is waited for.
    until_pause: bool,
    /// The run, once known.
    run: Option<String>,
    /// Runs that had been started when following began.
    runs_before: Option<i64>,
    /// A held revision, ours, was seen before its run.
    held: bool,
}

/// What one look says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Not over.
    Going,
    /// Over: exit code and a sentence.
    Over(Code, String),
}

impl Follow {
    /// Follows what is under way, or the change with this commit.
    pub fn new(commit: Option<String>, until_pause: bool) -> Self {
        Self { commit, until_pause, ..Self::default() }
    }

    /// One look.
    pub fn look(&mut self, seen: &Seen) -> Progress {
        let status = seen.status();
        let before = *self.runs_before.get_or_insert(status.run_count);
        if let Some(id) = &self.run {
            let still = status.run.as_ref().is_some_and(|run| run.id == *id);
            return if still { self.person(seen) } else { ended(&status, id) };
        }
        if let Some(run) = &status.run
            && self.wants(run.canary.commit.as_deref())
        {
            self.run = Some(run.id.clone());
            return self.person(seen);
        }
        if self.commit.is_some() {
            return self.look_for_commit(seen, &status);
        }
        // A whole run may have passed between two looks.
        if status.run_count > before
            && let Some(record) = status.history.first()
        {
            return over(record);
        }
        self.at_rest(seen)
    }

    /// The commit that is waited for, while it has not arrived.
    pub fn missing(&self) -> Option<&str> {
        self.commit.as_deref().filter(|_| self.run.is_none() && !self.held)
    }

    /// What is still waited for, when time is up.
    pub fn waits_for(&self, seen: &Seen) -> String {
        match self.missing() {
            Some(commit) => {
                format!(
                    "commit {commit} has not arrived in Deployment {}",
                    seen.rollout.spec.workload_ref.name
                )
            }
            None => {
                let status = seen.status();
                let wait = status.waiting.as_ref().map(|wait| format!("{}: {}", wait.reason, wait.message));
                let subject = self.run.as_ref().map_or("its run".to_owned(), |id| format!("run {id}"));
                format!(
                    "{subject} has not ended ({})",
                    wait.unwrap_or_else(|| status.phase.as_str().to_owned())
                )
            }
        }
    }

    fn wants(&self, commit: Option<&str>) -> bool {
        match (&self.commit, commit) {
            (None, _) => true,
            (Some(wanted), Some(commit)) => same_commit(wanted, commit),
            (Some(_), None) => false,
        }
    }

    fn person(&self, seen: &Seen) -> Progress {
        match seen.standing() {
            Standing::Person(reason) if self.until_pause => {
                let message = seen.status().waiting.as_ref().map(|w| w.message.clone()).unwrap_or_default();
                Progress::Over(Code::Person, format!("waits for a person: {reason}: {message}"))
            }
            _ => Progress::Going,
        }
    }

    /// No run is under way, and none is known.
    fn at_rest(&mut self, seen: &Seen) -> Progress {
        match seen.standing() {
            Standing::Idle if self.held => {
                let text = "no run was needed: the template is the one that runs".to_owned();
                Progress::Over(Code::Fine, text)
            }
            Standing::Idle => Progress::Over(Code::Fine, "nothing is under way".to_owned()),
            Standing::Stalled(reason, message) => {
                Progress::Over(Code::Error, format!("stalled: {reason}: {message}"))
            }
            Standing::Ended(outcome, _, message) => Progress::Over(code_of(outcome), message),
            Standing::Person(_) => self.person(seen),
            Standing::UnderWay | Standing::GoingBack(_) => {
                self.held |=
                    seen.status().held.is_some() || seen.workload.as_ref().is_some_and(|w| w.held.is_some());
                Progress::Going
            }
        }
    }

    fn look_for_commit(&mut self, seen: &Seen, status: &ProgressiveRolloutStatus) -> Progress {
        let held = status.run.is_none() && (status.held.is_some() || seen.held_unseen());
        if held && self.wants(seen.held_commit().as_deref()) {
            self.held = true;
            return self.at_rest(seen);
        }
        if let Some(record) = status.history.iter().find(|record| self.wants(record.commit.as_deref())) {
            return over(record);
        }
        if status.stable_commit.is_some() && self.wants(status.stable_commit.as_deref()) {
            return Progress::Over(Code::Fine, "this commit is the stable revision".to_owned());
        }
        if self.held && seen.unseen().is_none() {
            let text = "another template took its place before its run".to_owned();
            return Progress::Over(Code::Superseded, text);
        }
        Progress::Going
    }
}

fn ended(status: &ProgressiveRolloutStatus, id: &str) -> Progress {
    match status.history.iter().find(|record| record.id == id) {
        Some(record) => over(record),
        None => {
            Progress::Over(Code::Error, format!("run {id} ended, but its record is gone from status.history"))
        }
    }
}

fn over(record: &RunRecord) -> Progress {
    let what = match record.outcome {
        Outcome::Promoted => "promoted",
        Outcome::Rejected => "rejected",
        Outcome::NotProven => "not proven",
        Outcome::Reverted => "reverted",
        Outcome::Superseded => "superseded",
        Outcome::Abandoned => "abandoned",
    };
    let text = format!("run {} {what}: {}: {}", record.id, record.reason, record.message);
    Progress::Over(code_of(record.outcome), text)
}

/// Whether one commit is the other, or an abbreviation of it.
fn same_commit(one: &str, other: &str) -> bool {
    let (one, other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    one.len().min(other.len()) >= SHORTEST_COMMIT && (one.starts_with(&other) || other.starts_with(&one))
}

#[cfg(test)]
mod tests {
    use sluice_core::api::{RiskClass, Run};

    use super::*;
    use crate::view::tests::scene;

    const COMMIT: &str = "9f2c1ab";

    fn follow(commit: Option<&str>) -> Follow {
        Follow::new(commit.map(ToOwned::to_owned), false)
    }

    fn code(progress: &Progress) -> Option<u8> {
        match progress {
            Progress::Going => None,
            Progress::Over(code, _) => Some(code.number()),
        }
    }

    /// The end of the run of [`scene::stepping`], with the workload at rest.
    fn after(outcome: Outcome) -> Seen {
        let run: Run = scene::stepping().rollout.status.unwrap().run.unwrap();
        let mut seen = scene::idle();
        let status = seen.rollout.status.as_mut().unwrap();
        status.history = vec![RunRecord {
            id: run.id,
            outcome,
            reason: "Why".to_owned(),
            message: "because".to_owned(),
            risk_class: RiskClass::R3,
            plan_digest: run.plan.digest,
            provenance: run.plan.provenance,
            digest: run.canary.digest,
            images: run.canary.images,
            commit: run.canary.commit,
            max_weight_percent: 20,
            started_at: run.started_at,
            ended_at: run.started_at,
            exposed_since: None,
            exposed_until: None,
        }];
        seen
    }

    #[test]
    fn the_outcome_of_the_run_is_the_exit_code() {
        let cases = [
            (Outcome::Promoted, 0),
            (Outcome::Rejected, 3),
            (Outcome::NotProven, 3),
            (Outcome::Reverted, 3),
            (Outcome::Abandoned, 3),
            (Outcome::Superseded, 7),
        ];
        for (outcome, number) in cases {
            for commit in [None, Some(COMMIT)] {
                let mut follow = follow(commit);
                for seen in [scene::stepping(), scene::paused(), scene::returning()] {
                    assert_eq!(follow.look(&seen), Progress::Going, "{outcome:?}");
                }
                assert_eq!(code(&follow.look(&after(outcome))), Some(number), "{outcome:?}");
            }
        }
    }

    #[test]
    fn nothing_under_way_ends_at_once() {
        assert_eq!(code(&follow(None).look(&scene::idle())), Some(0));
        assert_eq!(code(&follow(None).look(&scene::rejected())), Some(3));
        assert_eq!(code(&follow(None).look(&scene::not_proven())), Some(3));
        assert_eq!(code(&follow(None).look(&scene::invalid())), Some(1));
    }

    #[test]
    fn a_held_revision_is_followed_through_its_run() {
        let mut follow = follow(None);
        for seen in [scene::unseen(), scene::held(), scene::preparing(), scene::stepping(), scene::watching()]
        {
            assert_eq!(follow.look(&seen), Progress::Going);
        }
        assert_eq!(code(&follow.look(&after(Outcome::Promoted))), Some(0));
    }

    #[test]
    fn a_run_that_passed_between_two_looks_is_not_missed() {
        let mut follow = follow(None);
        let mut held = scene::held();
        held.rollout.status.as_mut().unwrap().run_count = 6;
        assert_eq!(follow.look(&held), Progress::Going);
        assert_eq!(code(&follow.look(&after(Outcome::Rejected))), Some(3));
    }

    #[test]
    fn a_held_template_that_needs_no_run_ends_well() {
        let mut follow = follow(None);
        assert_eq!(follow.look(&scene::held()), Progress::Going);
        let Progress::Over(Code::Fine, text) = follow.look(&scene::idle()) else {
            unreachable!("the template is stable's own");
        };
        assert!(text.contains("no run was needed"));
    }

    #[test]
    fn a_newer_run_ends_the_one_that_is_followed() {
        let mut follow = follow(None);
        assert_eq!(follow.look(&scene::stepping()), Progress::Going);
        let mut next = after(Outcome::Superseded);
        let mut run = scene::preparing().rollout.status.unwrap().run.unwrap();
        run.id = "8-aaaaa".to_owned();
        next.rollout.status.as_mut().unwrap().run = Some(run);
        assert_eq!(code(&follow.look(&next)), Some(7));
    }

    #[test]
    fn a_commit_that_has_not_arrived_is_waited_for() {
        let mut follow = follow(Some("abcdef0"));
        for seen in
            [scene::idle(), scene::held(), scene::rejected(), scene::stepping(), after(Outcome::Rejected)]
        {
            assert_eq!(follow.look(&seen), Progress::Going);
        }
        assert_eq!(follow.waits_for(&scene::idle()), "commit abcdef0 has not arrived in Deployment checkout");
    }

    #[test]
    fn a_commit_that_is_stable_has_arrived() {
        assert_eq!(code(&follow(Some("1c0ffee2d0e1f2a3")).look(&scene::idle())), Some(0));
        assert_eq!(code(&follow(Some("1C0FFEE2")).look(&scene::idle())), Some(0), "abbreviated, in capitals");
    }

    #[test]
    fn a_rejected_commit_that_git_applies_again_stays_rejected() {
        assert_eq!(code(&follow(Some(COMMIT)).look(&scene::quarantined())), Some(3));
    }

    #[test]
    fn a_declaration_that_comes_before_its_template_is_not_judged_by_the_one_before() {
        // The rejected revision is still held, and spec.change already describes the commit that mends it.
        let mut seen = scene::rejected();
        seen.rollout.spec.change.commit = Some("abcdef0123".to_owned());
        seen.rollout.spec.change.images = vec!["registry.example.com/shop/checkout:v3".to_owned()];
        assert_eq!(follow(Some("abcdef0123")).look(&seen), Progress::Going);
    }

    #[test]
    fn a_commit_that_another_replaced_before_its_run_is_superseded() {
        let mut follow = follow(Some(COMMIT));
        assert_eq!(follow.look(&scene::held()), Progress::Going);
        let mut other = scene::held();
        other.rollout.spec.change = sluice_core::api::Change::default();
        assert_eq!(code(&follow.look(&other)), Some(7));
    }

    #[test]
    fn a_pause_ends_it_only_when_asked_to() {
        for seen in [scene::paused(), scene::at_gate()] {
            assert_eq!(follow(None).look(&seen), Progress::Going);
            assert_eq!(code(&Follow::new(None, true).look(&seen)), Some(4));
        }
        assert_eq!(Follow::new(None, true).look(&scene::stepping()), Progress::Going);
    }

    #[test]
    fn codes_of_one_look() {
        let codes: Vec<(&str, u8)> =
            scene::all().iter().map(|(name, seen)| (*name, seen.standing().code().number())).collect();
        let expected = [
            ("idle", 0),
            ("held_in_grace", 0),
            ("unseen", 0),
            ("preparing", 0),
            ("canary_mid_step", 0),
            ("alert_firing", 0),
            ("no_data", 0),
            ("suspicion", 0),
            ("paused", 4),
            ("at_gate", 4),
            ("promoting", 0),
            ("watching", 0),
            ("returning", 3),
            ("rejected", 3),
            ("not_proven", 3),
            ("stalled_invalid", 1),
        ];
        assert_eq!(codes, expected);
    }
}
