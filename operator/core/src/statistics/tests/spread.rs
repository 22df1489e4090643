//! When stable's pods are taken to differ: how often those that are alike do by chance, and what is still found.

use super::size::Random;
use crate::statistics::bursts::pod_spread;

/// The least `cv^2` that counts, over the number of failures, as it was: one standard error.
fn one_error(pods: f64, failures: f64) -> f64 {
    (2.0 * pods).sqrt() / failures
}

/// `cv^2` of pods of equal size without bursts, from the sum of `x (x-1)`.
fn squared(pods: f64, failures: f64, pairs: f64) -> f64 {
    (pairs - failures * (failures - 1.0) / pods) * pods / (failures * failures)
}

/// Every way to deal `failures` out to `pods` alike: a sum of `x (x-1)`, its probability, and failures by pod for one of
/// them. Ways of the same sum are one, since nothing else of them counts.
fn dealt(pods: usize, failures: usize) -> Vec<(usize, f64, Vec<usize>)> {
    // For each number of failures and sum: weight over all ways, and an example.
    type Ways = std::collections::BTreeMap<(usize, usize), (f64, Vec<usize>)>;
    let mut ways = Ways::from([((0, 0), (1.0, Vec::new()))]);
    for _ in 0..pods {
        let mut more = Ways::new();
        for ((sum, pairs), (weight, example)) in &ways {
            let mut factorial = 1.0;
            for x in 0..=failures - sum {
                factorial *= x.max(1) as f64;
                let key = (sum + x, pairs + x * x.saturating_sub(1));
                let there =
                    more.entry(key).or_insert_with(|| (0.0, example.iter().copied().chain([x]).collect()));
                there.0 += weight / factorial;
            }
        }
        ways = more;
    }
    let all = (1..=failures).fold(1.0, |product, x| product * x as f64 / pods as f64);
    let whole = ways.into_iter().filter(|((sum, _), _)| *sum == failures);
    whole.map(|((_, pairs), (weight, example))| (pairs, weight * all, example)).collect()
}

#[test]
fn equal_pods_seldom_seem_to_differ() {
    let (mut most_before, mut most) = (0.0_f64, 0.0_f64);
    for pods in [2, 3, 4, 6, 8, 10] {
        for failures in [2, 3, 5, 8, 9, 10, 12, 15, 20, 25, 30] {
            let (mut before, mut now, mut all) = (0.0, 0.0, 0.0);
            for (pairs, probability, example) in dealt(pods, failures) {
                let (k, x) = (pods as f64, failures as f64);
                all += probability;
                before += probability * f64::from(u8::from(squared(k, x, pairs as f64) > one_error(k, x)));
                let spread = pod_spread(example.iter().map(|x| (500.0, *x as f64)), 1.0);
                now += probability * f64::from(u8::from(spread > 0.0));
            }
            assert!((all - 1.0_f64).abs() < 1e-9, "{pods} pods, {failures} failures: {all}");
            println!("{pods:2} pods {failures:2} failures: {:.4} before, {:.4} now", before, now);
            (most_before, most) = (most_before.max(before), most.max(now));
        }
    }
    println!("at most {most_before:.3} before, {most:.4} now");
    assert!(most_before > 0.1, "{most_before}");
    assert!(most < 0.02, "{most}");
}

#[test]
fn three_failures_in_one_pod_are_no_spread() {
    let pods = [(500.0, 3.0), (500.0, 0.0), (500.0, 0.0), (500.0, 0.0)];
    assert!(squared(4.0, 3.0, 6.0) > one_error(4.0, 3.0), "they were one before");
    assert_eq!(pod_spread(pods.into_iter(), 1.0), 0.0);
    assert_eq!(pod_spread(std::iter::once((500.0, 40.0)), 1.0), 0.0);
}

/// Share of 2,000 runs in which pods of these sizes and factors seem to differ.
fn found(sizes: &[f64], sigma: f64, failures: f64) -> f64 {
    let mut random = Random(7);
    let all: f64 = sizes.iter().sum();
    let runs = 2_000;
    let seen = (0..runs).filter(|_| {
        let pods: Vec<(f64, f64)> = sizes
            .iter()
            .map(|n| {
                let normal =
                    (-2.0 * random.unit().ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos();
                let factor = (sigma * normal - sigma * sigma / 2.0).exp();
                (n * 1e4, random.poisson(failures * n / all * factor))
            })
            .collect();
        pod_spread(pods.into_iter(), 1.0) > 0.0
    });
    seen.count() as f64 / f64::from(runs)
}

#[test]
fn pods_of_unequal_size_seldom_seem_to_differ() {
    let (half, wide) = ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5], [8.0, 4.0, 2.0, 1.0, 1.0, 0.5]);
    for failures in [12.0, 25.0, 40.0] {
        for sizes in [&half[..], &wide[..]] {
            let seen = found(sizes, 0.0, failures);
            println!("{sizes:?}, {failures}: {seen}");
            assert!(seen < 0.03, "{sizes:?}, {failures}: {seen}");
        }
    }
}

/// Ten pods, an hour at 50 requests a second: 1,800 failures at 1 %, 180 at 0.1 %.
#[test]
fn pods_that_differ_are_found() {
    for (sigma, failures, least) in [(0.3, 1_800.0, 0.99), (0.5, 1_800.0, 0.99), (0.5, 180.0, 0.8)] {
        let seen = found(&[1.0; 10], sigma, failures);
        println!("sigma {sigma}, {failures}: {seen}");
        assert!(seen >= least, "sigma {sigma}, {failures}: {seen}");
    }
}
