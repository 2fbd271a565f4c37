//! Sets of fields, as a tree: what is owned, and the way to it.

use std::cmp::Ordering;

use super::element::Element;

/// A set of fields. Owning a field does not mean to own what is below it, nor the other way round.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Set {
    /// Sorted; each is owned, or leads to something that is.
    nodes: Vec<(Element, Node)>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Node {
    pub owned: bool,
    pub below: Set,
}

impl Node {
    fn is_empty(&self) -> bool {
        !self.owned && self.below.is_empty()
    }
}

impl Set {
    pub fn new() -> Set {
        Set::default()
    }

    /// Of these fields' paths.
    pub fn of<const N: usize>(paths: [&[&str]; N]) -> Set {
        let mut set = Set::new();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::field(name)).collect();
            set.insert(&path);
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many fields it has.
    pub fn len(&self) -> usize {
        let count = |(_, node): &(Element, Node)| usize::from(node.owned) + node.below.len();
        self.nodes.iter().map(count).sum()
    }

    /// Adds one field. The whole object is never a member.
    pub fn insert(&mut self, path: &[Element]) {
        let Some((first, rest)) = path.split_first() else {
            return;
        };
        let node = self.node_mut(first.clone());
        if rest.is_empty() {
            node.owned = true;
        } else {
            node.below.insert(rest);
        }
    }

    /// Adds a field (if it is owned) and what is owned below it.
    pub(super) fn attach(&mut self, element: Element, owned: bool, below: Set) {
        if !owned && below.is_empty() {
            return;
        }
        // Walks go in order, so that most go to the end.
        if self.nodes.last().is_none_or(|(last, _)| *last < element) {
            self.nodes.push((element, Node { owned, below }));
            return;
        }
        let node = self.node_mut(element);
        node.owned |= owned;
        node.below = std::mem::take(&mut node.below).union(below);
    }

    fn node_mut(&mut self, element: Element) -> &mut Node {
        let at = match self.nodes.binary_search_by(|(other, _)| other.cmp(&element)) {
            Ok(at) => at,
            Err(at) => {
                self.nodes.insert(at, (element, Node::default()));
                at
            }
        };
        &mut self.nodes[at].1
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Element, &Node)> {
        self.nodes.iter().map(|(element, node)| (element, node))
    }

    fn node(&self, element: &Element) -> Option<&Node> {
        let at = self.nodes.binary_search_by(|(other, _)| other.cmp(element)).ok()?;
        Some(&self.nodes[at].1)
    }

    /// Whether the field at the top is owned.
    pub fn owns(&self, element: &Element) -> bool {
        self.node(element).is_some_and(|node| node.owned)
    }

    pub fn contains(&self, path: &[Element]) -> bool {
        match path {
            [] => false,
            [one] => self.owns(one),
            [first, rest @ ..] => self.node(first).is_some_and(|node| node.below.contains(rest)),
        }
    }

    /// What is owned below a field; `None` if nothing is.
    pub fn below(&self, element: &Element) -> Option<&Set> {
        self.node(element).map(|node| &node.below).filter(|set| !set.is_empty())
    }

    pub fn union(self, other: Set) -> Set {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other } else { self };
        }
        let mut nodes = Vec::with_capacity(self.nodes.len().max(other.nodes.len()));
        let (mut left, mut right) = (self.nodes.into_iter().peekable(), other.nodes.into_iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (Some((one, _)), Some((two, _))) => one.cmp(two),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Set { nodes },
            };
            let one = left.next_if(|_| order.is_le());
            let two = right.next_if(|_| order.is_ge());
            nodes.extend(match (one, two) {
                (Some((element, one)), Some((_, two))) => {
                    let owned = one.owned || two.owned;
                    let below = one.below.union(two.below);
                    Some((element, Node { owned, below }))
                }
                (one, two) => one.or(two),
            });
        }
    }

    pub fn intersection(self, other: &Set) -> Set {
        self.retaining(
            |node, same| match same {
                Some(same) => {
                    node.owned &= same.owned;
                    node.below = std::mem::take(&mut node.below).intersection(&same.below);
                }
                None => *node = Node::default(),
            },
            other,
        )
    }

    /// Without the fields of the other set; what is below them stays.
    pub fn difference(self, other: &Set) -> Set {
        self.retaining(
            |node, same| {
                if let Some(same) = same {
                    node.owned &= !same.owned;
                    node.below = std::mem::take(&mut node.below).difference(&same.below);
                }
            },
            other,
        )
    }

    /// Without the fields of the other set, nor anything below them.
    pub fn without(self, other: &Set) -> Set {
        self.retaining(
            |node, same| match same {
                Some(same) if same.owned => *node = Node::default(),
                Some(same) => node.below = std::mem::take(&mut node.below).without(&same.below),
                None => {}
            },
            other,
        )
    }

    /// Changes each node, seeing the other set's; what becomes empty is left out.
    fn retaining(mut self, change: impl Fn(&mut Node, Option<&Node>), other: &Set) -> Set {
        self.nodes.retain_mut(|(element, node)| {
            change(node, other.node(element));
            !node.is_empty()
        });
        self
    }

    /// All paths, those of one level before those below it.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<Element>, paths: &mut Vec<Vec<Element>>) {
        for (element, _) in self.nodes.iter().filter(|(_, node)| node.owned) {
            paths.push(prefix.iter().chain([element]).cloned().collect());
        }
        for (element, node) in &self.nodes {
            prefix.push(element.clone());
            node.below.collect(prefix, paths);
            prefix.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> Set {
        let mut set = Set::new();
        for path in paths {
            let path: Vec<Element> = path.split('.').map(Element::field).collect();
            set.insert(&path);
        }
        set
    }

    #[test]
    fn a_field_and_what_is_below_it_are_owned_apart() {
        let both = set(&["a", "a.b", "c.d"]);

        assert_eq!(both.clone().difference(&set(&["a"])), set(&["a.b", "c.d"]));
        assert_eq!(both.clone().difference(&set(&["a.b", "c"])), set(&["a", "c.d"]));
        assert_eq!(both.clone().without(&set(&["a"])), set(&["c.d"]));
        assert_eq!(both.clone().without(&set(&["c.d.e"])), both);
        assert_eq!(both.clone().intersection(&set(&["a", "c"])), set(&["a"]));
        assert_eq!(set(&["a"]).union(set(&["a.b", "c.d"])), both);
        assert_eq!(both.len(), 3);
    }

    #[test]
    fn nothing_is_left_of_an_empty_way() {
        assert!(set(&["a.b.c"]).difference(&set(&["a.b.c"])).is_empty());
        assert!(set(&["a.b.c"]).intersection(&set(&["a.b.d"])).is_empty());
        assert_eq!(set(&["a.b.c"]).below(&Element::field("x")), None);
    }

    #[test]
    fn paths_of_a_level_come_first() {
        let shown: Vec<String> = set(&["a.b", "b", "a", "b.c"])
            .paths()
            .iter()
            .map(|path| super::super::element::path_text(path))
            .collect();

        assert_eq!(shown, [".a", ".b", ".a.b", ".b.c"]);
    }
}
