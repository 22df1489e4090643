//! One step of leader election: the algorithm of client-go's `leaderelection`, without its clock and client.
//!
//! A Lease names its holder. Each elector reads it, feeds what it saw to [`Elector::step`] and does what the
//! answer says; a write is compare-and-swap on the Lease's `resourceVersion`, and its outcome is fed back with
//! [`Elector::wrote`]. An elector takes a Lease over only when *it* has seen the record unchanged for the
//! lease duration, by its own monotonic clock: no two clocks are ever compared.
//!
//! Why two electors never lead at once: leadership is counted from the moment a write was **sent** and ends
//! [`ElectionConfig::renew_deadline`] later. Another elector saw that write no sooner than it was sent, and waits
//! the longer lease duration from there. It holds while clocks advance at rates that differ by less than
//! lease duration / renew deadline (1.5 by default), and while nobody deletes the Lease. It is not a fence: a
//! call sent before the end may arrive after it, so forward writes also ask for [`Elector::time_left`].
//!
//! Times are [`Duration`]s since any fixed moment of this process.

mod config;
#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use config::{ElectionConfig, ElectionConfigError};

/// What the election needs of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// `metadata.resourceVersion`: changes with every write.
    pub version: String,
    /// `spec.holderIdentity`; empty when it was released.
    pub holder: String,
    /// `spec.leaseDurationSeconds`: what the holder asked the others to wait.
    pub duration: Duration,
    /// `spec.leaseTransitions`.
    pub transitions: i32,
}

/// What the last read of the Lease said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// There is a Lease.
    Record(LeaseRecord),
    /// There is none.
    Absent,
    /// The read failed or took too long.
    Unreadable,
}

/// What to write, and on which condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWrite {
    /// The version that must still stand. `None`: create the Lease, which must not exist.
    pub replaces: Option<String>,
    /// Holder to write; empty to release.
    pub holder: String,
    /// Lease duration to write, whole seconds.
    pub duration: Duration,
    /// Number of transitions to write.
    pub transitions: i32,
    /// The holder changes: `acquireTime` is now.
    pub acquires: bool,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this to become the leader.
    Acquire(LeaseWrite),
    /// Write this to stay the leader.
    Renew(LeaseWrite),
    /// Do nothing for so long, then read again.
    Wait(Duration),
    /// Leadership is over. Final: stop writing and leave the process.
    Lost(LostReason),
}

/// Why leadership ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LostReason {
    /// No renewal succeeded in time.
    #[error("the lease was not renewed for {0:?}")]
    NotRenewed(Duration),
    /// Somebody else holds the Lease.
    #[error("the lease is held by {0}")]
    TakenBy(String),
}

/// The memory of one elector.
#[derive(Clone, Debug)]
pub struct Elector {
    me: String,
    config: ElectionConfig,
    /// The newest record seen and when its version was first seen.
    observed: Option<(LeaseRecord, Duration)>,
    /// When the write was sent that made or kept this elector the leader.
    renewed_at: Option<Duration>,
    lost: Option<LostReason>,
}

impl Elector {
    /// `me` must be unique to this process: a restart is another candidate.
    pub fn new(me: impl Into<String>, config: ElectionConfig) -> Self {
        Self { me: me.into(), config, observed: None, renewed_at: None, lost: None }
    }

    /// Identity of this candidate.
    pub fn me(&self) -> &str {
        &self.me
    }

    /// The holder in the newest record seen, if it has one.
    pub fn holder(&self) -> Option<&str> {
        self.observed.as_ref().map(|(record, _)| record.holder.as_str()).filter(|holder| !holder.is_empty())
    }

    /// When leadership ends unless a renewal succeeds before. `None` when it does not lead.
    pub fn leads_until(&self) -> Option<Duration> {
        match (&self.lost, self.renewed_at) {
            (None, Some(renewed)) => Some(renewed + self.config.renew_deadline),
            _ => None,
        }
    }

    /// Whether it leads at `now`.
    pub fn leads(&self, now: Duration) -> bool {
        self.leads_until().is_some_and(|until| now < until)
    }

    /// How much longer it surely leads. A forward write needs more than its own deadline.
    pub fn time_left(&self, now: Duration) -> Duration {
        self.leads_until().map_or(Duration::ZERO, |until| until.saturating_sub(now))
    }

    /// Takes in what a read said and answers what to do.
    pub fn step(&mut self, seen: Seen, now: Duration) -> Step {
        if let Some(reason) = self.check_deadline(now) {
            return Step::Lost(reason);
        }
        match seen {
            Seen::Unreadable => Step::Wait(self.config.retry_period),
            Seen::Absent => self.on_absent(now),
            Seen::Record(record) => self.on_record(record, now),
        }
    }

    /// Takes in that a write which was sent at `sent` succeeded and left `record`. A write that failed is
    /// not fed back: the next read tells what became of it.
    pub fn wrote(&mut self, record: LeaseRecord, sent: Duration, now: Duration) -> Result<(), LostReason> {
        if let Some(reason) = self.check_deadline(now) {
            return Err(reason);
        }
        self.observed = Some((record, sent));
        self.renewed_at = Some(sent);
        match self.check_deadline(now) {
            Some(reason) => Err(reason), // the answer took longer than the leadership it brought
            None => Ok(()),
        }
    }

    /// Ends leadership. The write, if there is one, lets the next candidate start at once; it must be the
    /// last write of this process.
    pub fn release(&mut self, now: Duration) -> Option<LeaseWrite> {
        let leads = self.leads(now);
        self.renewed_at = None;
        let (record, _) = self.observed.as_ref().filter(|(record, _)| leads && record.holder == self.me)?;
        Some(LeaseWrite {
            replaces: Some(record.version.clone()),
            holder: String::new(),
            duration: Duration::from_secs(1), // as client-go does: candidates that ignore the holder wait least
            transitions: record.transitions,
            acquires: false,
        })
    }

    fn check_deadline(&mut self, now: Duration) -> Option<LostReason> {
        if self.lost.is_none() && self.renewed_at.is_some() && !self.leads(now) {
            self.lost = Some(LostReason::NotRenewed(self.config.renew_deadline));
        }
        self.lost.clone()
    }

    fn on_absent(&mut self, now: Duration) -> Step {
        if self.renewed_at.is_none() {
            // Somebody deleted the Lease under its holder, who may still lead. What was promised to them
            // stands; client-go would take it at once.
            if let Some(wait) = self.until_expiry(now) {
                return Step::Wait(wait);
            }
        }
        let transitions = self.observed.as_ref().map_or(0, |(record, _)| record.transitions);
        self.take(None, transitions)
    }

    fn on_record(&mut self, record: LeaseRecord, now: Duration) -> Step {
        if self.observed.as_ref().is_none_or(|(known, _)| known.version != record.version) {
            self.observed = Some((record.clone(), now));
        }
        let taken = !record.holder.is_empty() && record.holder != self.me;
        if self.renewed_at.is_some() && taken {
            let reason = LostReason::TakenBy(record.holder);
            self.lost = Some(reason.clone());
            return Step::Lost(reason);
        }
        if taken && let Some(wait) = self.until_expiry(now) {
            return Step::Wait(wait);
        }
        let transitions = record.transitions.saturating_add(i32::from(record.holder != self.me));
        self.take(Some(record), transitions)
    }

    /// How long to wait before the next look, while another holder's record is valid.
    fn until_expiry(&self, now: Duration) -> Option<Duration> {
        let (record, since) = self.observed.as_ref()?;
        if record.holder.is_empty() || record.holder == self.me {
            return None;
        }
        // The holder's own duration counts: it may run with another configuration, as in an upgrade.
        let left = (*since + record.duration).saturating_sub(now);
        (!left.is_zero()).then(|| left.min(self.config.retry_period))
    }

    fn take(&self, record: Option<LeaseRecord>, transitions: i32) -> Step {
        let write = LeaseWrite {
            acquires: record.as_ref().is_none_or(|record| record.holder != self.me),
            replaces: record.map(|record| record.version),
            holder: self.me.clone(),
            duration: self.config.lease_duration,
            transitions,
        };
        if self.renewed_at.is_some() { Step::Renew(write) } else { Step::Acquire(write) }
    }
}
