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

use std::time::Duration;

/// How long a lease lasts and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ElectionConfig {
    /// How long others wait, after the record last changed, before they take it over. Whole seconds.
    pub lease_duration: Duration,
    /// How long the leader goes on without a successful renewal.
    pub renew_deadline: Duration,
    /// Time between two attempts.
    pub retry_period: Duration,
}

impl Default for ElectionConfig {
    /// 15 s, 10 s and 2 s: the defaults of client-go and of Kubernetes' own controllers.
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Why an [`ElectionConfig`] can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElectionConfigError {
    /// The Lease object counts whole seconds.
    #[error("lease duration {0:?}: must be whole seconds, 1 s to 1 h; the default is 15 s")]
    LeaseDuration(Duration),
    /// Others would take over while this elector still leads.
    #[error(
        "renew deadline {renew:?}: must be shorter than the lease duration {lease:?}; the default is 10 s"
    )]
    RenewDeadline {
        /// The renew deadline.
        renew: Duration,
        /// The lease duration.
        lease: Duration,
    },
    /// Not even two attempts fit into the renew deadline.
    #[error(
        "retry period {retry:?}: must be above 0 and at most half of the renew deadline {renew:?}; the default is 2 s"
    )]
    RetryPeriod {
        /// The retry period.
        retry: Duration,
        /// The renew deadline.
        renew: Duration,
    },
}

impl ElectionConfig {
    /// Checks the three against each other.
    pub fn validate(&self) -> Result<(), ElectionConfigError> {
        let (lease, renew, retry) = (self.lease_duration, self.renew_deadline, self.retry_period);
        if lease.subsec_nanos() != 0 || lease.is_zero() || lease > Duration::from_secs(3600) {
            return Err(ElectionConfigError::LeaseDuration(lease));
        }
        if renew >= lease {
            return Err(ElectionConfigError::RenewDeadline { renew, lease });
        }
        if retry.is_zero() || retry * 2 > renew {
            return Err(ElectionConfigError::RetryPeriod { retry, renew });
        }
        Ok(())
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn record(version: u32, holder: &str) -> LeaseRecord {
        LeaseRecord { version: version.to_string(), holder: holder.into(), duration: S(15), transitions: 3 }
    }

    fn leader_since(sent: Duration) -> Elector {
        let mut elector = Elector::new("me", ElectionConfig::default());
        assert!(matches!(elector.step(Seen::Record(record(1, "")), sent), Step::Acquire(_)));
        elector.wrote(record(2, "me"), sent, sent + MS(20)).expect("in time");
        elector
    }

    #[test]
    fn a_free_lease_is_taken_at_once() {
        let mut elector = Elector::new("me", ElectionConfig::default());
        let Step::Acquire(write) = elector.step(Seen::Absent, S(0)) else { panic!("not taken") };
        assert_eq!((write.replaces, write.holder.as_str(), write.transitions), (None, "me", 0));
        assert!(write.acquires);

        let Step::Acquire(write) = elector.step(Seen::Record(record(7, "")), S(1)) else {
            panic!("not taken")
        };
        assert_eq!((write.replaces.as_deref(), write.transitions), (Some("7"), 4));
        assert!(!elector.leads(S(1)), "leads only after the write succeeded");
    }

    #[test]
    fn a_held_lease_is_taken_when_it_did_not_change_for_its_duration() {
        let mut elector = Elector::new("me", ElectionConfig::default());
        for (at, version, expect) in [
            (0, 1, Some(S(2))),
            (14, 1, Some(S(1))), // waits no longer than until the expiry
            (14, 2, Some(S(2))), // renewed: the wait starts anew
            (28, 2, Some(S(1))),
            (29, 2, None),
        ] {
            match (elector.step(Seen::Record(record(version, "other")), S(at)), expect) {
                (Step::Wait(wait), Some(expected)) => assert_eq!(wait, expected, "at {at}"),
                (Step::Acquire(write), None) => assert_eq!(write.replaces.as_deref(), Some("2")),
                (step, _) => panic!("at {at}: {step:?}"),
            }
        }
    }

    #[test]
    fn the_holders_own_duration_counts() {
        let mut elector = Elector::new("me", ElectionConfig::default());
        let slow = LeaseRecord { duration: S(60), ..record(1, "other") };
        assert!(matches!(elector.step(Seen::Record(slow.clone()), S(0)), Step::Wait(_)));
        assert!(matches!(elector.step(Seen::Record(slow.clone()), S(59)), Step::Wait(_)));
        assert!(matches!(elector.step(Seen::Record(slow), S(60)), Step::Acquire(_)));
    }

    #[test]
    fn leadership_counts_from_when_the_write_was_sent() {
        let mut elector = Elector::new("me", ElectionConfig::default());
        assert!(matches!(elector.step(Seen::Absent, S(0)), Step::Acquire(_)));
        elector.wrote(record(1, "me"), S(0), S(4)).expect("in time");
        assert_eq!(elector.time_left(S(4)), S(6));
        assert!(elector.leads(MS(9_999)) && !elector.leads(S(10)));
    }

    #[test]
    fn an_answer_that_comes_too_late_brings_no_leadership() {
        let mut elector = Elector::new("me", ElectionConfig::default());
        assert!(matches!(elector.step(Seen::Absent, S(0)), Step::Acquire(_)));
        assert_eq!(elector.wrote(record(1, "me"), S(0), S(10)), Err(LostReason::NotRenewed(S(10))));
        assert!(!elector.leads(S(10)));
    }

    #[test]
    fn the_leader_renews_and_is_lost_after_the_renew_deadline() {
        let mut elector = leader_since(S(100));
        let Step::Renew(write) = elector.step(Seen::Record(record(2, "me")), S(102)) else {
            panic!("no renewal")
        };
        assert_eq!((write.transitions, write.acquires), (3, false));
        elector.wrote(record(3, "me"), S(102), S(102)).expect("in time");
        assert!(matches!(elector.step(Seen::Unreadable, S(104)), Step::Wait(_)));
        assert!(matches!(elector.step(Seen::Unreadable, MS(111_999)), Step::Wait(_)));
        assert_eq!(elector.step(Seen::Unreadable, S(112)), Step::Lost(LostReason::NotRenewed(S(10))));
        let free = Seen::Record(record(9, ""));
        assert!(matches!(elector.step(free, S(113)), Step::Lost(_)), "lost is final");
    }

    #[test]
    fn a_leader_that_sees_another_holder_is_lost_at_once() {
        let mut elector = leader_since(S(0));
        let step = elector.step(Seen::Record(record(9, "other")), S(2));
        assert_eq!(step, Step::Lost(LostReason::TakenBy("other".into())));
        assert!(!elector.leads(S(2)));
        assert_eq!(elector.release(S(2)), None, "what others hold is not released");
    }

    #[test]
    fn a_lost_reply_is_found_out_by_the_next_read() {
        let mut elector = Elector::new("me", ElectionConfig::default());
        assert!(matches!(elector.step(Seen::Absent, S(0)), Step::Acquire(_)));
        // The write landed, its answer did not.
        let Step::Acquire(write) = elector.step(Seen::Record(record(1, "me")), S(2)) else { panic!("waits") };
        assert_eq!((write.replaces.as_deref(), write.transitions), (Some("1"), 3));
    }

    #[test]
    fn release_frees_the_lease_and_ends_leadership() {
        let mut elector = leader_since(S(0));
        let write = elector.release(S(1)).expect("the leader has something to release");
        assert_eq!((write.replaces.as_deref(), write.holder.as_str()), (Some("2"), ""));
        assert!(!elector.leads(S(1)));
        assert_eq!(elector.release(S(1)), None);
        assert_eq!(Elector::new("b", ElectionConfig::default()).release(S(0)), None);
    }

    #[test]
    fn a_lease_deleted_under_its_holder_is_waited_out() {
        let mut elector = Elector::new("me", ElectionConfig::default());
        assert!(matches!(elector.step(Seen::Record(record(1, "other")), S(0)), Step::Wait(_)));
        assert!(matches!(elector.step(Seen::Absent, S(14)), Step::Wait(_)));
        assert!(matches!(elector.step(Seen::Absent, S(15)), Step::Acquire(_)));
        let mut leader = leader_since(S(0));
        assert!(matches!(leader.step(Seen::Absent, S(2)), Step::Renew(LeaseWrite { replaces: None, .. })));
    }

    #[test]
    fn unusable_configurations_are_refused() {
        let of = |lease, renew, retry| ElectionConfig {
            lease_duration: lease,
            renew_deadline: renew,
            retry_period: retry,
        };
        assert_eq!(ElectionConfig::default().validate(), Ok(()));
        for (config, says) in [
            (of(MS(1500), S(1), MS(100)), "lease duration"),
            (of(S(0), S(0), S(0)), "lease duration"),
            (of(S(7200), S(10), S(2)), "lease duration"),
            (of(S(15), S(15), S(2)), "renew deadline"),
            (of(S(15), S(10), S(0)), "retry period"),
            (of(S(15), S(10), S(6)), "retry period"),
        ] {
            let text = config.validate().map_err(|e| e.to_string()).expect_err("must be refused");
            assert!(text.starts_with(says), "{config:?}: {text}");
        }
    }

    /// A call on its way: when it reaches the server, when its answer arrives (if ever), and what it is.
    #[derive(Clone, Debug)]
    enum Call {
        Read,
        Write(LeaseWrite),
    }

    struct Candidate {
        elector: Elector,
        /// When this candidate's clock started, and its rate in thousandths.
        born: u64,
        rate: u64,
        wake: u64,
        call: Option<(Call, u64, u64, Option<u64>)>, // call, sent, reaches the server, answered
        answer: Option<Result<Option<LeaseRecord>, ()>>,
        generation: u32,
    }

    impl Candidate {
        fn clock(&self, now: u64) -> Duration {
            MS((now - self.born) * self.rate / 1000)
        }
    }

    /// One choice of the environment: delays of the next call in ms, and what goes wrong.
    #[derive(Clone, Copy, Debug)]
    struct Luck {
        there: u16,
        back: u16,
        fault: u8,
    }

    fn luck() -> impl Strategy<Value = Luck> {
        let delay = prop_oneof![8 => 0u16..50, 2 => 0u16..3_000, 1 => 0u16..16_000];
        (delay.clone(), delay, 0u8..40).prop_map(|(there, back, fault)| Luck { there, back, fault })
    }

    struct Server {
        record: Option<LeaseRecord>,
        version: u32,
    }

    impl Server {
        fn apply(&mut self, call: &Call) -> Result<Option<LeaseRecord>, ()> {
            let Call::Write(write) = call else { return Ok(self.record.clone()) };
            if self.record.as_ref().map(|r| r.version.clone()) != write.replaces {
                return Err(()); // Conflict, NotFound or AlreadyExists
            }
            self.version += 1;
            self.record = Some(LeaseRecord {
                version: self.version.to_string(),
                holder: write.holder.clone(),
                duration: write.duration,
                transitions: write.transitions,
            });
            Ok(self.record.clone())
        }
    }

    fn act(candidate: &mut Candidate, id: usize, now: u64, luck: Luck) {
        let clock = candidate.clock(now);
        let send = |call: Call| {
            let reaches = now + u64::from(luck.there);
            let answered = (luck.fault != 0).then_some(reaches + u64::from(luck.back));
            Some((call, now, reaches, answered))
        };
        let finished = candidate.call.take();
        let step = match (finished, candidate.answer.take()) {
            (None, _) => {
                candidate.call = send(Call::Read);
                return;
            }
            (Some((Call::Read, ..)), Some(Ok(Some(record)))) => {
                candidate.elector.step(Seen::Record(record), clock)
            }
            (Some((Call::Read, ..)), Some(Ok(None))) => candidate.elector.step(Seen::Absent, clock),
            (Some((Call::Read, ..)), _) => candidate.elector.step(Seen::Unreadable, clock),
            (Some((Call::Write(_), sent, ..)), Some(Ok(Some(record)))) => {
                let sent = MS((sent - candidate.born) * candidate.rate / 1000);
                let lost = candidate.elector.wrote(record, sent, clock).err();
                lost.map_or(Step::Wait(S(2)), Step::Lost)
            }
            (Some((Call::Write(_), ..)), _) => Step::Wait(S(2)),
        };
        // A crash at any point, and a loss, make a new process with a new identity; some leave politely.
        let released = if luck.fault == 1 { candidate.elector.release(clock) } else { None };
        if luck.fault <= 2 || matches!(step, Step::Lost(_)) {
            candidate.generation += 1;
            let me = format!("{id}-{}", candidate.generation);
            candidate.elector = Elector::new(me, ElectionConfig::default());
            candidate.born = now;
            candidate.wake = now + 500;
            // A release is on its way while the next process starts; it is not waited for.
            candidate.call = released.map(Call::Write).and_then(send).map(|(c, s, r, _)| (c, s, r, None));
            return;
        }
        match step {
            Step::Acquire(write) | Step::Renew(write) => candidate.call = send(Call::Write(write)),
            Step::Wait(wait) => {
                candidate.wake = now + (wait.as_millis() as u64 * 1000 / candidate.rate).max(1);
            }
            Step::Lost(_) => unreachable!("handled above"),
        }
    }

    /// Plays `lucks` on `rates.len()` candidates; answers how often leadership changed hands.
    fn play(rates: &[u64], lucks: &[Luck]) -> Result<usize, TestCaseError> {
        let mut server = Server { record: None, version: 0 };
        let mut candidates: Vec<Candidate> = rates
            .iter()
            .enumerate()
            .map(|(id, rate)| Candidate {
                elector: Elector::new(format!("{id}-0"), ElectionConfig::default()),
                born: 0,
                rate: *rate,
                wake: 0,
                call: None,
                answer: None,
                generation: 0,
            })
            .collect();
        let mut lucks = lucks.iter().copied();
        let (mut now, mut changes, mut leader) = (0u64, 0, None::<String>);
        loop {
            for (id, candidate) in candidates.iter_mut().enumerate() {
                if let Some((call, _, reaches, answered)) = &candidate.call {
                    if *reaches == now && candidate.answer.is_none() {
                        let result = server.apply(call);
                        candidate.answer = answered.map_or(Some(Err(())), |_| Some(result));
                    }
                    // A reply that never comes is given up after 5 s.
                    let due = answered.unwrap_or(*reaches + 5_000);
                    if due.max(*reaches) > now {
                        continue;
                    }
                } else if candidate.wake > now {
                    continue;
                }
                let Some(luck) = lucks.next() else { return Ok(changes) };
                act(candidate, id, now, luck);
                // A call with no delay is applied within the same millisecond.
                if let Some((call, _, reaches, answered)) = &candidate.call
                    && *reaches == now
                {
                    let result = server.apply(call);
                    candidate.answer = answered.map_or(Some(Err(())), |_| Some(result));
                }
            }
            let leaders: Vec<&Candidate> =
                candidates.iter().filter(|c| c.elector.leads(c.clock(now))).collect();
            prop_assert!(leaders.len() <= 1, "two leaders at {now} ms");
            if let [one] = leaders[..]
                && leader.as_deref() != Some(one.elector.me())
            {
                leader = Some(one.elector.me().into());
                changes += 1;
            }
            now += 1;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn never_two_leaders(lucks in prop::collection::vec(luck(), 20..160), count in 2usize..4) {
            play(&vec![1000; count], &lucks)?;
        }

        #[test]
        fn never_two_leaders_with_clocks_that_differ_by_a_fifth(
            lucks in prop::collection::vec(luck(), 20..160),
            rates in prop::collection::vec(910u64..1100, 2..4),
        ) {
            play(&rates, &lucks)?;
        }
    }

    #[test]
    fn leadership_moves_on_in_the_model() {
        // Proves that the model of the property above is not idle: leaders come and go.
        let calm = Luck { there: 3, back: 3, fault: 9 };
        let mut lucks = vec![calm; 400];
        for at in [50, 150, 250] {
            for luck in &mut lucks[at..at + 3] {
                luck.fault = 2; // whoever acts here crashes
            }
        }
        let changes = play(&[1000, 1000], &lucks).expect("one leader at a time");
        assert!(changes >= 3, "{changes} changes");
    }
}
