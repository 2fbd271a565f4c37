//! Laws of sets and of applying, on random values.

use proptest::prelude::*;

use super::*;

fn sets() -> impl Strategy<Value = Set> {
    proptest::collection::vec(proptest::collection::vec("[abc]", 1..4), 0..12).prop_map(|paths| {
        let mut set = Set::new();
        for path in paths {
            let path: Vec<Element> = path.iter().map(|name| Element::field(name)).collect();
            set.insert(&path);
        }
        set
    })
}

/// Objects of a kind with a map, a keyed list, a set, wholes and anything.
fn specs() -> impl Strategy<Value = Value> {
    let map = proptest::collection::btree_map("[abc]", "[xy]", 0..3);
    let list = proptest::collection::btree_map("[abc]", proptest::option::of("[xy]"), 0..3);
    let set = proptest::collection::btree_set("[abcd]", 0..4);
    let whole = proptest::collection::btree_map("[ab]", "[xy]", 0..2);
    let any = proptest::collection::btree_map("[ab]", proptest::collection::btree_map("[ab]", 0..3_i64, 0..2), 0..2);
    (map, list, set, whole, any).prop_map(|(map, list, set, whole, any)| {
        let list: Vec<Value> = list
            .into_iter()
            .map(|(name, value)| match value {
                Some(value) => json!({"name": name, "value": value}),
                None => json!({"name": name}),
            })
            .collect();
        let mut spec = json!({"map": map, "list": list, "set": set, "whole": whole, "any": any});
        // What is empty is left out, as decoding does it.
        spec.as_object_mut().unwrap().retain(|_, value| {
            value.as_array().is_none_or(|items| !items.is_empty()) && value.as_object().is_none_or(|it| !it.is_empty())
        });
        spec
    })
}

static RESOURCE: Resource = Resource::built_in("s.io", "v1", "things", "Thing", crate::resource::Scope::Namespaced);

fn things() -> Defined {
    Defined::of([(
        "s.io/v1",
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "list": {
                "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "value": {"type": "string"}}},
            },
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}}}),
    )])
}

fn thing(spec: &Value) -> Value {
    json!({"apiVersion": "s.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec})
}

proptest! {
    #[test]
    fn sets_are_an_algebra(a in sets(), b in sets()) {
        let union = a.clone().union(b.clone());
        let (shared, own, apart) =
            (a.clone().intersection(&b), a.clone().difference(&b), a.clone().without(&b));
        prop_assert_eq!(&union, &b.clone().union(a.clone()));
        prop_assert_eq!(a.clone().union(a.clone()), a.clone());
        prop_assert_eq!(&shared, &b.clone().intersection(&a));
        prop_assert_eq!(union.clone().difference(&a).union(a.clone()), union.clone());
        prop_assert_eq!(own.clone().union(shared.clone()), a.clone());
        prop_assert!(own.clone().intersection(&b).is_empty());
        prop_assert_eq!(union.len() + shared.len(), a.len() + b.len());
        for path in a.paths() {
            prop_assert!(a.contains(&path) && union.contains(&path));
            prop_assert_eq!(shared.contains(&path), b.contains(&path));
            prop_assert_eq!(own.contains(&path), !b.contains(&path));
            let covered = (1..=path.len()).any(|length| b.contains(&path[..length]));
            prop_assert_eq!(apart.contains(&path), !covered);
        }
    }

    #[test]
    fn a_set_reads_back(a in sets()) {
        prop_assert_eq!(fields::read(&fields::write(&a)).unwrap(), a.clone());
        let text: Value = serde_json::from_str(&fields::to_json(&a)).unwrap();
        prop_assert_eq!(text, fields::write(&a));
    }

    #[test]
    fn applying_twice_changes_nothing_more(first in specs(), second in specs()) {
        let things = things();
        let apply = |live: Option<&Value>, manager: &str, spec: &Value| {
            write(&things, &Filter::All, &RESOURCE, manager).applied(live, &thing(spec), Force::Yes).unwrap()
        };
        let live = stored(apply(None, "one", &first));

        let once = apply(Some(&live), "two", &second);
        let twice = apply(Some(&once), "two", &second);

        prop_assert_eq!(once, twice);
    }

    #[test]
    fn what_is_applied_is_there_and_goes_with_its_owner(first in specs(), second in specs()) {
        let things = things();
        let apply = |live: Option<&Value>, manager: &str, spec: &Value| {
            write(&things, &Filter::All, &RESOURCE, manager).applied(live, &thing(spec), Force::Yes).unwrap()
        };
        let live = stored(apply(None, "one", &first));
        let both = apply(Some(&live), "two", &second);

        // All that the last one says is so.
        let again = crate::apply::merge::merge(things.shape("s.io/v1").unwrap(), &both, &thing(&second)).unwrap();
        prop_assert_eq!(&again["spec"], &both["spec"]);
        // And if the other gives up all it had, what the last one says is still so.
        let left = apply(Some(&both), "one", &json!({}));
        let shape = things.shape("s.io/v1").unwrap();
        let wanted = crate::apply::fieldset::fields_of(shape, &thing(&second));
        let has = crate::apply::fieldset::fields_of(shape, &left);
        prop_assert!(wanted.difference(&has).is_empty(), "{:?}", left);
    }

    #[test]
    fn an_update_keeps_every_field_with_one_owner_at_least(first in specs(), second in specs()) {
        let things = things();
        let mut live = thing(&first);
        write(&things, &Filter::All, &RESOURCE, "one").created(&mut live);
        let live = stored(live);
        let mut new = stored(thing(&second));

        write(&things, &Filter::All, &RESOURCE, "two").updated(&live, &mut new);

        let managed = Managed::read(&new["metadata"]["managedFields"]).unwrap();
        let owned = managed
            .iter()
            .fold(Set::new(), |all, (_, owned)| all.union(owned.set.clone()));
        let shape = things.shape("s.io/v1").unwrap();
        let spec = Set::of([&["apiVersion"], &["kind"], &["metadata"]]);
        let there = crate::apply::fieldset::fields_of(shape, &new).without(&spec);
        prop_assert!(there.clone().difference(&owned).is_empty(), "{:?}", new);
        // Nobody owns what is not there, save the containers that are named on the way.
        let named = crate::apply::fieldset::with_named_fields(&there, Some(shape));
        prop_assert!(owned.difference(&named).is_empty(), "{:?}", new);
    }
}
