//! Loops take turns over planes, so that one plane's flood delays only itself.

use std::hash::Hash;

use client::{ObjectKey, PlaneKey, QueueOptions, WorkQueue};
use world::World;

/// Keys of one plane in work at once: fewer than any loop has workers, so that a plane that does not answer never has
/// them all.
const WORKERS_OF_A_PLANE: usize = 3;

pub type Queue<K> = WorkQueue<K, PlaneKey>;

pub fn by_plane(world: &World) -> Queue<ObjectKey> {
    by_plane_of(world, |key: &ObjectKey| key.plane.clone())
}

pub fn by_plane_of<K: Hash + Eq + Clone + 'static>(world: &World, plane: fn(&K) -> PlaneKey) -> Queue<K> {
    let options = QueueOptions {
        lane_workers: Some(WORKERS_OF_A_PLANE),
        ..QueueOptions::default()
    };
    WorkQueue::fair(world, options, plane, |_| 1)
}
