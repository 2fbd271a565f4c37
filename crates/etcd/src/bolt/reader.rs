//! A file that somebody else may have written. Nothing in it is trusted: what is out of bounds is told, not followed.

use std::cell::Cell;

use bytes::Bytes;

use super::{
    BRANCH, BRANCH_ELEMENT_BYTES, IS_BUCKET, LEAF, LEAF_ELEMENT_BYTES, MAGIC, META_BYTES, PAGE_HEADER_BYTES, VERSION,
    fnv1a,
};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no good database file of etcd: {0}")]
pub struct Damaged(&'static str);

/// Deeper than any tree of 2^64 pages with two children each that is not a circle.
const DEPTH_MAX: usize = 64;

pub struct File {
    bytes: Bytes,
    /// Pages that may still be looked at: a tree has each once.
    budget: Cell<usize>,
    page_bytes: usize,
    root: u64,
}

impl File {
    pub fn open(bytes: Bytes) -> Result<File, Damaged> {
        // Either meta page may be torn; the newer good one counts. The second's place depends on the page size.
        let first = meta(&bytes, 0);
        let sizes = first
            .map(|meta| meta.page_bytes)
            .into_iter()
            .chain([4096, 8192, 16384, 65536]);
        let second = sizes.filter_map(|size| meta(&bytes, size)).next();
        let newest = first.into_iter().chain(second).max_by_key(|meta| meta.transaction);
        let Meta { page_bytes, root, .. } = newest.ok_or(Damaged("it has no good meta page"))?;
        Ok(File {
            budget: Cell::new(0),
            bytes,
            page_bytes,
            root,
        })
    }

    pub fn buckets(&self) -> Result<Vec<String>, Damaged> {
        let mut names = Vec::new();
        self.walk(self.page(self.root)?, 0, &mut |flags, key, _| {
            if flags & IS_BUCKET != 0 {
                names.push(String::from_utf8_lossy(key).into_owned());
            }
        })?;
        Ok(names)
    }

    /// Each key and value of a bucket, in order; none if there is no such bucket.
    pub fn each(&self, bucket: &str, mut visit: impl FnMut(&[u8], &[u8])) -> Result<(), Damaged> {
        let mut found = None;
        self.walk(self.page(self.root)?, 0, &mut |flags, key, value| {
            if flags & IS_BUCKET != 0 && key == bucket.as_bytes() {
                found = Some(value.to_vec());
            }
        })?;
        let Some(value) = found else {
            return Ok(());
        };
        let root = u64_at(&value, 0)?;
        let mut visit = |_flags: u32, key: &[u8], value: &[u8]| visit(key, value);
        if root == 0 {
            // A small bucket lies in its own name's value.
            return self.walk(value.get(16..).ok_or(Damaged("a bucket is cut short"))?, 0, &mut visit);
        }
        self.walk(self.page(root)?, 0, &mut visit)
    }

    /// From a page to the end of the file, at most.
    fn page(&self, id: u64) -> Result<&[u8], Damaged> {
        let at = usize::try_from(id).ok().and_then(|id| id.checked_mul(self.page_bytes));
        let page = at
            .and_then(|at| self.bytes.get(at..))
            .ok_or(Damaged("a page is beyond its end"))?;
        let overflow = u32_at(page, 12)? as usize;
        let length = (overflow + 1).saturating_mul(self.page_bytes);
        Ok(&page[..length.min(page.len())])
    }

    fn walk(&self, page: &[u8], depth: usize, visit: &mut impl FnMut(u32, &[u8], &[u8])) -> Result<(), Damaged> {
        if depth == 0 {
            self.budget.set(self.bytes.len() / self.page_bytes + 1);
        }
        let left = self.budget.get().checked_sub(1);
        self.budget.set(left.ok_or(Damaged("its pages go in a circle"))?);
        if depth > DEPTH_MAX {
            return Err(Damaged("its pages go in a circle"));
        }
        let flags = u16_at(page, 8)?;
        let count = usize::from(u16_at(page, 10)?);
        for at in 0..count {
            if flags & LEAF != 0 {
                let element = PAGE_HEADER_BYTES + at * LEAF_ELEMENT_BYTES;
                let start = element + u32_at(page, element + 4)? as usize;
                let middle = start + u32_at(page, element + 8)? as usize;
                let end = middle + u32_at(page, element + 12)? as usize;
                let short = || Damaged("an element is beyond its page");
                let key = page.get(start..middle).ok_or_else(short)?;
                let value = page.get(middle..end).ok_or_else(short)?;
                visit(u32_at(page, element)?, key, value);
            } else if flags & BRANCH != 0 {
                let element = PAGE_HEADER_BYTES + at * BRANCH_ELEMENT_BYTES;
                self.walk(self.page(u64_at(page, element + 8)?)?, depth + 1, visit)?;
            } else {
                return Err(Damaged("a page is of an unknown kind"));
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Meta {
    page_bytes: usize,
    root: u64,
    transaction: u64,
}

fn meta(bytes: &[u8], at: usize) -> Option<Meta> {
    let meta = bytes.get(at + PAGE_HEADER_BYTES..)?.get(..META_BYTES)?;
    let good = u32_at(meta, 0) == Ok(MAGIC)
        && u32_at(meta, 4) == Ok(VERSION)
        && u64_at(meta, META_BYTES - 8) == Ok(fnv1a(&meta[..META_BYTES - 8]));
    let page_bytes = u32_at(meta, 8).ok()? as usize;
    (good && page_bytes >= 512).then_some(Meta {
        page_bytes,
        root: u64_at(meta, 16).ok()?,
        transaction: u64_at(meta, 48).ok()?,
    })
}

const SHORT: Damaged = Damaged("it is cut short");

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Damaged> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(SHORT)?;
    Ok(u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Damaged> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(SHORT)?;
    Ok(u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Damaged> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(SHORT)?;
    Ok(u64::from_le_bytes(*bytes))
}
