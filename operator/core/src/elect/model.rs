//! Candidates whose clocks differ, on a server that is slow, loses answers and sees them crash: never two lead.

use super::*;
use proptest::prelude::*;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

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
        let leaders: Vec<&Candidate> = candidates.iter().filter(|c| c.elector.leads(c.clock(now))).collect();
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
