//! Runs of one scenario, side by side.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Plays runs 0 to `runs` on some threads. The results come in the order of the runs, whoever played them.
pub fn each<T: Send>(runs: usize, threads: usize, play: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let run = next.fetch_add(1, Ordering::Relaxed);
            if run >= runs {
                return done;
            }
            done.push((run, play(run)));
        }
    };
    let mut all: Vec<(usize, T)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    all.sort_unstable_by_key(|(run, _)| *run);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_are_in_order() {
        let squares = |threads| super::each(100, threads, |run| run * run);
        assert_eq!(squares(3), squares(1));
        assert_eq!(squares(2)[9], 81);
    }
}
