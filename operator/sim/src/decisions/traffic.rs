//! Requests and failures of both arms: what a scrape every 15 s of their pods' counters shows.

use sluice_core::statistics::{Cell, is_warm};

use super::draw::Draw;

/// Length of a window, in seconds.
pub const WINDOW: f64 = 15.0;
/// Requests for which a new pod is cold.
const COLD_REQUESTS: f64 = 200.0;

/// How failures come, apart from their mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Failures {
    /// Each request for itself.
    Independent,
    /// Negative binomial in each pod and window, of this variance over mean.
    PodBursts(f64),
    /// Negative binomial in each arm and window.
    ArmBursts(f64),
    /// A pod is bad now and then: how often an hour, for how many seconds, and its rate then.
    Episodes { per_hour: f64, seconds: f64, rate: f64 },
    /// Pods differ for good: log-normal, of this standard deviation of the log.
    PodsDiffer(f64),
    /// Clusters in one pod, of a size with a Pareto tail of this index.
    Clusters(f64),
}

/// What befalls both arms alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Common {
    /// Nothing.
    Steady,
    /// Load swings threefold within an hour, and failures with its power 1.5.
    Swings,
    /// The log of the rate is a first-order autoregression of standard deviation 1 that forgets in 1 to 30 minutes.
    Wander,
    /// The rate is multiplied by one factor before a moment, and by another from then on.
    Jump { at: f64, before: f64, after: f64 },
    /// One incident, some time in the run.
    Incident { seconds: f64, factor: f64 },
    /// An incident every hour, before the start too.
    Incidents { seconds: f64, factor: f64 },
}

/// How counters are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scrape {
    /// All at the end of the window.
    Aligned,
    /// Each pod at a moment of its own.
    Phases,
    /// The canary's a whole scrape late.
    CanaryLate,
    /// A pod's scrape is missed with this probability; the next one has both.
    Missed(f64),
}

/// What is wrong with the canary.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Its rate is this multiple of stable's: 1 for a good one.
    Times(f64),
    /// The same, but only from this share of the traffic on.
    TimesFrom { share: f64, times: f64 },
    /// Its rate is this from a moment on, and stable's before.
    Step { at: f64, rate: f64 },
    /// Its rate rises evenly to this one.
    Leak { seconds: f64, rate: f64 },
}

/// The service and what befalls it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Requests per second, of both arms.
    pub rps: f64,
    /// Stable's rate of failures.
    pub rate: f64,
    /// Stable's pods.
    pub pods: u32,
    /// The canary's pods at the start.
    pub canary_pods: u32,
    /// Clusters.
    pub failures: Failures,
    /// Common fate.
    pub common: Common,
    /// The canary gets so many times the requests that its share says.
    pub canary_load: f64,
    /// Scrapes.
    pub scrape: Scrape,
    /// The canary.
    pub fault: Fault,
    /// Share of a new pod's first 200 requests that fails because it is cold.
    pub cold: f64,
    /// Requests of a new pod that are not counted (`warmupRequests`).
    pub warmup: f64,
    /// Whether bad times begin exactly at a scrape, as they do in no cluster.
    pub on_scrapes: bool,
}

impl Traffic {
    /// Independent failures at a steady rate, ten pods of stable and one of the canary, and no fault.
    pub const STEADY: Self = Self {
        rps: 50.0,
        rate: 0.001,
        pods: 10,
        canary_pods: 1,
        failures: Failures::Independent,
        common: Common::Steady,
        canary_load: 1.0,
        scrape: Scrape::Aligned,
        fault: Fault::Times(1.0),
        cold: 0.0,
        warmup: 0.0,
        on_scrapes: false,
    };
}

impl Default for Traffic {
    fn default() -> Self {
        Self::STEADY
    }
}

impl Traffic {
    /// Rate of the canary where stable's is `stable`, as a mean over a span of time.
    pub fn canary_rate(&self, stable: f64, share: f64, from: f64, to: f64) -> f64 {
        match self.fault {
            Fault::Times(times) => stable * times,
            Fault::TimesFrom { share: least, times } if share >= least => stable * times,
            Fault::TimesFrom { .. } => stable,
            Fault::Step { at, rate } => {
                let bad = overlap(from, to, at, f64::INFINITY) / (to - from);
                stable * (1.0 - bad) + rate * bad
            }
            Fault::Leak { seconds, rate } => {
                let risen = ((from + to) / (2.0 * seconds)).clamp(0.0, 1.0);
                stable + (rate - self.rate) * risen
            }
        }
    }

    /// Failed requests more than stable would have had, expected in a span at a constant share.
    pub fn excess(&self, share: f64, from: f64, to: f64) -> f64 {
        if to <= from {
            return 0.0;
        }
        // A leak stops rising at its end.
        if let Fault::Leak { seconds, .. } = self.fault
            && from < seconds
            && seconds < to
        {
            return self.excess(share, from, seconds) + self.excess(share, seconds, to);
        }
        let rate = self.canary_rate(self.rate, share, from, to);
        self.rps * self.canary_load * share * (rate - self.rate) * (to - from)
    }
}

/// One pod.
struct Pod {
    number: u32,
    canary: bool,
    /// When its first request came.
    born: f64,
    /// Its own multiple of the rate.
    factor: f64,
    /// How long before the end of a window it is scraped.
    phase: f64,
    /// The bad time that comes next, or is.
    episode: (f64, f64),
    /// Requests so far.
    seen: f64,
    /// Counts whose scrape was missed.
    missed: (f64, f64),
}

/// The counters' rise, window by window.
pub struct Stream {
    traffic: Traffic,
    draw: Draw,
    pods: Vec<Pod>,
    /// State and memory of `Common::Wander`.
    wander: (f64, f64),
    /// Phase of `Common::Swings`, and when incidents begin.
    phase: f64,
    /// Counts of both arms in the last window.
    pub canary: Vec<Cell>,
    /// Stable's.
    pub stable: Vec<Cell>,
}

impl Stream {
    /// From `from` on, which is before 0, when the canary gets its first request. `until`: end of the run.
    pub fn new(traffic: Traffic, mut draw: Draw, from: f64, until: f64) -> Self {
        let forgets = 60.0 * 30.0_f64.powf(draw.between(0.0, 1.0));
        let wander = (draw.normal(), (-WINDOW / forgets).exp());
        let phase = match traffic.common {
            Common::Incident { seconds, .. } => draw.between(600.0, until - seconds),
            _ => draw.between(0.0, 3600.0),
        };
        let phase = if traffic.on_scrapes { (phase / WINDOW).floor() * WINDOW } else { phase };
        let mut stream =
            Self { traffic, draw, pods: Vec::new(), wander, phase, canary: Vec::new(), stable: Vec::new() };
        (0..traffic.pods).for_each(|_| stream.add_pod(false, from));
        (0..traffic.canary_pods).for_each(|_| stream.add_pod(true, 0.0));
        stream
    }

    fn add_pod(&mut self, canary: bool, born: f64) {
        let draw = &mut self.draw;
        let factor = match self.traffic.failures {
            // A bad canary is as bad as said, whatever pod it is in.
            Failures::PodsDiffer(sigma) if !canary || self.traffic.fault == Fault::Times(1.0) => {
                (sigma * draw.normal() - sigma * sigma / 2.0).exp()
            }
            _ => 1.0,
        };
        let phase = match self.traffic.scrape {
            Scrape::Phases => draw.between(0.0, WINDOW),
            Scrape::CanaryLate if canary => WINDOW,
            _ => 0.0,
        };
        let number = self.pods.len() as u32;
        let mut pod =
            Pod { number, canary, born, factor, phase, episode: (born, born), seen: 0.0, missed: (0.0, 0.0) };
        next_episode(&self.traffic, draw, &mut pod);
        self.pods.push(pod);
    }

    /// The canary grows with its share, as a Deployment does: a pod for each started tenth of the traffic.
    pub fn scale_canary(&mut self, share: f64, now: f64) {
        let wanted = (share * f64::from(self.traffic.pods)).ceil() as usize;
        let there = self.pods.iter().filter(|pod| pod.canary).count();
        (there..wanted).for_each(|_| self.add_pod(true, now));
    }

    /// Plays the window that begins at `from`, with this share of the traffic at the canary.
    pub fn play(&mut self, from: f64, share: f64) {
        let traffic = self.traffic;
        let to = from + WINDOW;
        let (load, factor) = self.common_now(from);
        let canaries = self.pods.iter().filter(|pod| pod.canary).count().max(1) as f64;
        let stables = f64::from(traffic.pods.max(1));
        self.canary.clear();
        self.stable.clear();
        for pod in &mut self.pods {
            if pod.canary && from < 0.0 || !pod.canary && share >= 1.0 {
                continue;
            }
            let pods_share =
                if pod.canary { traffic.canary_load * share / canaries } else { (1.0 - share) / stables };
            let (since, till) = ((from - pod.phase).max(pod.born), to - pod.phase);
            let span = (till - since).max(0.0);
            let n = self.draw.poisson(traffic.rps * load * pods_share * span);
            let mut rate = traffic.rate * factor;
            if span > 0.0 {
                rate *= befallen(traffic.common, self.phase, since, till);
                if pod.canary {
                    rate = traffic.canary_rate(rate, share, since, till);
                }
                rate *= pod.factor;
                if let Failures::Episodes { rate: bad, .. } = traffic.failures {
                    let part = bad_part(&traffic, &mut self.draw, pod, since, till);
                    rate = rate * (1.0 - part) + bad * part;
                }
            }
            let (n, cold) = new_requests(&traffic, pod, n);
            let mean = n * rate.min(1.0);
            let x = match traffic.failures {
                Failures::PodBursts(phi) => self.draw.negative_binomial(mean, phi),
                Failures::Clusters(index) => self.draw.clusters(mean, index),
                // Drawn for the whole arm below; until then its mean.
                Failures::ArmBursts(_) => mean,
                _ => self.draw.binomial(n, rate),
            };
            let x = (x + self.draw.binomial(cold, traffic.cold)).min(n);
            let (n, x) = (n + pod.missed.0, x + pod.missed.1);
            if let Scrape::Missed(probability) = traffic.scrape
                && self.draw.happens(probability)
            {
                pod.missed = (n, x);
                continue;
            }
            pod.missed = (0.0, 0.0);
            let cell = Cell { pod: pod.number, n, x, x_gate: x };
            if pod.canary { self.canary.push(cell) } else { self.stable.push(cell) }
        }
        if let Failures::ArmBursts(phi) = traffic.failures {
            arm_bursts(&mut self.draw, &mut self.canary, phi);
            arm_bursts(&mut self.draw, &mut self.stable, phi);
        }
    }

    /// Load, and factor on the rate, of the window that begins at `from`, as far as they vary slowly.
    fn common_now(&mut self, from: f64) -> (f64, f64) {
        match self.traffic.common {
            Common::Swings => {
                let swing = ((from + self.phase) / 3600.0 * std::f64::consts::TAU).sin();
                let load = 3.0_f64.powf(swing / 2.0);
                (load, load.powf(1.5))
            }
            Common::Wander => {
                let (state, kept) = self.wander;
                let next = kept * state + (1.0 - kept * kept).sqrt() * self.draw.normal();
                self.wander.0 = next;
                // The half of the variance keeps the mean.
                (1.0, (next - 0.5).exp())
            }
            _ => (1.0, 1.0),
        }
    }
}

/// Counts a pod's new requests: those that are counted at all, and the cold ones among them.
fn new_requests(traffic: &Traffic, pod: &mut Pod, n: f64) -> (f64, f64) {
    if pod.born < 0.0 {
        return (n, 0.0);
    }
    let (before, after) = (pod.seen, pod.seen + n);
    pod.seen = after;
    if !is_warm(before, traffic.warmup) {
        return (0.0, 0.0);
    }
    let cold = overlap(before, after, 0.0, COLD_REQUESTS);
    (n, if traffic.cold > 0.0 { cold } else { 0.0 })
}

/// Mean factor on the rate in a span of time.
fn befallen(common: Common, phase: f64, from: f64, to: f64) -> f64 {
    let within = |start, seconds| overlap(from, to, start, start + seconds) / (to - from);
    match common {
        Common::Jump { at, before, after } => {
            let late = within(at, f64::INFINITY);
            before * (1.0 - late) + after * late
        }
        Common::Incident { seconds, factor } => 1.0 + (factor - 1.0) * within(phase, seconds),
        Common::Incidents { seconds, factor } => {
            let last = phase + 3600.0 * ((from - phase) / 3600.0).floor();
            1.0 + (factor - 1.0) * (within(last, seconds) + within(last + 3600.0, seconds))
        }
        Common::Steady | Common::Swings | Common::Wander => 1.0,
    }
}

fn next_episode(traffic: &Traffic, draw: &mut Draw, pod: &mut Pod) {
    if let Failures::Episodes { per_hour, seconds, .. } = traffic.failures {
        let start = pod.episode.1 + draw.exponential(3600.0 / per_hour);
        let start = if traffic.on_scrapes { (start / WINDOW).ceil() * WINDOW } else { start };
        pod.episode = (start, start + seconds);
    }
}

/// Part of a span in which a pod is bad. Spans must come in order.
fn bad_part(traffic: &Traffic, draw: &mut Draw, pod: &mut Pod, from: f64, to: f64) -> f64 {
    let mut bad = 0.0;
    loop {
        bad += overlap(from, to, pod.episode.0, pod.episode.1);
        if pod.episode.1 > to {
            return bad / (to - from);
        }
        next_episode(traffic, draw, pod);
    }
}

/// Draws an arm's failures, in place of their means, and deals them out to its pods.
fn arm_bursts(draw: &mut Draw, cells: &mut [Cell], phi: f64) {
    let mut mean: f64 = cells.iter().map(|cell| cell.x).sum();
    let mut left = draw.negative_binomial(mean, phi);
    for cell in cells {
        let part = if mean > 0.0 { (cell.x / mean).min(1.0) } else { 0.0 };
        mean -= cell.x;
        let x = draw.binomial(left, part);
        left -= x;
        cell.x = x.min(cell.n);
        cell.x_gate = cell.x;
    }
}

/// Length of what two spans have in common.
fn overlap(from: f64, to: f64, start: f64, end: f64) -> f64 {
    (to.min(end) - from.max(start)).max(0.0)
}
