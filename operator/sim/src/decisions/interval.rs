//! Shares with their intervals.

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Runs in which it did.
    pub of: usize,
    /// Runs.
    pub runs: usize,
}

impl Share {
    /// Counts what is so.
    pub fn count(runs: impl Iterator<Item = bool>) -> Self {
        runs.fold(Self::default(), |share, so| Self { of: share.of + usize::from(so), runs: share.runs + 1 })
    }

    /// With those of others.
    pub fn plus(self, other: Self) -> Self {
        Self { of: self.of + other.of, runs: self.runs + other.runs }
    }

    /// The share itself.
    pub fn value(self) -> f64 {
        if self.runs > 0 { self.of as f64 / self.runs as f64 } else { f64::NAN }
    }

    /// Two-sided 95 % interval of Clopper and Pearson (Biometrika 26, 1934): exact, never too short.
    pub fn interval(self) -> (f64, f64) {
        let lower = if self.of == 0 { 0.0 } else { root(|p| 1.0 - self.at_most(self.of - 1, p) - 0.025) };
        let upper = if self.of == self.runs { 1.0 } else { root(|p| 0.025 - self.at_most(self.of, p)) };
        (lower, upper)
    }

    /// Binomial distribution function.
    fn at_most(self, k: usize, p: f64) -> f64 {
        let n = self.runs as f64;
        let mut ln = n * (-p).ln_1p();
        let mut sum = ln.exp();
        for i in 0..k {
            ln += ((n - i as f64) / (i as f64 + 1.0)).ln() + p.ln() - (-p).ln_1p();
            sum += ln.exp();
        }
        sum
    }
}

/// Where a rising function of a probability crosses 0.
fn root(f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if f(middle) < 0.0 { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: (f64, f64), want: (f64, f64)) {
        assert!((got.0 - want.0).abs() < 5e-5 && (got.1 - want.1).abs() < 5e-5, "{got:?} for {want:?}");
    }

    #[test]
    fn intervals_are_those_of_the_tables() {
        near(Share { of: 0, runs: 400 }.interval(), (0.0, 0.00918));
        near(Share { of: 5, runs: 10 }.interval(), (0.18709, 0.81291));
        near(Share { of: 10, runs: 10 }.interval(), (0.69150, 1.0));
        near(Share { of: 3, runs: 300 }.interval(), (0.00207, 0.02895));
    }
}
