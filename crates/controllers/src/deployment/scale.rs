//! How many Pods each ReplicaSet gets: while rolling out, and when only the number changes.

use super::{
    set::Set,
    spec::{Spec, Strategy},
};

/// What the new set should have by now.
pub fn new_set_replicas(spec: &Spec, total: i64, current: i64) -> i64 {
    match spec.strategy {
        Strategy::Recreate => spec.replicas,
        Strategy::Rolling { .. } => {
            let room = spec.most() - total;
            if room <= 0 {
                current
            } else {
                current + room.min(spec.replicas - current)
            }
        }
    }
}

/// Takes from old sets what can be missed: Pods that don't work first, then the oldest sets'. Returns each set that
/// changes, with its new size.
pub fn shrink_old(spec: &Spec, new: &Set, old: &[Set]) -> Vec<(usize, i64)> {
    let total = new.replicas + old.iter().map(|set| set.replicas).sum::<i64>();
    let least = spec.replicas - spec.unavailable();
    // What is not up yet of the new set can't stand in for the old.
    let excess = total - least - (new.replicas - new.available);
    if excess <= 0 {
        return Vec::new();
    }
    let mut sizes: Vec<i64> = old.iter().map(|set| set.replicas).collect();
    let mut by_age: Vec<usize> = (0..old.len()).collect();
    by_age.sort_by(|one, other| old[*one].age().cmp(&old[*other].age()));
    let mut left = excess;
    for &at in &by_age {
        let broken = (sizes[at] - old[at].available).clamp(0, left);
        sizes[at] -= broken;
        left -= broken;
    }
    let available = new.available + old.iter().map(|set| set.available).sum::<i64>();
    let mut spare = (available - least).max(0);
    for &at in &by_age {
        let taken = sizes[at].min(spare);
        sizes[at] -= taken;
        spare -= taken;
    }
    let changed = by_age.into_iter().filter(|&at| sizes[at] != old[at].replicas);
    changed.map(|at| (at, sizes[at])).collect()
}

/// Sizes after a change of the number alone, in the middle of a rollout perhaps: each set in proportion. `sets` holds
/// the sets that have Pods; returns a size for each.
pub fn in_proportion(spec: &Spec, present: i64, sets: &[Set]) -> Vec<i64> {
    let total: i64 = sets.iter().map(|set| set.replicas).sum();
    let allowed = if spec.replicas > 0 { spec.most() } else { 0 };
    let to_add = allowed - total;
    let mut order: Vec<usize> = (0..sets.len()).collect();
    // The largest first; of equals the newest gains first, the oldest loses first.
    order.sort_by(|one, other| {
        let (one, other) = (&sets[*one], &sets[*other]);
        let by_age = if to_add > 0 {
            other.age().cmp(&one.age())
        } else {
            one.age().cmp(&other.age())
        };
        other.replicas.cmp(&one.replicas).then(by_age)
    });
    let mut sizes: Vec<i64> = sets.iter().map(|set| set.replicas).collect();
    let mut added = 0;
    for &at in &order {
        let share = proportion(spec, present, &sets[at], to_add, added);
        sizes[at] += share;
        added += share;
    }
    if let Some(&first) = order.first() {
        sizes[first] = (sizes[first] + to_add - added).max(0);
    }
    sizes
}

fn proportion(spec: &Spec, present: i64, set: &Set, to_add: i64, added: i64) -> i64 {
    if set.replicas == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let allowed = to_add - added;
    let share = share(spec, present, set);
    if to_add > 0 {
        share.min(allowed)
    } else {
        share.max(allowed)
    }
}

/// What the set would gain if it kept its part of the whole.
fn share(spec: &Spec, present: i64, set: &Set) -> i64 {
    if spec.replicas == 0 {
        return -set.replicas;
    }
    let before = match set.most.filter(|most| *most > 0) {
        Some(most) => most,
        // The set was never scaled by a Deployment: what there is now has to do.
        None if present > 0 => present,
        None => return 0,
    };
    let wide = i128::from(set.replicas) * i128::from(spec.most());
    let rounded = (wide * 2 + i128::from(before)).div_euclid(i128::from(before) * 2);
    i64::try_from(rounded).unwrap_or(i64::MAX) - set.replicas
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Object;
    use serde_json::json;

    fn spec(replicas: i64, surge: i64, unavailable: i64) -> Spec {
        Spec::of(&Object::from_tree(json!({"spec": {"replicas": replicas, "strategy": {
            "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}})))
    }

    fn set(name: &str, replicas: i64, available: i64, most: i64) -> Set {
        Set::of(&Object::from_tree(json!({
            "metadata": {"name": name, "annotations": {"deployment.kubernetes.io/max-replicas": most.to_string()}},
            "spec": {"replicas": replicas}, "status": {"replicas": replicas, "availableReplicas": available}})))
    }

    #[test]
    fn the_new_set_grows_as_far_as_the_surge_allows() {
        for (total, current, expected) in [(0, 0, 3), (3, 0, 1), (4, 1, 1), (3, 1, 2), (3, 3, 3)] {
            assert_eq!(
                new_set_replicas(&spec(3, 1, 0), total, current),
                expected,
                "{total} {current}"
            );
        }
    }

    #[test]
    fn old_sets_shrink_only_as_new_pods_become_available() {
        let spec = spec(3, 1, 0);

        assert_eq!(shrink_old(&spec, &set("new", 1, 0, 4), &[set("old", 3, 3, 4)]), []);
        assert_eq!(
            shrink_old(&spec, &set("new", 1, 1, 4), &[set("old", 3, 3, 4)]),
            [(0, 2)]
        );
        assert_eq!(
            shrink_old(&spec, &set("new", 3, 3, 4), &[set("old", 1, 1, 4)]),
            [(0, 0)]
        );
    }

    #[test]
    fn broken_old_pods_go_first_whatever_is_available() {
        let old = [set("a-broken", 2, 0, 4), set("b-works", 2, 2, 4)];

        assert_eq!(shrink_old(&spec(3, 1, 1), &set("new", 0, 0, 4), &old), [(0, 0)]);
        assert_eq!(shrink_old(&spec(2, 1, 1), &set("new", 0, 0, 4), &old), [(0, 0), (1, 1)]);
    }

    #[test]
    fn a_change_of_number_in_the_middle_of_a_rollout_is_shared_out() {
        let sets = [set("new", 5, 5, 10), set("old", 5, 5, 10)];

        assert_eq!(in_proportion(&spec(20, 0, 1), 10, &sets), [10, 10]);
        assert_eq!(in_proportion(&spec(5, 0, 1), 10, &sets).iter().sum::<i64>(), 5);
        assert_eq!(in_proportion(&spec(0, 0, 1), 10, &sets), [0, 0]);
    }
}
