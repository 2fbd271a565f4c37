//! Isolation, by attack: from a tenant's administrator against another tenant and the super cluster, each by its number in
//! `docs/tenancy.md`. Refused, and the victim's canary is in no byte that the attacker receives.

mod arena;
mod credentials;
mod objects;
mod pods;
mod requests;
mod ways_in;
