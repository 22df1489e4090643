//! Random numbers of a run, and the distributions of its counts.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Binomial, Distribution, Exp1, Gamma, OpenClosed01, Poisson, StandardNormal};

/// A run's source of randomness. It depends on nothing but the seed, the scenario's name and the run's number: neither
/// threads nor the other scenarios change it.
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// Of one run.
    pub fn new(seed: u64, scenario: &str, run: u64) -> Self {
        // FNV-1a: stable from one version of the toolchain to the next.
        let name = scenario.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let mut key = [0; 32];
        for (part, number) in key.chunks_exact_mut(8).zip([seed, name, run]) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(key))
    }

    /// Uniform between two numbers.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        let unit: f64 = OpenClosed01.sample(&mut self.0);
        low + (high - low) * (1.0 - unit)
    }

    /// Whether something of this probability happens.
    pub fn happens(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.between(0.0, 1.0) < probability
    }

    /// Standard normal.
    pub fn normal(&mut self) -> f64 {
        StandardNormal.sample(&mut self.0)
    }

    /// Time until the next event of a Poisson process.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        let one: f64 = Exp1.sample(&mut self.0);
        mean * one
    }

    /// Events of a Poisson process.
    pub fn poisson(&mut self, mean: f64) -> f64 {
        // Never an error: a mean above 0 and finite.
        if mean > 0.0 { Poisson::new(mean).map_or(0.0, |law| law.sample(&mut self.0)) } else { 0.0 }
    }

    /// How many of `n` fail, independently.
    pub fn binomial(&mut self, n: f64, rate: f64) -> f64 {
        if n < 1.0 || rate <= 0.0 {
            return 0.0;
        }
        Binomial::new(n as u64, rate.min(1.0)).map_or(0.0, |law| law.sample(&mut self.0) as f64)
    }

    /// Negative binomial: a Poisson count whose mean is drawn anew, so that the variance is `phi` times the mean.
    pub fn negative_binomial(&mut self, mean: f64, phi: f64) -> f64 {
        if mean <= 0.0 || phi <= 1.0 {
            return self.poisson(mean);
        }
        let scale = phi - 1.0;
        let drawn = Gamma::new(mean / scale, scale).map_or(mean, |law| law.sample(&mut self.0));
        self.poisson(drawn)
    }

    /// Failures in clusters whose size has a Pareto tail: `P(size >= k) = k^-index`, mean `mean`.
    pub fn clusters(&mut self, mean: f64, index: f64) -> f64 {
        let clusters = self.poisson(mean / zeta(index)) as u64;
        let size = |draw: &mut Self| {
            let unit: f64 = OpenClosed01.sample(&mut draw.0);
            unit.powf(-1.0 / index).floor()
        };
        (0..clusters).map(|_| size(self)).sum()
    }
}

/// Riemann's zeta, the mean size of a cluster: a sum with the Euler-Maclaurin rest.
fn zeta(s: f64) -> f64 {
    let n = 20.0_f64;
    let sum: f64 = (1..20).map(|k| f64::from(k).powf(-s)).sum();
    sum + n.powf(1.0 - s) / (s - 1.0) + n.powf(-s) / 2.0 + s * n.powf(-s - 1.0) / 12.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and variance of many draws.
    fn moments(draw: impl Fn(&mut Draw) -> f64) -> (f64, f64) {
        let mut source = Draw::new(1, "moments", 0);
        let all: Vec<f64> = (0..20_000).map(|_| draw(&mut source)).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        (mean, all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len() as f64)
    }

    fn near(got: (f64, f64), mean: f64, variance: f64) {
        assert!((got.0 / mean - 1.0).abs() < 0.05, "mean {} for {mean}", got.0);
        assert!((got.1 / variance - 1.0).abs() < 0.08, "variance {} for {variance}", got.1);
    }

    #[test]
    fn counts_have_the_mean_and_variance_of_their_law() {
        near(moments(|draw| draw.poisson(3.0)), 3.0, 3.0);
        near(moments(|draw| draw.binomial(40.0, 0.25)), 10.0, 7.5);
        near(moments(|draw| draw.negative_binomial(4.0, 3.0)), 4.0, 12.0);
        near(moments(|draw| draw.negative_binomial(2.0, 10.0)), 2.0, 20.0);
        near(moments(|draw| 5.0 + draw.normal()), 5.0, 1.0);
        near(moments(|draw| draw.between(2.0, 4.0)), 3.0, 1.0 / 3.0);
        near(moments(|draw| draw.exponential(2.0)), 2.0, 4.0);
    }

    #[test]
    fn clusters_keep_the_mean() {
        let (mean, variance) = moments(|draw| draw.clusters(3.0, 2.5));
        // E K = zeta(2.5), E K^2 = 2 zeta(1.5) - zeta(2.5); the fourth moment is infinite, so only roughly.
        assert!((mean - 3.0).abs() < 0.15, "{mean}");
        assert!(variance > 2.0 * mean, "{variance}");
        assert!((zeta(2.0) - std::f64::consts::PI.powi(2) / 6.0).abs() < 1e-7);
    }

    #[test]
    fn a_run_depends_on_its_name_and_number_alone() {
        let first = |seed, name, run| Draw::new(seed, name, run).between(0.0, 1.0);
        assert_eq!(first(1, "a", 2), first(1, "a", 2));
        for other in [first(2, "a", 2), first(1, "b", 2), first(1, "a", 3)] {
            assert_ne!(first(1, "a", 2), other);
        }
    }

    #[test]
    fn nothing_comes_of_nothing() {
        let mut draw = Draw::new(1, "nothing", 0);
        assert_eq!(draw.poisson(0.0) + draw.binomial(10.0, 0.0) + draw.binomial(0.0, 1.0), 0.0);
        assert_eq!(draw.negative_binomial(0.0, 3.0) + draw.clusters(0.0, 1.5), 0.0);
        assert!(!draw.happens(0.0));
        assert_eq!(draw.binomial(7.0, 2.0), 7.0);
    }
}
