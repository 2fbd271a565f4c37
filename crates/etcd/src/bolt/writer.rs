//! A file of buckets, planned first (sizes are enough for that) and then written page by page.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use keyspace::Error;

use super::{
    BRANCH, BRANCH_ELEMENT_BYTES, FREE_LIST, IS_BUCKET, LEAF, LEAF_ELEMENT_BYTES, MAGIC, META, META_BYTES, PAGE_BYTES,
    PAGE_HEADER_BYTES, VERSION, fnv1a,
};

/// What a bucket has, in order of keys.
pub trait Items: Send {
    fn count(&self) -> usize;

    /// Bytes of the key and of the value of one.
    fn sizes(&self, at: usize) -> (usize, usize);

    fn put_key(&self, at: usize, out: &mut BytesMut);

    /// Fails if it can't be read.
    fn put_value(&self, at: usize, out: &mut BytesMut) -> Result<(), Error>;
}

impl Items for Vec<(Bytes, Bytes)> {
    fn count(&self) -> usize {
        self.len()
    }

    fn sizes(&self, at: usize) -> (usize, usize) {
        (self[at].0.len(), self[at].1.len())
    }

    fn put_key(&self, at: usize, out: &mut BytesMut) {
        out.put_slice(&self[at].0);
    }

    fn put_value(&self, at: usize, out: &mut BytesMut) -> Result<(), Error> {
        out.put_slice(&self[at].1);
        Ok(())
    }
}

pub struct Bucket {
    name: &'static str,
    items: Box<dyn Items>,
}

impl Bucket {
    pub fn new(name: &'static str, items: impl Items + 'static) -> Bucket {
        Bucket {
            name,
            items: Box::new(items),
        }
    }
}

/// One node of a tree: what it covers, and where it lies.
struct Node {
    page: u64,
    pages: u64,
    /// Items of a leaf, or nodes of the level below.
    of: Range<usize>,
    /// The number of its first item.
    first: usize,
}

/// A bucket's tree, leaves first, the root alone at the end.
struct Tree {
    levels: Vec<Vec<Node>>,
}

/// Where everything goes.
pub struct Plan {
    buckets: Vec<Bucket>,
    trees: Vec<Tree>,
    root: u64,
    free_list: u64,
    pages: u64,
}

/// Elements of a page are counted in 16 bits.
const COUNT_MAX: usize = 0xfff0;

impl Plan {
    pub fn of(mut buckets: Vec<Bucket>) -> Plan {
        buckets.sort_by_key(|bucket| bucket.name);
        // Two pages of meta data and that of free pages.
        let mut next = 3;
        let trees = buckets
            .iter()
            .map(|bucket| tree(bucket.items.as_ref(), &mut next))
            .collect();
        let root_bytes: usize = buckets
            .iter()
            .map(|bucket| LEAF_ELEMENT_BYTES + bucket.name.len() + 16)
            .sum();
        let pages = (PAGE_HEADER_BYTES + root_bytes).div_ceil(PAGE_BYTES) as u64;
        Plan {
            buckets,
            trees,
            root: next,
            free_list: 2,
            pages: next + pages,
        }
    }

    /// Of the whole file.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }

    /// The file, in pieces of that size. Nothing comes after an error.
    pub fn chunks(self, bytes: usize) -> impl Iterator<Item = Result<Bytes, Error>> + Send {
        let mut buffer = BytesMut::new();
        let mut step = Step::Front;
        std::iter::from_fn(move || {
            while buffer.len() < bytes {
                match self.write(&mut step, &mut buffer) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        step = Step::End;
                        buffer.clear();
                        return Some(Err(error));
                    }
                }
            }
            let piece = bytes.min(buffer.len());
            (piece > 0).then(|| Ok(buffer.split_to(piece).freeze()))
        })
    }

    /// The next node; false at the end.
    fn write(&self, step: &mut Step, out: &mut BytesMut) -> Result<bool, Error> {
        match *step {
            Step::Front => {
                self.meta(0, out)?;
                self.meta(1, out)?;
                page(self.free_list, FREE_LIST, 0, 1, out, |_| Ok(()))?;
                *step = Step::Node {
                    tree: 0,
                    level: 0,
                    node: 0,
                };
            }
            Step::Node { tree, level, node } => {
                let Some(levels) = self.trees.get(tree).map(|tree| &tree.levels) else {
                    self.root(out)?;
                    *step = Step::End;
                    return Ok(true);
                };
                let Some(nodes) = levels.get(level) else {
                    *step = Step::Node {
                        tree: tree + 1,
                        level: 0,
                        node: 0,
                    };
                    return Ok(true);
                };
                let Some(this) = nodes.get(node) else {
                    *step = Step::Node {
                        tree,
                        level: level + 1,
                        node: 0,
                    };
                    return Ok(true);
                };
                let items = self.buckets[tree].items.as_ref();
                match level.checked_sub(1) {
                    None => leaf(this, items, out)?,
                    Some(below) => branch(this, &levels[below], items, out)?,
                }
                *step = Step::Node {
                    tree,
                    level,
                    node: node + 1,
                };
            }
            Step::End => return Ok(false),
        }
        Ok(true)
    }

    fn meta(&self, number: u64, out: &mut BytesMut) -> Result<(), Error> {
        let mut meta = BytesMut::with_capacity(META_BYTES);
        meta.put_u32_le(MAGIC);
        meta.put_u32_le(VERSION);
        meta.put_u32_le(PAGE_BYTES as u32);
        meta.put_u32_le(0);
        meta.put_u64_le(self.root);
        meta.put_u64_le(0);
        meta.put_u64_le(self.free_list);
        meta.put_u64_le(self.pages);
        // The newer of the two is the one with the greater number.
        meta.put_u64_le(number + 1);
        let sum = fnv1a(&meta);
        meta.put_u64_le(sum);
        page(number, META, 0, 1, out, |out| {
            out.put_slice(&meta);
            Ok(())
        })
    }

    /// The bucket of buckets.
    fn root(&self, out: &mut BytesMut) -> Result<(), Error> {
        let named: Vec<(Bytes, Bytes)> = (self.buckets.iter().zip(&self.trees))
            .map(|(bucket, tree)| {
                let root = tree
                    .levels
                    .last()
                    .and_then(|level| level.first())
                    .map_or(0, |node| node.page);
                let value = [root.to_le_bytes(), 0_u64.to_le_bytes()].concat();
                (Bytes::from_static(bucket.name.as_bytes()), value.into())
            })
            .collect();
        let node = Node {
            page: self.root,
            pages: self.pages - self.root,
            of: 0..named.len(),
            first: 0,
        };
        elements(&node, IS_BUCKET, &named, out)
    }
}

enum Step {
    Front,
    Node { tree: usize, level: usize, node: usize },
    End,
}

fn tree(items: &dyn Items, next: &mut u64) -> Tree {
    let size = |at| {
        let (key, value) = items.sizes(at);
        LEAF_ELEMENT_BYTES + key + value
    };
    let mut levels = vec![level(items.count(), size, |at| at, next)];
    while levels.last().is_some_and(|nodes| nodes.len() > 1) {
        let below = levels.last().map_or(&[][..], |nodes| nodes);
        let size = |at: usize| BRANCH_ELEMENT_BYTES + items.sizes(below[at].first).0;
        let above = level(below.len(), size, |at| below[at].first, next);
        levels.push(above);
    }
    Tree { levels }
}

/// As many to a page as fit; at least two, so that each level has less nodes than the one below it.
fn level(count: usize, size: impl Fn(usize) -> usize, first: impl Fn(usize) -> usize, next: &mut u64) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut start = 0;
    loop {
        let mut bytes = PAGE_HEADER_BYTES;
        let mut end = start;
        while end < count && end - start < COUNT_MAX && (end - start < 2 || bytes + size(end) <= PAGE_BYTES) {
            bytes += size(end);
            end += 1;
        }
        let pages = bytes.div_ceil(PAGE_BYTES) as u64;
        nodes.push(Node {
            page: *next,
            pages,
            of: start..end,
            first: if count == 0 { 0 } else { first(start) },
        });
        *next += pages;
        start = end;
        if start >= count {
            return nodes;
        }
    }
}

fn leaf(node: &Node, items: &dyn Items, out: &mut BytesMut) -> Result<(), Error> {
    elements(node, 0, items, out)
}

fn elements(node: &Node, flags: u32, items: &dyn Items, out: &mut BytesMut) -> Result<(), Error> {
    page(node.page, LEAF, node.of.len(), node.pages, out, |out| {
        let mut position = node.of.len() * LEAF_ELEMENT_BYTES;
        for at in node.of.clone() {
            let (key, value) = items.sizes(at);
            out.put_u32_le(flags);
            out.put_u32_le(position as u32);
            out.put_u32_le(key as u32);
            out.put_u32_le(value as u32);
            position += key + value;
            position -= LEAF_ELEMENT_BYTES;
        }
        for at in node.of.clone() {
            items.put_key(at, out);
            items.put_value(at, out)?;
        }
        Ok(())
    })
}

fn branch(node: &Node, below: &[Node], items: &dyn Items, out: &mut BytesMut) -> Result<(), Error> {
    page(node.page, BRANCH, node.of.len(), node.pages, out, |out| {
        let mut position = node.of.len() * BRANCH_ELEMENT_BYTES;
        for child in &below[node.of.clone()] {
            let (key, _) = items.sizes(child.first);
            out.put_u32_le(position as u32);
            out.put_u32_le(key as u32);
            out.put_u64_le(child.page);
            position += key;
            position -= BRANCH_ELEMENT_BYTES;
        }
        for child in &below[node.of.clone()] {
            items.put_key(child.first, out);
        }
        Ok(())
    })
}

fn page(
    id: u64,
    flags: u16,
    count: usize,
    pages: u64,
    out: &mut BytesMut,
    body: impl FnOnce(&mut BytesMut) -> Result<(), Error>,
) -> Result<(), Error> {
    let end = out.len() + pages as usize * PAGE_BYTES;
    out.put_u64_le(id);
    out.put_u16_le(flags);
    out.put_u16_le(count as u16);
    out.put_u32_le((pages - 1) as u32);
    body(out)?;
    debug_assert!(out.len() <= end);
    out.resize(end, 0);
    Ok(())
}
