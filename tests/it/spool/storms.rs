//! Many new tickets of one source at once become one alert.

use std::time::Duration;

use mailbell::config::Storm;
use mailbell::limits::STORM_LISTED_MAX;
use mailbell::spool::{DeadLetters, Ending, Filter, Step};
use serde_json::{Value, json};

use super::bench::{Bench, PLENTY, Store, at, names};
use crate::scripted::{event, new};

const STORM: Storm = Storm {
    tickets: 2,
    window: Duration::from_secs(300),
    gather: Duration::from_secs(30),
};

async fn bench(store: Store) -> Bench {
    Bench {
        storm: Some(STORM),
        ..Bench::new(store).await
    }
}

/// A and B page, C and D are gathered.
async fn storming(store: Store) -> Bench {
    let bench = bench(store).await;
    for (index, id) in ["A", "B", "C", "D"].iter().enumerate() {
        let ms = i64::try_from(index).unwrap();
        let script = json!({ "event": "new", "id": id, "title": format!("{id} is down") });
        bench.bring(&script, ms).await;
        bench.deliver_all(ms).await;
    }
    bench
}

async fn sent(bench: &Bench, ms: i64) -> Vec<String> {
    let sent = bench.deliver_all(ms).await;
    let short = |line: String| match line.split_once(" storm-") {
        Some((status, _)) => format!("{status} summary"),
        None => line,
    };
    sent.into_iter().map(short).collect()
}

async fn open_tickets(bench: &Bench) -> Vec<String> {
    let tickets = bench.spool.tickets(None, 100).await.unwrap();
    let mut ids: Vec<String> = tickets.into_iter().map(|one| one.external_id).collect();
    ids.sort();
    ids
}

async fn the_summary_lists_what_was_gathered(store: Store) {
    let bench = storming(store).await;
    assert!(bench.lease(29_999).await.is_empty(), "it gathers");
    let leased = bench.lease(30_002).await;
    let [summary] = &leased[..] else {
        panic!("{leased:?}")
    };
    assert_eq!(summary.alert.title, "2 new tickets of scripted");
    assert_eq!(summary.alert.message, "C: C is down\nD: D is down");
    assert_eq!(summary.alert.status.as_str(), "new");
    bench.deliver(summary, 30_003).await;
    // Told of once.
    bench.bring(&new("C"), 30_004).await;
    assert!(sent(&bench, 100_000).await.is_empty());
    let outcomes = bench.outcomes().await;
    let gathered = outcomes
        .iter()
        .filter(|o| o.ends_with(" tells of it"))
        .count();
    assert_eq!(gathered, 2, "{outcomes:?}");
    bench.assert_balanced().await;
}

async fn closing_the_last_of_them_closes_the_summary(store: Store) {
    let bench = storming(store).await;
    assert_eq!(sent(&bench, 31_000).await, ["new summary"]);
    bench.bring(&event("acknowledged", "C"), 32_000).await;
    bench.bring(&event("resolved", "C"), 33_000).await;
    assert!(sent(&bench, 34_000).await.is_empty());
    bench.bring(&event("resolved", "D"), 35_000).await;
    assert_eq!(sent(&bench, 36_000).await, ["resolved summary"]);
    assert_eq!(open_tickets(&bench).await, ["A", "B"]);
    bench.bring(&event("resolved", "A"), 37_000).await;
    assert_eq!(sent(&bench, 38_000).await, ["resolved A"]);
    bench.assert_balanced().await;
}

async fn a_summary_whose_tickets_are_all_closed_pages_nobody(store: Store) {
    let bench = storming(store).await;
    bench.bring(&event("resolved", "C"), 10).await;
    bench.bring(&event("resolved", "D"), 11).await;
    assert!(sent(&bench, 60_000).await.is_empty());
    assert_eq!(open_tickets(&bench).await, ["A", "B"]);
    // The next of them begin another.
    bench.bring(&new("E"), 61_000).await;
    assert_eq!(sent(&bench, 92_000).await, ["new summary"]);
    bench.assert_balanced().await;
}

async fn a_ticket_that_is_closed_while_others_are_gathered_is_not_listed(store: Store) {
    let bench = storming(store).await;
    bench.bring(&event("resolved", "C"), 10).await;
    let leased = bench.lease(31_000).await;
    assert_eq!(leased[0].alert.message, "D: D is down");
    bench.deliver(&leased[0], 31_001).await;
    bench.assert_balanced().await;
}

async fn what_comes_after_a_summary_has_left_is_in_the_next(store: Store) {
    let bench = storming(store).await;
    assert_eq!(sent(&bench, 31_000).await, ["new summary"]);
    bench.bring(&new("E"), 32_000).await;
    bench.bring(&new("F"), 33_000).await;
    assert!(sent(&bench, 61_999).await.is_empty());
    let leased = bench.lease(62_000).await;
    assert_eq!(leased[0].alert.title, "2 new tickets of scripted");
    bench.deliver(&leased[0], 62_001).await;
    for id in ["C", "D"] {
        bench.bring(&event("resolved", id), 63_000).await;
    }
    assert_eq!(sent(&bench, 64_000).await, ["resolved summary"]);
    assert_eq!(open_tickets(&bench).await.len(), 5); // A, B, E, F and the second summary
    bench.assert_balanced().await;
}

async fn a_summary_that_failed_takes_no_more_tickets(store: Store) {
    let bench = storming(store).await;
    let leased = bench.lease(31_000).await;
    let until = at(40_000);
    let step = Step::Wait {
        until,
        maybe_paged: true,
    };
    bench.settle(&leased[0], step, 32_000).await;
    bench.bring(&new("E"), 33_000).await;
    assert_eq!(sent(&bench, 41_000).await, ["new summary"]);
    assert_eq!(sent(&bench, 64_000).await, ["new summary"]);
    bench.assert_balanced().await;
}

async fn an_escalation_leaves_the_summary(store: Store) {
    let bench = storming(store).await;
    assert_eq!(sent(&bench, 31_000).await, ["new summary"]);
    let escalation = json!({ "event": "update", "id": "C", "escalate": true });
    bench.bring(&escalation, 32_000).await;
    assert_eq!(sent(&bench, 33_000).await, ["new C"]);
    bench.bring(&event("resolved", "D"), 34_000).await;
    assert_eq!(sent(&bench, 35_000).await, ["resolved summary"]);
    bench.bring(&event("resolved", "C"), 36_000).await;
    assert_eq!(sent(&bench, 37_000).await, ["resolved C"]);
    bench.assert_balanced().await;
}

async fn a_storm_is_over_when_no_more_come(store: Store) {
    let bench = storming(store).await;
    assert_eq!(sent(&bench, 31_000).await, ["new summary"]);
    bench.bring(&new("late"), 400_000).await;
    assert_eq!(sent(&bench, 400_001).await, ["new late"]);
}

async fn storms_survive_a_restart(store: Store) {
    let bench = storming(store).await.restart().await;
    bench.bring(&new("E"), 10).await;
    let leased = bench.lease(31_000).await;
    assert_eq!(leased[0].alert.title, "3 new tickets of scripted");
}

async fn a_digest_can_be_a_storm(store: Store) {
    let bench = bench(store).await;
    let digest: Vec<Value> = ["A", "B", "C", "D"].iter().map(|id| new(id)).collect();
    bench.bring(&Value::Array(digest), 0).await;
    assert_eq!(names(&bench.lease(1).await), ["new A", "new B"]);
    assert_eq!(sent(&bench, 31_000).await, ["new summary"]);
    bench
        .bring(
            &Value::Array(vec![event("resolved", "C"), event("resolved", "D")]),
            32_000,
        )
        .await;
    assert_eq!(sent(&bench, 33_000).await, ["resolved summary"]);
    bench.assert_balanced().await;
}

async fn dropping_the_mail_that_began_a_summary_leaves_it_to_the_others(store: Store) {
    let bench = bench(store).await;
    for id in ["A", "B"] {
        bench.bring(&new(id), 0).await;
    }
    bench.deliver_all(0).await;
    let first = bench.accept(&new("C"), 1).await;
    bench.decide(1).await;
    bench.bring(&new("D"), 2).await;
    bench.spool.drop_mail(first, at(3)).await.unwrap();
    assert_eq!(sent(&bench, 60_000).await, ["new summary"]);
    bench.assert_balanced().await;
}

async fn a_summary_that_nobody_took_is_a_dead_letter_that_can_be_retried(store: Store) {
    let bench = storming(store).await;
    let leased = bench.lease(31_000).await;
    let dead = Step::End(Ending::DeadLetter, "404".to_owned());
    bench.settle(&leased[0], dead, 31_001).await;
    assert_eq!(bench.spool.retry(DeadLetters::All, at(40_000)).await, Ok(1));
    let lease = bench.lease_for(&[("ops", 9)], PLENTY, 40_001).await;
    assert_eq!(lease.leased[0].alert.message, "C: C is down\nD: D is down");
    bench.deliver(&lease.leased[0], 40_002).await;
    let list = bench.spool.list(Filter::default(), 99).await.unwrap();
    assert!(list.iter().all(|one| one.rule.is_some()));
    bench.assert_balanced().await;
}

async fn a_large_storm_is_counted_and_its_first_tickets_are_listed(store: Store) {
    let bench = storming(store).await;
    let more = STORM_LISTED_MAX + 3;
    for number in 0..more {
        bench.bring(&new(&format!("M{number:03}")), 1000).await;
    }
    let leased = bench.lease(60_000).await;
    let [summary] = &leased[..] else {
        panic!("{leased:?}")
    };
    let title = format!("{} new tickets of scripted", more + 2);
    assert_eq!(summary.alert.title, title);
    let lines: Vec<&str> = summary.alert.message.lines().collect();
    assert_eq!(lines.len(), STORM_LISTED_MAX + 1);
    assert_eq!(lines[..2], ["C: C is down", "D: D is down"]);
    assert_eq!(lines.last(), Some(&"and 5 more"));
    bench.deliver(summary, 60_001).await;
    bench.assert_balanced().await;
}

on_every_store! {
    the_summary_lists_what_was_gathered,
    a_large_storm_is_counted_and_its_first_tickets_are_listed,
    closing_the_last_of_them_closes_the_summary,
    a_summary_whose_tickets_are_all_closed_pages_nobody,
    a_ticket_that_is_closed_while_others_are_gathered_is_not_listed,
    what_comes_after_a_summary_has_left_is_in_the_next,
    a_summary_that_failed_takes_no_more_tickets,
    an_escalation_leaves_the_summary,
    a_storm_is_over_when_no_more_come,
    storms_survive_a_restart,
    a_digest_can_be_a_storm,
    dropping_the_mail_that_began_a_summary_leaves_it_to_the_others,
    a_summary_that_nobody_took_is_a_dead_letter_that_can_be_retried,
}
