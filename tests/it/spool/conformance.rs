//! What every store promises. Each test runs on each store.

use std::sync::Arc;
use std::time::Duration;

use mailbell::alert::ExternalId;
use mailbell::clock::{Clock, Time};
use mailbell::config::Retention;
use mailbell::deliver::schedule::Progress;
use mailbell::limits::PLACED_AT_ONCE;
use mailbell::smtp::{ReceivedMail, Rest, RestId};
use mailbell::spool::lifecycle::TicketState;
use mailbell::spool::retention;
use mailbell::spool::{
    Ask, Budget, DeadLetters, Decided, Ending, Filter, Reading, Settlement, StageFilter, Step,
};
use serde_json::json;

use super::bench::{Bench, PLENTY, Store, at, names};
use crate::scripted::{decision, event, mail, mail_with, new, poison};

pub async fn what_was_accepted_is_there_after_a_restart_stage_by_stage(store: Store) {
    let bench = Bench::new(store).await;
    let id = bench.accept(&new("T-1"), 0).await;
    let bench = bench.restart().await;
    assert_eq!(bench.spool.undecided(10).await.unwrap().mails.len(), 1);
    bench.decide(1).await;
    let bench = bench.restart().await;
    assert_eq!(bench.spool.teams().await.unwrap(), ["ops"]);
    assert_eq!(names(&bench.lease(2).await), ["new T-1"]);
    assert!(bench.lease(3).await.is_empty(), "leased twice");
    // The gateway died while it was being sent: it is sent again.
    let bench = bench.restart().await;
    let leased = bench.lease(4).await;
    assert_eq!(names(&leased), ["new T-1"]);
    bench.deliver(&leased[0], 5).await;
    let bench = bench.restart().await;
    assert!(bench.lease(6).await.is_empty());
    let raw = bench.spool.raw(id).await.unwrap().unwrap();
    assert_eq!(raw, mail("ops", &new("T-1")).data);
    bench.assert_balanced().await;
}

/// Keeps `pieces` of a mail that is being received.
async fn kept(bench: &Bench, pieces: &[&[u8]]) -> Rest {
    let mut rest = Rest {
        id: RestId(uuid::Uuid::now_v7()),
        bytes: 0,
    };
    for piece in pieces {
        bench.spool.keep(rest, piece.to_vec()).await.unwrap();
        rest.bytes += piece.len() as u64;
    }
    rest
}

pub async fn a_large_mail_comes_and_goes_in_pieces(store: Store) {
    let bench = Bench::new(store).await;
    let rest = kept(&bench, &[b"one", b"two", b"3"]).await;
    let mail = ReceivedMail {
        rest: Some(rest),
        ..mail("ops", &new("T-1"))
    };
    let data = mail.data.clone();
    let id = bench.spool.accept(mail, at(0)).await.unwrap();
    // Too late: it has become a mail.
    bench.spool.discard(rest.id).await.unwrap();
    let bench = bench.restart().await;
    let undecided = bench.spool.undecided(10).await.unwrap().mails;
    assert_eq!(undecided[0].raw, data);
    assert_eq!(undecided[0].bytes, data.len() as u64 + 7);
    let whole = [&data[..], b"onetwo3"].concat();
    assert_eq!(bench.spool.raw(id).await.unwrap(), Some(whole.clone()));
    let mut at_byte = 0;
    for want in [&data[..], b"one", b"two", b"3"] {
        let piece = bench.spool.piece(id, at_byte).await.unwrap().unwrap();
        assert_eq!(
            (piece.bytes.as_slice(), piece.mail_bytes),
            (want, whole.len() as u64)
        );
        at_byte += want.len() as u64;
    }
    assert_eq!(bench.spool.piece(id, at_byte).await.unwrap(), None);
    assert_eq!(bench.spool.piece(id, 1).await.unwrap(), None);
    let shown = bench.spool.show(id).await.unwrap().unwrap();
    assert_eq!(shown.bytes, whole.len() as u64);
    bench.decide(1).await;
    let leased = bench.lease(2).await;
    bench.deliver(&leased[0], 3).await;
    bench.assert_balanced().await;
    assert_eq!(bench.home.pieces().await, 3);
    let pruned = bench.spool.prune(at(10), None, 10).await.unwrap();
    assert_eq!((pruned.removed, bench.home.pieces().await), (1, 0));
    bench.assert_balanced().await;
}

pub async fn nothing_stays_of_a_mail_that_was_not_received_whole(store: Store) {
    let bench = Bench::new(store).await;
    let given_up = kept(&bench, &[b"one", b"two"]).await;
    let other = kept(&bench, &[b"three"]).await;
    bench.spool.discard(given_up.id).await.unwrap();
    bench.spool.discard(given_up.id).await.unwrap();
    assert_eq!(bench.home.pieces().await, 1);
    // Those that live keep what they are receiving.
    bench.spool.prune(at(10), None, 10).await.unwrap();
    assert_eq!(bench.home.pieces().await, 1);
    let bench = bench.restart().await;
    bench.spool.prune(at(10), None, 10).await.unwrap();
    assert_eq!(bench.home.pieces().await, 0);
    bench.spool.discard(other.id).await.unwrap();
    bench.assert_balanced().await;
}

pub async fn an_audit_finds_a_mail_that_lacks_a_piece(store: Store) {
    let bench = Bench::new(store).await;
    let rest = kept(&bench, &[b"one"]).await;
    let mail = ReceivedMail {
        rest: Some(Rest { bytes: 10, ..rest }),
        ..mail("ops", &new("T-1"))
    };
    let id = bench.spool.accept(mail, at(0)).await.unwrap();
    let audit = bench.spool.audit().await.unwrap();
    assert_eq!(audit.problems, ["1 mails without all of their bytes"]);
    assert_eq!(bench.spool.raw(id).await.unwrap(), None);
}

pub async fn a_settlement_that_is_repeated_changes_nothing(store: Store) {
    let bench = Bench::new(store).await;
    bench.bring(&new("T-1"), 0).await;
    let leased = bench.lease(1).await;
    bench.deliver(&leased[0], 2).await;
    let dead = Step::End(Ending::DeadLetter, "late".to_owned());
    assert!(bench.settle(&leased[0], dead, 3).await.is_empty());
    assert_eq!(bench.outcomes().await, ["alerted: 201"]);
    bench.assert_balanced().await;
}

/// The answer to a settlement was lost, and the delivery has been leased again before it is repeated.
pub async fn a_late_settlement_does_not_touch_the_next_lease(store: Store) {
    let bench = Bench::new(store).await;
    bench.bring(&new("T-1"), 0).await;
    let first = bench.lease(1).await;
    let wait = Step::Wait {
        until: at(2),
        maybe_paged: true,
    };
    bench.settle(&first[0], wait.clone(), 2).await;
    let second = bench.lease(3).await;
    bench.settle(&first[0], wait, 4).await;
    assert!(bench.lease(5).await.is_empty(), "it is being sent");
    bench.deliver(&second[0], 6).await;
    assert_eq!(bench.outcomes().await, ["alerted: 201"]);
    bench.assert_balanced().await;
}

pub async fn one_delivery_of_a_ticket_at_a_time_and_others_pass_by(store: Store) {
    let bench = Bench::new(store).await;
    for (name, id) in [
        ("new", "A"),
        ("acknowledged", "A"),
        ("new", "B"),
        ("resolved", "B"),
        ("acknowledged", "C"),
    ] {
        // B's new has been tried, so that its close does not cancel it.
        bench.bring(&event(name, id), 0).await;
        if (name, id) == ("new", "B") {
            let leased = bench.lease(0).await;
            assert_eq!(names(&leased), ["new A", "new B"]);
            for one in &leased {
                let step = Step::Wait {
                    until: at(10),
                    maybe_paged: true,
                };
                bench.settle(one, step, 0).await;
            }
        }
    }
    assert_eq!(names(&bench.lease(5).await), ["acknowledged C"]);
    let leased = bench.lease(10).await;
    assert_eq!(names(&leased), ["new A", "new B"]);
    assert!(bench.lease(11).await.is_empty());
    bench.deliver(&leased[1], 12).await;
    assert_eq!(names(&bench.lease(13).await), ["resolved B"]);
    bench.deliver(&leased[0], 14).await;
    assert_eq!(names(&bench.lease(15).await), ["acknowledged A"]);
    bench.assert_balanced().await;
}

pub async fn the_most_urgent_leave_first(store: Store) {
    let bench = Bench::new(store).await;
    for (index, script) in [
        event("resolved", "R"),
        event("acknowledged", "A"),
        json!({ "event": "new", "id": "low", "priority": "5 sehr niedrig" }),
        new("normal"),
        json!({ "event": "new", "id": "high", "priority": "Critical" }),
    ]
    .iter()
    .enumerate()
    {
        bench.bring(script, i64::try_from(index).unwrap()).await;
    }
    let first = bench.lease_for(&[("ops", 2)], PLENTY, 100).await;
    assert_eq!(names(&first.leased), ["new high", "new normal"]);
    let budget = Budget { new: 3, other: 1 };
    let rest = bench.lease_for(&[("ops", 9)], budget, 100).await;
    assert_eq!(names(&rest.leased), ["new low", "acknowledged A"]);
    assert_eq!(names(&bench.lease(100).await), ["resolved R"]);
}

pub async fn no_team_is_held_up_by_another(store: Store) {
    let bench = Bench::new(store).await;
    for index in 0..50 {
        bench.bring(&new(&format!("T-{index}")), 0).await;
    }
    bench
        .spool
        .accept(mail("night", &event("resolved", "N")), at(1))
        .await
        .unwrap();
    bench.decide(1).await;
    let lease = bench.lease_for(&[("night", 5)], PLENTY, 2).await;
    assert_eq!(names(&lease.leased), ["resolved N"]);
    assert_eq!(bench.spool.teams().await.unwrap(), ["ops"]);
    let lease = bench
        .lease_for(&[("ops", 7), ("night", 5)], PLENTY, 2)
        .await;
    assert_eq!(lease.leased.len(), 7);
}

pub async fn a_lease_says_when_the_next_is_due(store: Store) {
    let bench = Bench::new(store).await;
    bench
        .bring(
            &json!({ "event": "new", "id": "held", "hold_ms": 60_000 }),
            0,
        )
        .await;
    let lease = bench.lease_for(&[("ops", 1)], PLENTY, 10).await;
    assert!(lease.leased.is_empty());
    assert_eq!(lease.due, Some(at(60_000)));
    assert_eq!(names(&bench.lease(60_000).await), ["new held"]);
}

pub async fn lifecycle_of_a_ticket(store: Store) {
    let bench = Bench::new(store).await;
    let script = [
        "new",
        "new",
        "acknowledged",
        "acknowledged",
        "new",
        "update",
        "resolved",
        "resolved",
        "acknowledged",
        "new",
    ];
    for (index, name) in script.iter().enumerate() {
        let ms = i64::try_from(index).unwrap();
        bench.bring(&event(name, "T"), ms).await;
        bench.deliver_all(ms).await;
    }
    assert_eq!(
        bench.outcomes().await,
        [
            "alerted: 201",
            "suppressed: repeated new of an open ticket",
            "acknowledged: 201",
            "suppressed: repeated acknowledged of an acknowledged ticket",
            "suppressed: repeated new of an open ticket",
            "suppressed: update: a-rule",
            "resolved: 201",
            "suppressed: repeated resolved of a resolved ticket",
            "suppressed: acknowledged after resolved",
            "alerted: 201",
        ]
    );
    let tickets = bench.spool.tickets(None, 10).await.unwrap();
    assert_eq!(tickets.len(), 1);
    assert_eq!(tickets[0].state, TicketState::Open);
    assert_eq!(tickets[0].alert.as_ref().unwrap().title, "Disk full");
    bench.assert_balanced().await;
}

pub async fn repeats_that_wait_together_are_folded_when_their_turn_comes(store: Store) {
    let bench = Bench::new(store).await;
    for _ in 0..200 {
        bench.bring(&new("T"), 0).await;
    }
    assert_eq!(bench.deliver_all(1).await, ["new T"]);
    let outcomes = bench.outcomes().await;
    let repeats = outcomes
        .iter()
        .filter(|o| o.as_str() == "suppressed: repeated new of an open ticket");
    assert_eq!(repeats.count(), 199);
    bench.assert_balanced().await;
}

pub async fn a_close_cancels_an_alert_that_nobody_got(store: Store) {
    let bench = Bench::new(store).await;
    bench.bring(&new("T"), 0).await;
    // Tried in vain, but surely not arrived.
    let leased = bench.lease(1).await;
    let step = Step::Wait {
        until: at(100),
        maybe_paged: false,
    };
    bench.settle(&leased[0], step, 1).await;
    bench.bring(&event("acknowledged", "T"), 2).await;
    let settled = bench.bring(&event("resolved", "T"), 3).await;
    assert_eq!(settled.len(), 3);
    let reason = "suppressed: closed before anyone was paged";
    assert_eq!(bench.outcomes().await, [reason; 3]);
    assert!(bench.deliver_all(200).await.is_empty());
    bench.assert_balanced().await;
}

pub async fn a_close_follows_an_alert_that_somebody_may_have_got(store: Store) {
    for in_flight in [true, false] {
        let bench = Bench::new(store).await;
        bench.bring(&new("T"), 0).await;
        let leased = bench.lease(1).await;
        let step = Step::Wait {
            until: at(100),
            maybe_paged: true,
        };
        if in_flight {
            bench.bring(&event("resolved", "T"), 2).await;
            bench.settle(&leased[0], step, 3).await;
        } else {
            bench.settle(&leased[0], step, 2).await;
            bench.bring(&event("resolved", "T"), 3).await;
        }
        assert_eq!(bench.deliver_all(200).await, ["new T", "resolved T"]);
    }
    // The gateway died while sending: it may have arrived, too.
    let bench = Bench::new(store).await;
    bench.bring(&new("T"), 0).await;
    bench.lease(1).await;
    let bench = bench.restart().await;
    bench.bring(&event("resolved", "T"), 2).await;
    assert_eq!(bench.deliver_all(200).await, ["new T", "resolved T"]);
}

pub async fn hold_pages_nobody_when_the_ticket_is_closed_in_time(store: Store) {
    let held = json!({ "event": "new", "id": "T", "hold_ms": 60_000 });
    let bench = Bench::new(store).await;
    bench.bring(&held, 0).await;
    bench.bring(&event("resolved", "T"), 59_000).await;
    assert!(bench.deliver_all(100_000).await.is_empty());

    let bench = Bench::new(store).await;
    bench.bring(&held, 0).await;
    assert_eq!(bench.deliver_all(60_000).await, ["new T"]);
    bench.bring(&event("resolved", "T"), 61_000).await;
    assert_eq!(bench.deliver_all(62_000).await, ["resolved T"]);
}

pub async fn an_escalation_pages_again(store: Store) {
    let bench = Bench::new(store).await;
    bench.bring(&new("T"), 0).await;
    bench.deliver_all(1).await;
    let escalation = json!({ "event": "update", "id": "T", "escalate": true });
    bench.bring(&escalation, 2).await;
    assert_eq!(bench.deliver_all(3).await, ["new T"]);
}

pub async fn what_was_not_understood_pages_again_however_often_it_is_tried(store: Store) {
    let bench = Bench::new(store).await;
    bench.bring(&new("T"), 0).await;
    bench.deliver_all(1).await;
    let degraded = json!({ "event": "new", "id": "T", "degraded": true });
    bench.bring(&degraded, 2).await;
    let leased = bench.lease(3).await;
    let step = Step::Wait {
        until: at(100),
        maybe_paged: false,
    };
    bench.settle(&leased[0], step, 4).await;
    assert_eq!(bench.deliver_all(200).await, ["new T"]);
    bench.assert_balanced().await;
}

pub async fn what_repeats_a_duplicate_is_none_when_the_first_reached_nobody(store: Store) {
    let same = || mail_with("ops", "Message-ID: <1@kix>\r\n", &json!({ "event": "new" }));
    let bench = Bench::new(store).await;
    bench.spool.accept(same(), at(0)).await.unwrap();
    bench.decide(0).await;
    bench.spool.accept(same(), at(1)).await.unwrap();
    bench.decide(1).await;
    let leased = bench.lease(2).await;
    let dead = Step::End(Ending::DeadLetter, "404".to_owned());
    bench.settle(&leased[0], dead, 3).await;
    for ms in [4, 5] {
        bench.spool.accept(same(), at(ms)).await.unwrap();
    }
    bench.decide(6).await;
    let outcomes = bench.outcomes().await;
    assert!(outcomes[1].contains("duplicate of"), "{outcomes:?}");
    assert_eq!(outcomes[2], "waiting: ", "{outcomes:?}");
    assert!(outcomes[3].contains("duplicate of"), "{outcomes:?}");
    bench.assert_balanced().await;
}

pub async fn a_mail_received_twice_is_a_named_duplicate_within_a_window(store: Store) {
    let header = "Message-ID: <1@kix>\r\n";
    let day = 24 * 3600 * 1000;
    let no_ticket = json!({ "event": "new", "title": "hello" });
    let other = json!({ "event": "new", "title": "another title" });
    let bench = Bench::new(store).await;
    let mut first = None;
    for (team, script, ms) in [
        ("ops", &no_ticket, 0),
        ("ops", &no_ticket, 1000),
        ("night", &no_ticket, 1000),
        ("ops", &other, 2000),
        ("ops", &no_ticket, 6 * day),
    ] {
        let mail = mail_with(team, header, script);
        let id = bench.spool.accept(mail, at(ms)).await.unwrap();
        first.get_or_insert(id);
        bench.decide(ms).await;
    }
    let duplicate = format!(
        "suppressed: duplicate of {}: the same Message-ID",
        first.unwrap()
    );
    let expected = [
        "waiting: ",
        &duplicate,
        "waiting: ",
        "waiting: ",
        "waiting: ",
    ];
    assert_eq!(bench.outcomes().await, expected);
    bench.assert_balanced().await;
}

pub async fn a_mail_to_several_teams_has_one_outcome_for_each(store: Store) {
    let bench = Bench::new(store).await;
    let mut mail = mail("ops", &new("T"));
    mail.recipients.add("b@x", "night");
    mail.recipients.add("c@x", "ops");
    bench.spool.accept(mail, at(0)).await.unwrap();
    let undecided = bench.spool.undecided(10).await.unwrap().mails;
    assert_eq!(undecided[0].addressed.len(), 2);
    bench.decide(1).await;
    assert_eq!(bench.deliver_all(2).await, ["new T"]);
    assert_eq!(bench.outcomes().await.len(), 2);
    bench.assert_balanced().await;
}

pub async fn a_digest_is_split_and_balances(store: Store) {
    let bench = Bench::new(store).await;
    let digest = json!([new("A"), event("update", "B"), new("C")]);
    bench.bring(&digest, 0).await;
    assert_eq!(bench.deliver_all(1).await, ["new A", "new C"]);
    bench.bring(&event("resolved", "C"), 2).await;
    assert_eq!(bench.deliver_all(3).await, ["resolved C"]);
    let audit = bench.spool.audit().await.unwrap();
    assert!(audit.balances(), "{:?}", audit.problems);
    assert_eq!(
        (audit.teams["ops"].accepted, audit.teams["ops"].split),
        (2, 2)
    );
}

pub async fn dead_letters_are_listed_shown_retried_and_dropped(store: Store) {
    let bench = Bench::new(store).await;
    let id = bench.accept(&new("T"), 0).await;
    bench.decide(0).await;
    let leased = bench.lease(1).await;
    let dead = Step::End(Ending::DeadLetter, "404".to_owned());
    bench.settle(&leased[0], dead.clone(), 2).await;
    let ending = StageFilter::Ending(Ending::DeadLetter);
    let filter = Filter {
        stage: Some(ending),
        ..Filter::default()
    };
    assert_eq!(bench.spool.list(filter.clone(), 10).await.unwrap().len(), 1);
    let shown = bench.spool.show(id).await.unwrap().unwrap();
    assert_eq!(shown.deliveries[0].attempts[0].answer, "an answer");
    assert!(shown.deliveries[0].decision.is_some());

    assert_eq!(bench.spool.retry(DeadLetters::All, at(3)).await.unwrap(), 1);
    bench.assert_balanced().await;
    let leased = bench.lease(4).await;
    assert_eq!(names(&leased), ["new T"]);
    bench.settle(&leased[0], dead, 5).await;
    assert_eq!(bench.spool.drop_mail(id, at(6)).await.unwrap(), 1);
    assert_eq!(bench.spool.drop_mail(id, at(6)).await.unwrap(), 0);
    assert_eq!(bench.outcomes().await, ["dead-letter: dropped by a person"]);
    bench.assert_balanced().await;
    let all = bench.spool.retry(DeadLetters::All, at(6)).await;
    assert_eq!(all, Ok(0), "what was dropped stays dropped");
    assert!(
        bench
            .spool
            .retry(
                DeadLetters::Of("0190163d-8694-739b-aea5-966c26f8ad90".parse().unwrap()),
                at(7)
            )
            .await
            .is_err()
    );
}

pub async fn dead_letters_are_retried_some_at_a_time(store: Store) {
    let bench = Bench::new(store).await;
    for index in 0..5 {
        bench.accept(&new(&format!("T-{index}")), index).await;
    }
    bench.decide(5).await;
    for one in bench.lease(6).await {
        let dead = Step::End(Ending::DeadLetter, "400".to_owned());
        bench.settle(&one, dead, 7).await;
    }
    let (mut counts, mut after) = (Vec::new(), None);
    loop {
        let retrying = bench.spool.retry_some(DeadLetters::All, after, 2, at(8));
        let retried = retrying.await.unwrap();
        let waiting = bench.outcomes().await;
        let waiting = waiting.iter().filter(|one| one.starts_with("waiting"));
        counts.push((retried.count, waiting.count()));
        after = retried.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(counts, [(2, 2), (2, 4), (1, 5)]);
    let expected = (0..5).map(|index| format!("new T-{index}"));
    assert_eq!(bench.deliver_all(9).await, expected.collect::<Vec<_>>());
    bench.assert_balanced().await;
}

pub async fn what_waits_by_a_clock_that_was_set_back_waits_less(store: Store) {
    let bench = Bench::new(store).await;
    bench.bring(&new("T"), 10_000).await;
    let held = json!({ "event": "new", "id": "U", "hold_ms": 3_000 });
    bench.bring(&held, 10_000).await;
    assert!(bench.lease(1_000).await.is_empty());
    bench
        .spool
        .set_back(Duration::from_millis(9_000), at(1_000))
        .await
        .unwrap();
    assert_eq!(names(&bench.lease(1_000).await), ["new T"]);
    assert!(bench.lease(3_999).await.is_empty());
    assert_eq!(names(&bench.lease(4_000).await), ["new U"]);
}

pub async fn an_undecided_dead_letter_is_decided_again_when_retried(store: Store) {
    let bench = Bench::new(store).await;
    let id = bench
        .accept(&json!({ "dead_letter": true, "event": "update" }), 0)
        .await;
    bench.decide(0).await;
    assert_eq!(bench.outcomes().await, ["dead-letter: the script says so"]);
    bench.spool.retry(DeadLetters::Of(id), at(1)).await.unwrap();
    assert_eq!(bench.spool.undecided(10).await.unwrap().mails.len(), 1);
    bench.assert_balanced().await;
}

pub async fn dropping_a_waiting_mail_gives_the_next_its_turn(store: Store) {
    let bench = Bench::new(store).await;
    let first = bench.accept(&new("T"), 0).await;
    bench.decide(0).await;
    bench.bring(&new("T"), 1).await;
    assert_eq!(bench.spool.drop_mail(first, at(2)).await.unwrap(), 1);
    assert_eq!(bench.deliver_all(3).await, ["new T"]);
    bench.assert_balanced().await;
}

pub async fn a_mail_takes_the_place_of_another_or_nothing_changes(store: Store) {
    let bench = Bench::new(store).await;
    let old = bench.accept(&new("T"), 0).await;
    bench.decide(0).await;
    let replace = async |old, ms| {
        let mail = mail("ops", &new("T"));
        bench.spool.replace(old, mail, at(ms)).await
    };
    let taken = replace(old, 1).await.unwrap();
    bench.decide(1).await;
    assert_eq!(
        bench.outcomes().await,
        ["dead-letter: dropped by a person", "waiting: "]
    );
    bench.assert_balanced().await;

    let unknown = "0190163d-8694-739b-aea5-966c26f8ad90".parse().unwrap();
    assert!(replace(unknown, 2).await.is_err());
    bench.home.take_no_mail().await;
    assert!(replace(taken, 3).await.is_err());
    assert_eq!(
        bench.outcomes().await,
        ["dead-letter: dropped by a person", "waiting: "]
    );
    bench.assert_balanced().await;
    assert_eq!(bench.deliver_all(4).await, ["new T"]);
}

pub async fn pruning_keeps_the_ledger_and_what_is_not_finished(store: Store) {
    let bench = Bench::new(store).await;
    for index in 0..5 {
        bench.bring(&new(&format!("T-{index}")), index).await;
    }
    let leased = bench.lease_for(&[("ops", 3)], PLENTY, 5).await.leased;
    bench.deliver(&leased[0], 10).await;
    bench.deliver(&leased[1], 10).await;
    bench.deliver(&leased[2], 1000).await;
    let first = bench.spool.prune(at(500), None, 1).await.unwrap();
    assert_eq!(first.removed, 1);
    assert!(first.next.is_some());
    let rest = bench.spool.prune(at(500), first.next, 100).await.unwrap();
    assert_eq!((rest.removed, rest.next), (1, None));
    assert_eq!(
        bench.spool.prune(at(500), None, 100).await.unwrap().removed,
        0
    );
    assert_eq!(bench.outcomes().await.len(), 3);
    let audit = bench.spool.audit().await.unwrap();
    assert!(audit.balances(), "{:?}", audit.problems);
    assert_eq!(audit.teams["ops"].outcomes[&Ending::Alerted], 3);
}

pub async fn a_retried_part_of_a_digest_goes_alone(store: Store) {
    let bench = Bench::new(store).await;
    let dead = json!({ "event": "update", "id": "B", "dead_letter": true });
    let id = bench.accept(&json!([new("A"), dead, new("C")]), 0).await;
    bench.decide(0).await;
    assert_eq!(bench.deliver_all(1).await, ["new A", "new C"]);
    bench.bring(&event("resolved", "A"), 2).await;
    assert_eq!(bench.deliver_all(3).await, ["resolved A"]);
    assert_eq!(bench.spool.retry(DeadLetters::Of(id), at(4)).await, Ok(1));
    bench.decide(5).await;
    assert!(bench.deliver_all(6).await.is_empty());
    let mut outcomes = bench.outcomes().await;
    outcomes.sort();
    assert_eq!(
        outcomes,
        [
            "alerted: 201",
            "alerted: 201",
            "dead-letter: the script says so",
            "resolved: 201"
        ]
    );
    bench.assert_balanced().await;
}

pub async fn a_first_part_that_is_retried_brings_no_others(store: Store) {
    let bench = Bench::new(store).await;
    let dead = json!({ "event": "update", "id": "A", "dead_letter": true });
    let id = bench.accept(&json!([dead, new("B")]), 0).await;
    bench.decide(0).await;
    assert_eq!(bench.deliver_all(1).await, ["new B"]);
    bench.bring(&event("resolved", "B"), 2).await;
    assert_eq!(bench.deliver_all(3).await, ["resolved B"]);
    for ms in [4, 6] {
        assert_eq!(bench.spool.retry(DeadLetters::Of(id), at(ms)).await, Ok(1));
        bench.decide(ms + 1).await;
        assert!(bench.deliver_all(ms + 1).await.is_empty());
    }
    assert_eq!(bench.spool.audit().await.unwrap().teams["ops"].split, 1);
    bench.assert_balanced().await;
}

pub async fn a_digest_that_is_received_twice_pages_once(store: Store) {
    let bench = Bench::new(store).await;
    let digest = json!([new("A"), new("B")]);
    let digest = mail_with("ops", "Message-ID: <1@kix>\r\n", &digest);
    bench.spool.accept(digest.clone(), at(0)).await.unwrap();
    bench.decide(0).await;
    assert_eq!(bench.deliver_all(1).await, ["new A", "new B"]);
    for id in ["A", "B"] {
        bench.bring(&event("resolved", id), 2).await;
    }
    assert_eq!(bench.deliver_all(3).await, ["resolved A", "resolved B"]);
    bench.spool.accept(digest, at(4)).await.unwrap();
    bench.decide(5).await;
    assert!(bench.deliver_all(6).await.is_empty());
    bench.assert_balanced().await;
}

pub async fn a_retried_part_that_the_rules_of_today_do_not_make_is_a_dead_letter(store: Store) {
    let bench = Bench::new(store).await;
    let dead = json!({ "event": "update", "id": "B", "dead_letter": true });
    let id = bench.accept(&json!([new("A"), dead]), 0).await;
    bench.decide(0).await;
    bench.deliver_all(1).await;
    bench.spool.retry(DeadLetters::Of(id), at(2)).await.unwrap();
    let undecided = bench.spool.undecided(10).await.unwrap().mails;
    let decided = Decided {
        delivery: undecided[0].addressed[0].delivery,
        message_id: None,
        reading: Reading::Decisions(vec![decision(&new("Z"))]),
    };
    bench.store(vec![decided], 3).await;
    let outcomes = bench.outcomes().await;
    let reason = "dead-letter: the mail has no such part by the rules of today";
    assert!(outcomes.iter().any(|one| one == reason), "{outcomes:?}");
    bench.assert_balanced().await;
}

pub async fn a_retried_new_does_not_follow_its_own_close(store: Store) {
    for (maybe_paged, undecided) in [(false, false), (true, false), (false, true)] {
        let bench = Bench::new(store).await;
        let script = json!({ "event": "new", "id": "T", "dead_letter": undecided });
        let id = bench.accept(&script, 0).await;
        bench.decide(0).await;
        if !undecided {
            let until = at(1);
            let leased = bench.lease(1).await;
            bench
                .settle(&leased[0], Step::Wait { until, maybe_paged }, 1)
                .await;
            let leased = bench.lease(2).await;
            let dead = Step::End(Ending::DeadLetter, "400".to_owned());
            bench.settle(&leased[0], dead, 2).await;
        }
        bench.bring(&event("resolved", "T"), 3).await;
        assert_eq!(bench.deliver_all(4).await, ["resolved T"]);
        assert_eq!(bench.spool.retry(DeadLetters::Of(id), at(5)).await, Ok(1));
        for mail in bench.spool.undecided(10).await.unwrap().mails {
            let decided = Decided {
                delivery: mail.addressed[0].delivery,
                message_id: None,
                reading: Reading::Decisions(vec![decision(&new("T"))]),
            };
            bench.store(vec![decided], 6).await;
        }
        assert!(bench.deliver_all(7).await.is_empty());
        let expected = [
            "suppressed: closed before anyone was paged",
            "resolved: 201",
        ];
        assert_eq!(bench.outcomes().await, expected);
        assert!(
            bench.spool.tickets(None, 9).await.unwrap().is_empty(),
            "left open"
        );
        bench.assert_balanced().await;
    }
}

pub async fn a_retried_new_is_sent_when_its_close_was_not_or_was_a_duplicate(store: Store) {
    let header = "Message-ID: <close@kix>\r\n";
    let close = || mail_with("ops", header, &event("resolved", "T"));
    let bench = Bench::new(store).await;
    bench.spool.accept(close(), at(0)).await.unwrap();
    bench.decide(0).await;
    bench.deliver_all(0).await;
    let dead = Step::End(Ending::DeadLetter, "400".to_owned());
    bench.bring(&new("T"), 1).await;
    let leased = bench.lease(1).await;
    bench.settle(&leased[0], dead.clone(), 1).await;
    bench.spool.accept(close(), at(2)).await.unwrap(); // its sender did not see the 250
    bench.decide(2).await;
    bench.spool.retry(DeadLetters::All, at(3)).await.unwrap();
    assert_eq!(bench.deliver_all(4).await, ["new T"]);

    let bench = Bench::new(store).await;
    for name in ["new", "resolved"] {
        bench.bring(&event(name, "U"), 1).await;
        let leased = bench.lease(1).await;
        bench.settle(&leased[0], dead.clone(), 1).await;
    }
    assert_eq!(bench.spool.retry(DeadLetters::All, at(2)).await, Ok(2));
    assert_eq!(bench.deliver_all(3).await, ["new U", "resolved U"]);
    bench.assert_balanced().await;
}

pub async fn a_retried_close_does_not_silence_a_later_alert(store: Store) {
    for name in ["acknowledged", "resolved"] {
        let bench = Bench::new(store).await;
        bench.bring(&new("T"), 0).await;
        bench.deliver_all(0).await;
        bench.bring(&event(name, "T"), 1).await;
        let leased = bench.lease(1).await;
        let dead = Step::End(Ending::DeadLetter, "400".to_owned());
        bench.settle(&leased[0], dead, 1).await;
        bench.bring(&new("T"), 2).await;
        bench.deliver_all(2).await;
        assert_eq!(bench.spool.retry(DeadLetters::All, at(3)).await, Ok(1));
        assert!(bench.deliver_all(4).await.is_empty());
        let outcomes = bench.outcomes().await;
        let reason = "suppressed: retried after a later new of its ticket";
        assert_eq!(outcomes[1], reason, "{outcomes:?}");
        bench.assert_balanced().await;
    }
}

pub async fn retention_keeps_dead_letters_until_a_person_drops_them(store: Store) {
    let bench = Bench::new(store).await;
    let id = bench
        .accept(
            &json!([new("A"), { "event": "new", "dead_letter": true }]),
            0,
        )
        .await;
    bench.decide(0).await;
    bench.deliver_all(1).await;
    let prune = || bench.spool.prune(at(1000), None, 100);
    assert_eq!(prune().await.unwrap().removed, 0);
    assert_eq!(bench.outcomes().await.len(), 2);
    bench.spool.drop_mail(id, at(2)).await.unwrap();
    assert_eq!(prune().await.unwrap().removed, 1);
    assert!(bench.outcomes().await.is_empty());
    bench.assert_balanced().await;
}

pub async fn only_old_ones_are_leased_to_be_ended(store: Store) {
    let bench = Bench::new(store).await;
    bench.bring(&event("resolved", "old"), 0).await;
    for index in 0..9 {
        bench.bring(&new(&format!("T-{index}")), 100).await;
    }
    let ask = Ask {
        team: "ops".to_owned(),
        slots: 5,
        paced: false,
        since_before: Some(at(99)),
    };
    let none = Budget { new: 0, other: 0 };
    let lease = bench.spool.lease(vec![ask], none, at(200)).await.unwrap();
    assert_eq!(names(&lease.leased), ["resolved old"]);
    assert_eq!(lease.due, None);
}

pub async fn hurry_brings_back_what_was_postponed_and_not_what_is_held(store: Store) {
    let bench = Bench::new(store).await;
    bench.bring(&new("tried"), 0).await;
    bench
        .bring(
            &json!({ "event": "new", "id": "held", "hold_ms": 60_000 }),
            0,
        )
        .await;
    let leased = bench.lease(1).await;
    let mut progress = Progress::default();
    progress.failed(mailbell::config::TransportKind::Webhook, at(1), false);
    let settlement = Settlement {
        delivery: leased[0].delivery,
        lease: leased[0].lease,
        attempts: Vec::new(),
        progress: progress.clone(),
        step: Step::Wait {
            until: at(300_000),
            maybe_paged: false,
        },
    };
    bench.spool.settle(vec![settlement], at(2)).await.unwrap();
    assert!(bench.lease(3).await.is_empty());
    // However often it is postponed, it is late since it could not be sent.
    let overdue = bench.spool.overdue(at(100_000)).await.unwrap();
    assert_eq!(overdue["ops"], at(1));
    bench.spool.hurry("ops", at(4)).await.unwrap();
    let leased = bench.lease(4).await;
    assert_eq!(names(&leased), ["new tried"]);
    assert_eq!(leased[0].progress, progress);
}

pub async fn lists_are_filtered_and_paged(store: Store) {
    let bench = Bench::new(store).await;
    let mut ids = Vec::new();
    for index in 0..5 {
        ids.push(bench.accept(&new(&format!("T-{index}")), index).await);
    }
    bench.decide(10).await;
    let of = |filter: Filter, limit| {
        let spool = Arc::clone(&bench.spool);
        async move {
            let list = spool.list(filter, limit).await.unwrap();
            list.into_iter().map(|one| one.mail).collect::<Vec<_>>()
        }
    };
    assert_eq!(of(Filter::default(), 2).await, [ids[4], ids[3]]);
    let next = Filter {
        before: Some(ids[3]),
        ..Filter::default()
    };
    assert_eq!(of(next, 2).await, [ids[2], ids[1]]);
    let one = Filter {
        external_id: Some("T-1".to_owned()),
        stage: Some(StageFilter::Unfinished),
        ..Filter::default()
    };
    assert_eq!(of(one, 9).await, [ids[1]]);
    let none = Filter {
        source: Some("kix".to_owned()),
        ..Filter::default()
    };
    assert!(of(none, 9).await.is_empty());
}

pub async fn the_latest_moment_of_a_name_is_kept(store: Store) {
    let bench = Bench::new(store).await;
    assert!(bench.spool.marks().await.unwrap().is_empty());
    for (name, seconds) in [("source kix", 5), ("heartbeat", 6), ("source kix", 4)] {
        bench.spool.mark(name, at(seconds)).await.unwrap();
    }
    let kept = [("heartbeat", 6), ("source kix", 5)];
    let kept = kept.map(|(name, seconds)| (name.to_owned(), at(seconds)));
    assert_eq!(bench.spool.marks().await.unwrap(), kept.into());
    let claimed = |name, seconds, before| bench.spool.claim(name, at(seconds), at(before));
    assert!(claimed("told", 10, 0).await.unwrap(), "never before");
    assert!(!claimed("told", 20, 9).await.unwrap());
    assert!(claimed("told", 20, 10).await.unwrap());
    assert!(!claimed("told", 20, 10).await.unwrap(), "by another");
    assert_eq!(bench.spool.marks().await.unwrap()["told"], at(20));
}

pub async fn what_somebody_has_to_be_told_of_it_is_found(store: Store) {
    let bench = Bench::new(store).await;
    let overdue = || bench.spool.overdue(at(100_000));
    assert!(overdue().await.unwrap().is_empty());
    bench.accept(&new("mailbell-x"), 5).await;
    assert_eq!(overdue().await.unwrap()["ops"], at(5), "undecided");
    bench.decide(6).await;
    assert_eq!(overdue().await.unwrap()["ops"], at(6), "waiting");
    let open = || bench.spool.open_with_prefix("mailbell-");
    let waits = ("ops".to_owned(), ExternalId::new("mailbell-x").unwrap());
    assert_eq!(open().await.unwrap(), [waits.clone()].into());
    bench.bring(&new("mailbell"), 7).await;
    bench.bring(&new("mailbelly"), 7).await;
    bench.deliver_all(8).await;
    assert!(overdue().await.unwrap().is_empty());
    assert_eq!(open().await.unwrap(), [waits].into());
    bench.bring(&event("resolved", "mailbell-x"), 9).await;
    bench.deliver_all(10).await;
    assert!(open().await.unwrap().is_empty());

    let dead = json!({ "event": "update", "dead_letter": true });
    let first = bench.accept(&dead, 11).await;
    let second = bench.accept(&dead, 12).await;
    bench.decide(13).await;
    let letters = bench.spool.dead_letters("another").await.unwrap();
    assert_eq!(letters["ops"].count, 2);
    assert_eq!(letters["ops"].newest, second);
    assert_eq!(letters["ops"].reason, "the script says so");
    assert!(
        bench
            .spool
            .dead_letters("scripted")
            .await
            .unwrap()
            .is_empty()
    );
    bench.spool.drop_mail(second, at(14)).await.unwrap();
    let letters = bench.spool.dead_letters("another").await.unwrap();
    assert_eq!((letters["ops"].count, letters["ops"].newest), (1, first));
}

pub async fn the_oldest_finished_leave_when_there_is_no_room(store: Store) {
    let bench = Bench::new(store).await;
    let large = |id: &str| json!({ "event": "new", "id": id, "filler": "x".repeat(20_000) });
    let unfinished = bench.accept(&large("first"), 0).await;
    for index in 0..40 {
        bench.accept(&large(&format!("T-{index}")), 1).await;
    }
    bench.decide(2).await;
    let leased = bench.lease(3).await;
    for one in leased.iter().filter(|one| one.mail != unfinished) {
        bench.deliver(one, 4).await;
    }
    let bytes_max = bench.spool.bytes().await.unwrap() / 2;
    let retention = Retention {
        age: Duration::from_secs(365 * 24 * 3600),
        bytes_max: Some(bytes_max),
    };
    let clock = Arc::new(Fixed(at(10)));
    let keeping = retention::keep(Arc::clone(&bench.spool), retention, clock);
    let watching = async {
        while bench.spool.bytes().await.unwrap() > bytes_max {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = keeping => {}
        () = watching => {}
    }
    let list = bench.spool.list(Filter::default(), 100).await.unwrap();
    let left: Vec<&str> = list
        .iter()
        .filter_map(|one| one.external_id.as_deref())
        .collect();
    assert!(
        left.contains(&"first"),
        "what is unfinished stays: {left:?}"
    );
    assert!(left.len() < 41, "{left:?}");
    bench.assert_balanced().await;
}

pub async fn what_the_store_refuses_is_a_dead_letter_in_its_place(store: Store) {
    let bench = Bench::new(store).await;
    bench.home.refuse_poison().await;
    // More than take their place in one transaction.
    let mails = PLACED_AT_ONCE + 10;
    for index in 0..mails {
        let script = match index {
            3 => poison("P"),
            5 => event("resolved", "P"),
            // A digest ends as one.
            7 => json!([new("D"), poison("E")]),
            _ if index == mails - 2 => poison("Q"),
            _ => new(&format!("T-{index}")),
        };
        bench.accept(&script, 0).await;
    }
    let settled = bench.decide(1).await;
    let dead: Vec<&str> = settled
        .iter()
        .filter(|one| one.ending == Ending::DeadLetter)
        .map(|one| one.reason.as_str())
        .collect();
    assert_eq!(dead.len(), 3, "{settled:?}");
    for reason in dead {
        assert!(reason.contains("refused_by_the_test"), "{reason}");
    }
    let outcomes = bench.outcomes().await;
    assert_eq!(outcomes.len(), mails, "no part of the digest stays");
    for (index, outcome) in outcomes.iter().enumerate() {
        let is_dead = outcome.starts_with("dead-letter");
        assert_eq!(
            is_dead,
            [3, 7, mails - 2].contains(&index),
            "{index} {outcome}"
        );
        assert!(!outcome.starts_with("accepted"), "{index}");
    }
    bench.assert_balanced().await;
}

#[derive(Debug)]
struct Fixed(Time);

impl Clock for Fixed {
    fn now(&self) -> Time {
        self.0
    }
}

on_every_store! {
    a_late_settlement_does_not_touch_the_next_lease,
    the_oldest_finished_leave_when_there_is_no_room,
    what_somebody_has_to_be_told_of_it_is_found,
    the_latest_moment_of_a_name_is_kept,
    what_was_accepted_is_there_after_a_restart_stage_by_stage,
    a_large_mail_comes_and_goes_in_pieces,
    nothing_stays_of_a_mail_that_was_not_received_whole,
    an_audit_finds_a_mail_that_lacks_a_piece,
    a_settlement_that_is_repeated_changes_nothing,
    one_delivery_of_a_ticket_at_a_time_and_others_pass_by,
    the_most_urgent_leave_first,
    no_team_is_held_up_by_another,
    a_lease_says_when_the_next_is_due,
    lifecycle_of_a_ticket,
    repeats_that_wait_together_are_folded_when_their_turn_comes,
    a_close_cancels_an_alert_that_nobody_got,
    a_close_follows_an_alert_that_somebody_may_have_got,
    hold_pages_nobody_when_the_ticket_is_closed_in_time,
    an_escalation_pages_again,
    what_was_not_understood_pages_again_however_often_it_is_tried,
    what_repeats_a_duplicate_is_none_when_the_first_reached_nobody,
    a_mail_received_twice_is_a_named_duplicate_within_a_window,
    a_mail_to_several_teams_has_one_outcome_for_each,
    a_digest_is_split_and_balances,
    dead_letters_are_listed_shown_retried_and_dropped,
    dead_letters_are_retried_some_at_a_time,
    what_waits_by_a_clock_that_was_set_back_waits_less,
    an_undecided_dead_letter_is_decided_again_when_retried,
    dropping_a_waiting_mail_gives_the_next_its_turn,
    a_mail_takes_the_place_of_another_or_nothing_changes,
    pruning_keeps_the_ledger_and_what_is_not_finished,
    a_retried_part_of_a_digest_goes_alone,
    a_first_part_that_is_retried_brings_no_others,
    a_digest_that_is_received_twice_pages_once,
    a_retried_part_that_the_rules_of_today_do_not_make_is_a_dead_letter,
    a_retried_new_does_not_follow_its_own_close,
    a_retried_new_is_sent_when_its_close_was_not_or_was_a_duplicate,
    a_retried_close_does_not_silence_a_later_alert,
    retention_keeps_dead_letters_until_a_person_drops_them,
    only_old_ones_are_leased_to_be_ended,
    hurry_brings_back_what_was_postponed_and_not_what_is_held,
    lists_are_filtered_and_paged,
    what_the_store_refuses_is_a_dead_letter_in_its_place,
}
