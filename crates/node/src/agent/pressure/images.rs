//! Images that no container uses: kept for the next Pod until the disk fills up.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Context;
use crate::cri::CriError;
use crate::machine;

/// Upstream's `imageGCHighThresholdPercent` and `imageGCLowThresholdPercent`, and the least age.
const HIGH_PERCENT: i64 = 85;
const LOW_PERCENT: i64 = 80;
const LEAST_AGE: Duration = Duration::from_secs(120);
/// And how often they are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// Since when (of the monotonic clock) each image was found to be unused.
#[derive(Default)]
pub struct Unused {
    since: BTreeMap<String, Duration>,
    looked: Option<Duration>,
}

impl Unused {
    /// Looks at what is used, if it is time again; above the high mark removes what has been unused the longest, down to the low one.
    pub async fn collect(&mut self, context: &Context) -> Result<(), CriError> {
        let now = context.world.clock.monotonic();
        if self
            .looked
            .is_some_and(|looked| now.saturating_sub(looked) < LOOK_EVERY)
        {
            return Ok(());
        }
        let sizes = self.look(context).await?;
        let left = machine::left(&context.root).disk_bytes;
        let total = context.capacity.ephemeral_storage_bytes;
        let Some(mut to_free) = to_free(total, left) else {
            return Ok(());
        };
        for id in self.oldest(context, LEAST_AGE) {
            if to_free <= 0 {
                break;
            }
            tracing::info!(image = id, "an unused image is removed, since the disk fills up");
            context.runtime.remove_image(&id).await?;
            self.since.remove(&id);
            to_free -= sizes.get(&id).copied().unwrap_or(0);
        }
        Ok(())
    }

    /// Removes all that are unused, however lately; returns how many.
    pub async fn drop_all(&mut self, context: &Context) -> Result<usize, CriError> {
        self.look(context).await?;
        let unused = self.oldest(context, Duration::ZERO);
        for id in &unused {
            context.runtime.remove_image(id).await?;
            self.since.remove(id);
        }
        Ok(unused.len())
    }

    /// Brings up to date what is unused; returns the sizes of all.
    async fn look(&mut self, context: &Context) -> Result<BTreeMap<String, i64>, CriError> {
        let used = context.runtime.used_images().await?;
        let images = context.runtime.images().await?;
        let now = context.world.clock.monotonic();
        let mut since = BTreeMap::new();
        for image in images.iter().filter(|image| !image.pinned && !used.contains(&image.id)) {
            let found = self.since.get(&image.id).copied().unwrap_or(now);
            since.insert(image.id.clone(), found);
        }
        self.since = since;
        self.looked = Some(now);
        let size = |image: &k8s_cri::v1::Image| i64::try_from(image.size).unwrap_or(i64::MAX);
        Ok(images.iter().map(|image| (image.id.clone(), size(image))).collect())
    }

    fn oldest(&self, context: &Context, least: Duration) -> Vec<String> {
        let now = context.world.clock.monotonic();
        let mut unused: Vec<(&Duration, &String)> = self
            .since
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= least)
            .map(|(id, since)| (since, id))
            .collect();
        unused.sort();
        unused.into_iter().map(|(_, id)| id.clone()).collect()
    }
}

/// How much has to go; `None` below the high mark.
fn to_free(total: i64, left: i64) -> Option<i64> {
    let used = total.saturating_sub(left);
    let mark = |percent: i64| total / 100 * percent;
    (used > mark(HIGH_PERCENT)).then(|| used - mark(LOW_PERCENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_high_mark_all_down_to_the_low_one_goes() {
        assert_eq!(to_free(1000, 500), None);
        assert_eq!(to_free(1000, 150), None);
        assert_eq!(to_free(1000, 140), Some(60));
    }
}
