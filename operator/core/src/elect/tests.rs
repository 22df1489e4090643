//! What an elector does with what it sees.

use super::*;

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

    let Step::Acquire(write) = elector.step(Seen::Record(record(7, "")), S(1)) else { panic!("not taken") };
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
