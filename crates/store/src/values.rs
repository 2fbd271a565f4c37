//! The values of a keyspace that lie in files of their own.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use keyspace::{
    Error, Result,
    values::{Place, Values},
};

use crate::value_file::{SUM_BYTES, ValueFile};

/// Values that lie so near to each other are read together: a system call costs more than what lies between.
const GAP_BYTES: u32 = 4 << 10;

/// What is read with one system call, unless one value is longer.
const WINDOW_BYTES: u32 = 1 << 20;

/// As of one moment; files of it stay readable for whoever holds it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    by_number: BTreeMap<u32, Arc<ValueFile>>,
}

impl Files {
    pub fn insert(&mut self, file: ValueFile) {
        self.by_number.insert(file.name.number, Arc::new(file));
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<ValueFile>> {
        self.by_number.values()
    }

    /// Keeps those that `keep` says; the others go from the disk when nobody can read them any more.
    pub fn retain(&mut self, keep: impl Fn(u32) -> bool) {
        self.by_number.retain(|number, file| {
            let kept = keep(*number);
            if !kept {
                file.doom();
            }
            kept
        });
    }

    pub fn bytes(&self) -> u64 {
        self.all().map(|file| file.bytes).sum()
    }

    fn read_window(&self, places: &[(usize, Place)], into: &mut [Bytes]) -> Result<()> {
        let Some((_, first)) = places.first() else {
            return Ok(());
        };
        let file = (self.by_number.get(&first.file))
            .ok_or_else(|| Error::Damaged(format!("a value is in file {}, which is none", first.file)))?;
        let length = places.iter().map(|(_, place)| end(*place)).max().unwrap_or(0) - first.offset;
        let bytes = file.read_at(first.offset, length as usize);
        let bytes =
            bytes.map_err(|error| Error::Unavailable(format!("{} can't be read: {error}", file.path.display())))?;
        let bytes = Bytes::from(bytes);
        for (at, place) in places {
            let start = (place.offset - first.offset) as usize;
            let record = bytes.get(start..start + SUM_BYTES + place.length as usize);
            if !record.is_some_and(|record| file.is_good(*place, record)) {
                let what = format!("{}: the value at byte {}", file.path.display(), place.offset);
                tracing::error!(what, "a value is not what was written");
                return Err(Error::Damaged(what));
            }
            into[*at] = bytes.slice(start + SUM_BYTES..start + SUM_BYTES + place.length as usize);
        }
        Ok(())
    }
}

fn end(place: Place) -> u32 {
    place.offset + SUM_BYTES as u32 + place.length
}

impl Values for Files {
    fn read(&self, places: &[Place]) -> Result<Vec<Bytes>> {
        let mut values = vec![Bytes::new(); places.len()];
        let mut sorted: Vec<(usize, Place)> = places.iter().copied().enumerate().collect();
        sorted.sort_unstable_by_key(|(_, place)| *place);
        let near = |(_, one): &(usize, Place), (_, next): &(usize, Place)| {
            one.file == next.file
                && next.offset <= end(*one) + GAP_BYTES
                && one.offset / WINDOW_BYTES == next.offset / WINDOW_BYTES
        };
        for window in sorted.chunk_by(near) {
            self.read_window(window, &mut values)?;
        }
        Ok(values)
    }

    fn only(&self, places: &mut dyn Iterator<Item = Place>) -> Arc<dyn Values> {
        let named = places.filter_map(|place| self.by_number.get_key_value(&place.file));
        let by_number = named.map(|(number, file)| (*number, file.clone())).collect();
        Arc::new(Files { by_number })
    }
}
