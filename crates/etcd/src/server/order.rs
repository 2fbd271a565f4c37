//! Order and filters of a range, which etcd applies to what was read (`etcdserver/txn/range.go`).

use std::cmp::Ordering;

use keyspace::{KeyValue, Ranged};

use super::status::{self, Status};
use crate::wire::etcdserverpb::{
    RangeRequest,
    range_request::{SortOrder, SortTarget},
};

#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Order {
    sort: Option<(SortTarget, SortOrder)>,
    /// Lowest and highest, 0 for none.
    mod_revision: (i64, i64),
    create_revision: (i64, i64),
    limit: Option<usize>,
    /// Everything has to be read first.
    reads_all: bool,
    keys_only: bool,
}

impl Order {
    pub fn of(request: &RangeRequest) -> Result<Order, Status> {
        let target = SortTarget::try_from(request.sort_target).map_err(|_| status::INVALID_SORT)?;
        let order = SortOrder::try_from(request.sort_order).map_err(|_| status::INVALID_SORT)?;
        let filters = [
            request.min_mod_revision,
            request.max_mod_revision,
            request.min_create_revision,
            request.max_create_revision,
        ];
        let sort = match (target, order) {
            // As it comes.
            (SortTarget::Key, SortOrder::None | SortOrder::Ascend) => None,
            (target, SortOrder::None) => Some((target, SortOrder::Ascend)),
            other => Some(other),
        };
        Ok(Order {
            sort,
            mod_revision: (request.min_mod_revision, request.max_mod_revision),
            create_revision: (request.min_create_revision, request.max_create_revision),
            limit: usize::try_from(request.limit).ok().filter(|limit| *limit > 0),
            reads_all: order != SortOrder::None || filters != [0; 4],
            keys_only: request.keys_only,
        })
    }

    /// How much the keyspace has to give.
    pub fn limit_before(&self) -> Option<usize> {
        // One more, because what is given is ordered before it is cut.
        let more = usize::from(self.sort.is_some());
        self.limit
            .filter(|_| !self.reads_all)
            .map(|limit| limit.saturating_add(more))
    }

    /// The answer depends on them, although it doesn't have them.
    pub fn needs_values(&self) -> bool {
        self.sort.is_some_and(|(target, _)| target == SortTarget::Value)
    }

    /// Neither ordered nor filtered: it can be sent as it is read.
    pub fn is_plain(&self) -> bool {
        self.sort.is_none() && self.mod_revision == (0, 0) && self.create_revision == (0, 0)
    }

    pub fn is_keys_only(&self) -> bool {
        self.keys_only
    }

    pub fn apply(&self, ranged: &mut Ranged) {
        if !self.is_plain() {
            ranged.items.retain(|kv| self.takes(kv));
            if let Some((target, order)) = self.sort {
                ranged.items.sort_by(|one, other| {
                    let ordering = compare(target, one, other);
                    if order == SortOrder::Descend {
                        ordering.reverse()
                    } else {
                        ordering
                    }
                });
            }
            ranged.more = false;
        }
        if let Some(limit) = self.limit
            && ranged.items.len() > limit
        {
            ranged.items.truncate(limit);
            ranged.more = true;
        }
        if self.keys_only {
            ranged.items.iter_mut().for_each(|kv| kv.value.clear());
        }
    }

    fn takes(&self, kv: &KeyValue) -> bool {
        let within = |value: u64, (least, most): (i64, i64)| {
            let value = value as i64;
            (least == 0 || value >= least) && (most == 0 || value <= most)
        };
        within(kv.mod_revision.0, self.mod_revision) && within(kv.create_revision.0, self.create_revision)
    }
}

fn compare(target: SortTarget, one: &KeyValue, other: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => one.key.cmp(&other.key),
        SortTarget::Version => one.version.cmp(&other.version),
        SortTarget::Create => one.create_revision.cmp(&other.create_revision),
        SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
        SortTarget::Value => one.value.cmp(&other.value),
    }
}
