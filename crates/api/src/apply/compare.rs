//! What differs between two versions of an object.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    check::Problems,
    element::{Element, equal},
    set::Set,
    shape::{Form, ListKind, Shape},
};

/// No field is in more than one of the sets; if all are empty, nothing differs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    fn attach(&mut self, element: Element, change: Change) {
        let Change { itself, below } = change;
        let parts = [
            (&mut self.removed, Itself::Removed, below.removed),
            (&mut self.modified, Itself::Modified, below.modified),
            (&mut self.added, Itself::Added, below.added),
        ];
        let mut filled = parts
            .into_iter()
            .map(|(set, which, below)| (set, itself == Some(which), below))
            .filter(|(_, owned, below)| *owned || !below.is_empty())
            .peekable();
        // Mostly there is one, so that nothing is copied.
        while let Some((set, owned, below)) = filled.next() {
            if filled.peek().is_none() {
                set.attach(element, owned, below);
                return;
            }
            set.attach(element.clone(), owned, below);
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Itself {
    Removed,
    Modified,
    Added,
}

/// What became of one value, and of what is below it.
#[derive(Default)]
struct Change {
    itself: Option<Itself>,
    below: Comparison,
}

impl Change {
    fn is_none(&self) -> bool {
        self.itself.is_none() && self.below.is_same()
    }
}

/// What `new` adds, removes and modifies. Elements that are there twice are taken together.
pub fn compare(shape: Shape<'_>, old: &Value, new: &Value) -> Result<Comparison, Problems> {
    walk(shape, Some(old), Some(new)).map(|change| change.below)
}

fn walk(shape: Shape<'_>, old: Option<&Value>, new: Option<&Value>) -> Result<Change, Problems> {
    let mut change = Change::default();
    let forms = (old.map(|value| shape.form(value)), new.map(|value| shape.form(value)));
    let leaf = match forms {
        (Some(form), None) | (None, Some(form)) => by_form(shape, form, old, new, &mut change)?,
        (Some(before), Some(after)) => {
            if before != after {
                by_form(shape, before, old, new, &mut change)?;
            }
            by_form(shape, after, old, new, &mut change)?
        }
        (None, None) => return Ok(change),
    };
    if !leaf {
        match (old, new) {
            (None, Some(_)) => change.itself = Some(Itself::Added),
            (Some(_), None) => change.itself = Some(Itself::Removed),
            _ => {}
        }
    }
    Ok(change)
}

/// True if the value was compared as a whole.
fn by_form(
    shape: Shape<'_>,
    form: Form,
    old: Option<&Value>,
    new: Option<&Value>,
    change: &mut Change,
) -> Result<bool, Problems> {
    let whole = |change: &mut Change| {
        change.itself = match (old, new) {
            (None, _) => Some(Itself::Added),
            (_, None) => Some(Itself::Removed),
            (Some(old), Some(new)) if !equal(old, new) => Some(Itself::Modified),
            _ => change.itself,
        };
        Ok(true)
    };
    match form {
        Form::Scalar => whole(change),
        Form::Map => {
            let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let empty = |fields: Option<&Map<String, Value>>| fields.is_none_or(Map::is_empty);
            if shape.is_atomic_map() || (empty(before) && empty(after)) {
                return whole(change);
            }
            maps(shape, before, after, &mut change.below)?;
            Ok(false)
        }
        Form::List => {
            let (before, after) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            let empty = |items: Option<&Vec<Value>>| items.is_none_or(Vec::is_empty);
            if *shape.list() == ListKind::Atomic || (empty(before) && empty(after)) {
                return whole(change);
            }
            lists(
                shape,
                before.map(Vec::as_slice).unwrap_or_default(),
                after.map(Vec::as_slice).unwrap_or_default(),
                &mut change.below,
            )?;
            Ok(false)
        }
    }
}

fn maps(
    shape: Shape<'_>,
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    out: &mut Comparison,
) -> Result<(), Problems> {
    let mut one = |name: &str, before: Option<&Value>, after: Option<&Value>| {
        // Upstream's types have some fields always.
        let before = before.or_else(|| old.and_then(|_| shape.absent(name)));
        let after = after.or_else(|| new.and_then(|_| shape.absent(name)));
        let change =
            walk(shape.child(name), before, after).map_err(|problems| problems.below(&Element::field(name)))?;
        if !change.is_none() {
            out.attach(Element::field(name), change);
        }
        Ok(())
    };
    // Both are sorted: go through them side by side, so that the sets grow at their end.
    let (mut left, mut right) = (
        old.into_iter().flatten().peekable(),
        new.into_iter().flatten().peekable(),
    );
    loop {
        let order = match (left.peek(), right.peek()) {
            (Some((left, _)), Some((right, _))) => left.cmp(right),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => return Ok(()),
        };
        let before = left.next_if(|_| order.is_le());
        let after = right.next_if(|_| order.is_ge());
        let Some((name, _)) = before.or(after) else {
            return Ok(());
        };
        one(name, before.map(|(_, value)| value), after.map(|(_, value)| value))?;
    }
}

fn lists(shape: Shape<'_>, old: &[Value], new: &[Value], out: &mut Comparison) -> Result<(), Problems> {
    let mut both: BTreeMap<Element, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    let step = |at: usize, item: &Value| {
        shape
            .step(item)
            .map_err(|problem| Problems::of(format!("element {at}: {problem}")))
    };
    for (at, item) in old.iter().enumerate() {
        both.entry(step(at, item)?).or_default().0.push(item);
    }
    for (at, item) in new.iter().enumerate() {
        both.entry(step(at, item)?).or_default().1.push(item);
    }
    for (element, (before, after)) in both {
        let mut change = match (before.as_slice(), after.as_slice()) {
            (before @ ([] | [_]), after @ ([] | [_])) => compared(shape, &element, before, after)?,
            (before @ [_, _, ..], after @ [_, _, ..]) => {
                let same =
                    before.len() == after.len() && before.iter().zip(after).all(|(before, after)| equal(before, after));
                Change {
                    itself: (!same).then_some(Itself::Modified),
                    ..Change::default()
                }
            }
            // No longer there twice: what is left is new, below what is gone.
            ([_, _, ..], after) => Change {
                itself: Some(Itself::Removed),
                below: match after {
                    [] => Comparison::default(),
                    after => added_again(compared(shape, &element, &[], after)?, out, &element),
                },
            },
            (before, _) => Change {
                itself: Some(Itself::Added),
                below: match before {
                    [] => Comparison::default(),
                    before => removed_first(compared(shape, &element, before, &[])?, out, &element),
                },
            },
        };
        if !change.is_none() {
            out.attach(element, std::mem::take(&mut change));
        }
    }
    Ok(())
}

fn compared(shape: Shape<'_>, element: &Element, old: &[&Value], new: &[&Value]) -> Result<Change, Problems> {
    walk(shape.element(), old.first().copied(), new.first().copied()).map_err(|problems| problems.below(element))
}

/// One that stays of two is added, while the two are removed.
fn added_again(change: Change, out: &mut Comparison, element: &Element) -> Comparison {
    if change.itself == Some(Itself::Added) {
        out.added.attach(element.clone(), true, Set::new());
    }
    change.below
}

/// One of which there are two now is removed, while the two are added.
fn removed_first(change: Change, out: &mut Comparison, element: &Element) -> Comparison {
    if change.itself == Some(Itself::Removed) {
        out.removed.attach(element.clone(), true, Set::new());
    }
    change.below
}
