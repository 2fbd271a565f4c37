//! The Pods of an owner: those it controls, with orphans that match adopted and strays released.

use api::{Object, Resource, resource::PODS, selector::LabelSelector};
use client::{Client, Error, Informer, ObjectKey};

use crate::ownership::{self, BY_CONTROLLER, ORPHANS};

/// What an owner of `resource` has of `informer`'s kind, once claims are settled.
pub async fn claimed(
    client: &Client,
    key: &ObjectKey,
    (owner, resource): (&Object, &Resource),
    selector: &LabelSelector,
    of: (&Informer, &Resource),
) -> Result<Vec<Object>, Error> {
    claimed_of(client, key, (owner, resource), selector, of, |_| true).await
}

/// As [`claimed`], of what `may_be` holds for.
pub async fn claimed_of(
    client: &Client,
    key: &ObjectKey,
    (owner, resource): (&Object, &Resource),
    selector: &LabelSelector,
    (informer, kind): (&Informer, &Resource),
    may_be: impl Fn(&Object) -> bool,
) -> Result<Vec<Object>, Error> {
    let owned = informer.by_index(BY_CONTROLLER, &ownership::of_uid(&key.plane, owner.uid()));
    let orphans = informer.by_index(ORPHANS, &ownership::of_namespace(&key.plane, &key.namespace));
    let candidates = owned
        .into_iter()
        .chain(orphans)
        .map(|(_, object)| object)
        .filter(may_be);
    let claims = ownership::claim(owner, selector, candidates);
    ownership::settle(client, owner, resource, kind, claims).await
}

pub async fn pods(
    client: &Client,
    key: &ObjectKey,
    owner: (&Object, &Resource),
    selector: &LabelSelector,
    pods: &Informer,
) -> Result<Vec<Object>, Error> {
    claimed(client, key, owner, selector, (pods, &PODS)).await
}

/// The owners of one kind that a Pod may matter to: its controller, or all whose selector matches an orphan.
pub fn owners_of(owners: &Informer, key: &ObjectKey, object: &Object) -> Vec<ObjectKey> {
    if ownership::controller_of(object).is_some() {
        let kind = &owners.resource().kind;
        return ownership::owner_key(key, object, kind).into_iter().collect();
    }
    let matching = owners
        .list(&key.plane, key.namespace())
        .into_iter()
        .filter(|owner| selector(owner).is_some_and(|selector| selector.matches_object(object)));
    matching.map(|owner| key.sibling(owner.name())).collect()
}

/// `spec.selector`, unless it would select everything: upstream refuses that on writing.
pub fn selector(owner: &Object) -> Option<LabelSelector> {
    let selector = LabelSelector::from_json(&owner.tree()["spec"]["selector"]).ok()?;
    (!selector.is_everything()).then_some(selector)
}
