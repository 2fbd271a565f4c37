//! The judge of histories, judged: it takes what a good store has told, and refuses each way of being wrong.

use testkit::history::{
    Log, Operation, Outcome, PastRead,
    linear::{self, Violation},
    model::{Answer, Done, Event, Keys, Op, Request, State},
    past_reads,
    sample::{self, Sample},
    watch::{self, Check, Response, Watch, Watched},
    without_undone,
};

const SEEDS: u64 = 30;
const CLIENTS: usize = 6;
const REQUESTS: usize = 150;

fn judge(sample: &Sample) -> Result<State, Violation> {
    linear::check(&without_undone(&sample.operations, &sample.log), Some(&sample.log))
}

fn told(operation: &mut Operation) -> Option<&mut Answer> {
    match &mut operation.outcome {
        Outcome::Told { answer, .. } => Some(answer),
        Outcome::Unknown => None,
    }
}

/// Changes the first answer that `change` finds something to change in.
fn spoil(seed: u64, change: impl Fn(&mut Answer) -> bool) -> Sample {
    let mut sample = sample::good(seed, CLIENTS, REQUESTS);
    let changed = sample.operations.iter_mut().filter_map(told).any(change);
    assert!(changed, "seed {seed} has nothing of the kind");
    sample
}

#[track_caller]
fn refused(sample: &Sample) {
    match judge(sample) {
        Err(Violation::NotLinearizable { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_good_store_tells_is_believed() {
    for seed in 0..SEEDS {
        let sample = sample::good(seed, CLIENTS, REQUESTS);
        sample.log.is_whole().unwrap();
        assert!(
            sample
                .operations
                .iter()
                .any(|operation| operation.outcome == Outcome::Unknown),
            "some outcomes are unknown"
        );

        let judged = judge(&sample);

        assert_eq!(judged.map(|state| state.revision), Ok(sample.log.last()), "seed {seed}");
    }
}

#[test]
fn without_a_log_answers_alone_are_judged() {
    for seed in 0..SEEDS {
        let sample = sample::good(seed, 3, 60);
        linear::check(&sample.operations, None).unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
    }
}

#[test]
fn a_value_that_nobody_wrote_is_refused() {
    for seed in 0..SEEDS {
        refused(&spoil(seed, |answer| match answer {
            Answer::Txn { done, .. } => done.iter_mut().any(|done| match done {
                Done::Range(found) => found.first_mut().is_some_and(|kv| {
                    kv.value.push('x');
                    true
                }),
                _ => false,
            }),
            _ => false,
        }));
    }
}

#[test]
fn a_read_of_what_was_overwritten_before_it_was_asked_is_refused() {
    let put = |value: &str| {
        Request::of(Op::Put {
            key: "k".into(),
            value: value.into(),
            lease: 0,
        })
    };
    let (one, answer_one, _) = State::default().after(&put("1"));
    let (two, answer_two, _) = one.after(&put("2"));
    let read = Request::of(Op::Range(Keys::one("k")));
    let at = |called, at, request: &Request, answer: &Answer| Operation {
        called,
        request: request.clone(),
        outcome: Outcome::Told {
            at,
            answer: answer.clone(),
        },
    };
    let (_, stale, _) = one.after(&read);
    let (_, fresh, _) = two.after(&read);
    let history = |called, answer: &Answer| {
        vec![
            at(0, 10, &put("1"), &answer_one),
            at(20, 30, &put("2"), &answer_two),
            at(called, 50, &read, answer),
        ]
    };

    assert!(linear::check(&history(40, &fresh), None).is_ok());
    assert!(linear::check(&history(25, &stale), None).is_ok(), "they overlap");
    linear::check(&history(40, &stale), None).unwrap_err();
}

#[test]
fn an_acknowledged_write_that_is_not_in_the_log_is_refused() {
    for seed in 0..SEEDS {
        let mut sample = sample::good(seed, CLIENTS, REQUESTS);
        let last = sample.log.last();
        sample.log.revisions.remove(&last);
        // One whose answer was lost may be lost.
        let acknowledged = sample.operations.iter().any(|operation| {
            matches!(&operation.outcome, Outcome::Told { answer: Answer::Txn { revision, .. }, .. } if *revision == last)
        });
        if acknowledged {
            refused(&sample);
        }
    }
}

#[test]
fn a_compare_that_held_and_should_not_have_is_refused() {
    for seed in 0..SEEDS {
        refused(&spoil(seed, |answer| match answer {
            Answer::Txn { succeeded, done, .. } if !*succeeded => {
                *succeeded = true;
                done.clear();
                done.push(Done::Put);
                true
            }
            _ => false,
        }));
    }
}

#[test]
fn a_revision_that_is_told_twice_is_refused() {
    for seed in 0..SEEDS {
        refused(&spoil(seed, |answer| match answer {
            Answer::Txn { revision, done, .. } if done.contains(&Done::Put) => {
                *revision -= 1;
                true
            }
            _ => false,
        }));
    }
}

#[test]
fn a_lease_that_was_there_and_is_denied_is_refused() {
    let put = Request::of(Op::Put {
        key: "k".into(),
        value: "1".into(),
        lease: 5,
    });
    let history = |of_put: Answer, of_revoke: Answer| {
        let told = [
            (Request::Grant(5), Answer::Granted),
            (put.clone(), of_put),
            (Request::Revoke(5), of_revoke),
        ];
        let one_after_another = (0..)
            .step_by(10)
            .zip(told)
            .map(|(called, (request, answer))| Operation {
                called,
                request,
                outcome: Outcome::Told { at: called + 5, answer },
            });
        one_after_another.collect::<Vec<_>>()
    };
    let done = Answer::Txn {
        revision: 2,
        succeeded: true,
        done: vec![Done::Put],
    };

    let ended = linear::check(&history(done.clone(), Answer::Revoked), None).unwrap();
    assert_eq!((ended.revision, ended.keys.len()), (3, 0), "its key went with it");
    linear::check(&history(done, Answer::LeaseNotFound), None).unwrap_err();
    linear::check(&history(Answer::LeaseNotFound, Answer::Revoked), None).unwrap_err();
}

#[test]
fn a_write_that_was_done_twice_is_refused() {
    for seed in 0..SEEDS {
        let mut sample = sample::good(seed, CLIENTS, REQUESTS);
        // As one that is repeated after its answer was lost.
        let revisions = &mut sample.log.revisions;
        let last = *revisions.last_key_value().unwrap().0;
        let events = revisions[&last].clone();
        revisions.insert(last + 1, events);
        refused(&sample);
    }
}

#[test]
fn a_deletion_that_took_too_much_is_refused() {
    for seed in 0..SEEDS {
        refused(&spoil(seed, |answer| match answer {
            Answer::Txn { done, .. } => done.iter_mut().any(|done| match done {
                Done::Delete(count) => {
                    *count += 1;
                    true
                }
                _ => false,
            }),
            _ => false,
        }));
    }
}

#[test]
fn reads_of_the_past_are_held_to_what_was() {
    let log = sample::good(1, CLIENTS, REQUESTS).log;
    let states = log.states();
    let keys = Keys::prefix("k/");
    let read = |revision: i64| PastRead {
        found: State::found(&states[&revision], &keys),
        keys: keys.clone(),
        revision,
        current: log.last(),
    };

    past_reads(&[read(1), read(5), read(log.last())], &log).unwrap();
    let of_another = PastRead { revision: 6, ..read(5) };
    past_reads(&[of_another], &log).unwrap_err();
    let ahead = PastRead { current: 4, ..read(5) };
    past_reads(&[ahead], &log).unwrap_err();
}

fn everything() -> Watch {
    Watch {
        keys: Keys::prefix("k/"),
        from: 2,
        previous: true,
        puts: true,
        deletes: true,
    }
}

fn told_of(watched: &mut Watched, at: usize) -> &mut Vec<watch::Told> {
    let mut events = watched.responses.iter_mut().filter_map(|response| match response {
        Response::Events(events) => Some(events),
        Response::Progress(_) => None,
    });
    events.nth(at).expect("so many responses")
}

/// The checks that fail once `change` has been at a good watch.
fn broken(change: impl FnOnce(&mut Watched, &Log)) -> Vec<Check> {
    let log = sample::good(3, CLIENTS, REQUESTS).log;
    let mut watched = sample::watched(&log, everything());
    change(&mut watched, &log);
    let mut broken: Vec<Check> = watch::check(&watched, &log)
        .into_iter()
        .map(|broken| broken.check)
        .collect();
    broken.sort();
    broken.dedup();
    broken
}

#[test]
fn a_good_watch_passes_all_nine() {
    for seed in 0..SEEDS {
        let log = sample::good(seed, CLIENTS, REQUESTS).log;
        for watch in [
            everything(),
            Watch {
                from: 30,
                previous: false,
                ..everything()
            },
            Watch {
                keys: Keys::one("k/1"),
                deletes: false,
                ..everything()
            },
            Watch {
                puts: false,
                ..everything()
            },
        ] {
            assert_eq!(watch::check(&sample::watched(&log, watch), &log), []);
        }
    }
}

#[test]
fn each_of_the_nine_notices_its_own() {
    let early = broken(|watched, _| watched.responses.insert(3, Response::Progress(20)));
    assert!(early.contains(&Check::Bookmarkable), "{early:?}");

    let swapped = broken(|watched, _| {
        let first = std::mem::take(told_of(watched, 2));
        let second = std::mem::replace(told_of(watched, 3), first);
        *told_of(watched, 2) = second;
    });
    assert!(swapped.contains(&Check::Ordered), "{swapped:?}");

    let twice = broken(|watched, _| {
        let again = told_of(watched, 2).clone();
        told_of(watched, 3).extend(again);
    });
    assert!(twice.contains(&Check::Unique), "{twice:?}");

    let split = broken(|watched, _| {
        let many = watched
            .responses
            .iter()
            .position(|response| matches!(response, Response::Events(events) if events.len() > 1));
        let at = many.expect("a revision with two events");
        let Response::Events(events) = &mut watched.responses[at] else {
            unreachable!()
        };
        let rest = events.split_off(1);
        watched.responses.insert(at + 1, Response::Events(rest));
    });
    assert_eq!(split, [Check::Atomic]);

    let missing = broken(|watched, _| told_of(watched, 4).clear());
    assert_eq!(missing, [Check::Reliable]);

    let gap = broken(|watched, _| {
        watched.responses.remove(0);
    });
    assert_eq!(gap, [Check::Resumable]);
    let quiet = broken(|watched, _| {
        watched
            .responses
            .retain(|response| matches!(response, Response::Progress(_)));
    });
    assert_eq!(quiet, [Check::Resumable], "progress, and none of the events before it");

    let wrong = broken(|watched, _| {
        for at in 0..100 {
            if let Some(previous) = &mut told_of(watched, at)[0].previous {
                previous.value.push('x');
                return;
            }
        }
    });
    assert_eq!(wrong, [Check::PreviousValue]);
    let none = broken(|watched, _| {
        for at in 0..100 {
            if told_of(watched, at)[0].previous.take().is_some() {
                return;
            }
        }
    });
    assert_eq!(none, [Check::PreviousValue]);

    let created = broken(|watched, _| {
        for at in 0..100 {
            if let Event::Put(kv) = &mut told_of(watched, at)[0].event
                && kv.create_revision < kv.mod_revision
            {
                kv.create_revision = kv.mod_revision;
                return;
            }
        }
    });
    assert_eq!(created, [Check::Reliable, Check::IsCreate]);

    let unasked = broken(|watched, _| watched.watch.puts = false);
    assert!(unasked.contains(&Check::Filter), "{unasked:?}");
    let invented = broken(|watched, _| {
        let event = &mut told_of(watched, 5)[0].event;
        if let Event::Put(kv) = event {
            kv.value.push('x');
        } else {
            *event = Event::Delete { key: "k/9".into() };
        }
    });
    assert!(invented.contains(&Check::Reliable), "{invented:?}");
}

#[test]
fn what_compaction_took_may_be_missing_before_an_event() {
    let compacted = broken(|watched, log| {
        watched.compacted = log.last();
        for at in 0..50 {
            told_of(watched, at).iter_mut().for_each(|told| told.previous = None);
        }
    });

    assert_eq!(compacted, []);
}
