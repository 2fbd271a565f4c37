//! Closed loops: so many lanes, each with one request under way at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};

/// What a load came to.
pub struct Figures {
    pub count: u64,
    pub took: Duration,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl Figures {
    pub fn new(took: Duration, mut latencies: Vec<Duration>) -> Figures {
        latencies.sort_unstable();
        Figures {
            count: latencies.len() as u64,
            took,
            latencies,
        }
    }

    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.took.as_secs_f64()
    }

    /// In milliseconds, by the nearest rank.
    pub fn percentile(&self, percent: f64) -> f64 {
        let rank = (percent / 100.0 * self.latencies.len() as f64).ceil() as usize;
        let at = rank.clamp(1, self.latencies.len().max(1)) - 1;
        self.latencies
            .get(at)
            .map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// When a load ends.
#[derive(Clone, Copy)]
pub enum Until {
    Count(u64),
    Time(Duration),
}

/// Runs `work` in `lanes` tasks; each call gets its lane and a number that no other call gets.
pub async fn closed_loop<F, W>(lanes: usize, until: Until, work: F) -> anyhow::Result<Figures>
where
    F: Fn(usize, u64) -> W + Clone + Send + Sync + 'static,
    W: Future<Output = anyhow::Result<()>> + Send,
{
    let begin = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let tasks: FuturesUnordered<_> = (0..lanes)
        .map(|lane| {
            let (work, next) = (work.clone(), next.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let is_over = match until {
                        Until::Count(count) => number >= count,
                        Until::Time(time) => begin.elapsed() >= time,
                    };
                    if is_over {
                        return anyhow::Ok(latencies);
                    }
                    let asked = Instant::now();
                    work(lane, number).await?;
                    latencies.push(asked.elapsed());
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for lane in tasks.collect::<Vec<_>>().await {
        all.extend(lane??);
    }
    Ok(Figures::new(begin.elapsed(), all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let latencies = (1..=100).rev().map(Duration::from_millis).collect();
        let figures = Figures::new(Duration::from_secs(2), latencies);

        assert_eq!(figures.percentile(50.0), 50.0);
        assert_eq!(figures.percentile(99.0), 99.0);
        assert_eq!(figures.percentile(100.0), 100.0);
        assert_eq!(figures.per_second(), 50.0);
    }

    #[tokio::test]
    async fn a_loop_does_each_number_once() {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let work = {
            let seen = seen.clone();
            move |_, number| {
                let seen = seen.clone();
                async move {
                    seen.lock().unwrap().push(number);
                    anyhow::Ok(())
                }
            }
        };

        let figures = closed_loop(3, Until::Count(10), work).await.unwrap();

        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(figures.count, 10);
    }
}
