//! What people ask of a store: pages of mails, the state at a glance, open tickets.

use mailbell::spool::lifecycle::TicketState;
use mailbell::spool::search::{MINUTES, Minute};
use mailbell::spool::{
    Ending, Filter, MailId, Page, Query, Reading, StageFilter, Step, TicketCursor,
};
use serde_json::json;

use super::bench::{Bench, Store, at};
use crate::scripted::{event, mail, mail_with, new};

fn query() -> Query {
    Query {
        limit: 10,
        ..Query::default()
    }
}

fn text(text: &str) -> Query {
    Query {
        text: Some(text.to_owned()),
        ..query()
    }
}

fn stage(word: &str) -> Query {
    Query {
        filter: Filter {
            stage: Some(StageFilter::parse(word).unwrap()),
            ..Filter::default()
        },
        ..query()
    }
}

fn ids(page: &Page) -> Vec<MailId> {
    page.mails.iter().map(|found| found.mail).collect()
}

async fn found(bench: &Bench, query: Query) -> Vec<MailId> {
    let page = bench.spool.search(query).await.unwrap();
    assert!(!page.is_cut_off);
    ids(&page)
}

async fn mails_are_found_by_what_a_person_knows_of_them(store: Store) {
    let bench = Bench::new(store).await;
    let disk = json!({ "event": "new", "id": "KIX-1", "title": "100% of db_1 is full" });
    let header = "Message-ID: <a@b>\r\nX: =?utf-8?q?=C3=BC?=\r\n";
    let first = bench.spool.accept(mail_with("ops", header, &disk), at(0));
    let first = first.await.unwrap();
    let printer = json!({ "event": "new", "id": "KIX-2", "title": "Printer jam: Ölstand" });
    let second = bench.accept(&printer, 1).await;
    bench.decide(2).await;
    let third = bench.spool.accept(mail("night", &new("KIX-3")), at(3));
    let third = third.await.unwrap();

    let page = bench.spool.search(query()).await.unwrap();
    assert_eq!(ids(&page), [third, second, first]);
    assert_eq!((page.next, page.is_cut_off), (None, false));
    let one = &page.mails[1];
    assert_eq!(one.subject.as_deref(), Some("scripted"));
    assert_eq!(one.reverse_path, "kix@kix.example");
    assert_eq!(one.received, at(1));
    let delivery = &one.deliveries[0];
    assert_eq!(
        delivery.summary.title.as_deref(),
        Some("Printer jam: Ölstand")
    );
    assert_eq!(delivery.summary.forward_path, "ops@alerts.example");
    assert!(!delivery.is_degraded);
    assert_eq!(
        page.mails[0].deliveries[0].summary.stage.as_str(),
        "accepted"
    );

    // Signs that mean something in SQL mean themselves.
    assert_eq!(found(&bench, text("100% OF DB_1")).await, [first]);
    assert_eq!(found(&bench, text("db%1")).await, []);
    assert_eq!(found(&bench, text("dbx1")).await, []);
    assert_eq!(found(&bench, text("\\")).await, []);
    assert_eq!(found(&bench, text("'\0")).await, []);
    assert_eq!(found(&bench, text("KIX-2")).await, [second]);
    assert_eq!(found(&bench, text("kix-")).await, [second, first]);
    assert_eq!(found(&bench, text("ölSTAND")).await, [second]);
    assert_eq!(found(&bench, text("kix@kix")).await, [third, second, first]);
    assert_eq!(found(&bench, text("night@")).await, [third]);
    assert_eq!(found(&bench, text(&third.to_string())).await, [third]);
    let of_ops = Query {
        filter: Filter {
            team: Some("ops".to_owned()),
            ..Filter::default()
        },
        ..text("kix@kix")
    };
    assert_eq!(found(&bench, of_ops).await, [second, first]);
    let of_ticket = Query {
        filter: Filter {
            external_id: Some("KIX-1".to_owned()),
            ..Filter::default()
        },
        ..query()
    };
    assert_eq!(found(&bench, of_ticket).await, [first]);
    let of_event = |event: &str| Query {
        event: Some(event.to_owned()),
        ..query()
    };
    assert_eq!(found(&bench, of_event("new")).await, [second, first]);
    assert_eq!(found(&bench, of_event("resolved")).await, []);
}

async fn mails_are_found_by_their_stage(store: Store) {
    let bench = Bench::new(store).await;
    let mut mails = Vec::new();
    for id in ["sent", "dead", "dropped", "waiting"] {
        mails.push(bench.accept(&new(id), 0).await);
    }
    bench.decide(1).await;
    mails.push(bench.accept(&new("undecided"), 2).await);
    for leased in bench.lease(3).await {
        match leased.alert.external_id.as_ref().unwrap().as_str() {
            "sent" => bench.deliver(&leased, 4).await,
            "waiting" => {
                let step = Step::Wait {
                    until: at(100),
                    maybe_paged: false,
                };
                bench.settle(&leased, step, 4).await;
            }
            _ => {
                let dead = Step::End(Ending::DeadLetter, "refused".to_owned());
                bench.settle(&leased, dead, 4).await;
            }
        }
    }
    bench.spool.drop_mail(mails[2], at(5)).await.unwrap();
    let expected = [
        ("unfinished", vec![mails[4], mails[3]]),
        ("accepted", vec![mails[4]]),
        ("waiting", vec![mails[3]]),
        ("sending", vec![]),
        ("settled", vec![mails[2], mails[1], mails[0]]),
        ("dead-letter", vec![mails[2], mails[1]]),
        ("undropped", vec![mails[1]]),
        ("alerted", vec![mails[0]]),
    ];
    for (word, expected) in expected {
        assert_eq!(found(&bench, stage(word)).await, expected, "{word}");
        let list = bench.spool.list(stage(word).filter, 9).await.unwrap();
        let list: Vec<MailId> = list.into_iter().map(|one| one.mail).collect();
        assert_eq!(list, expected, "list {word}");
    }
}

async fn pages_follow_each_other_also_when_their_end_is_gone(store: Store) {
    let bench = Bench::new(store).await;
    let mut mails = Vec::new();
    for index in 0..5 {
        mails.push(bench.accept(&new(&format!("T-{index}")), index).await);
    }
    bench.decide(5).await;
    bench.deliver_all(6).await;
    let mut read = Vec::new();
    let mut before = None;
    loop {
        let query = Query {
            filter: Filter {
                before,
                ..Filter::default()
            },
            limit: 2,
            ..Query::default()
        };
        let page = bench.spool.search(query).await.unwrap();
        read.push(ids(&page));
        before = page.next;
        if before.is_none() {
            break;
        }
        // The page's last mail is pruned while the person reads.
        if before == Some(mails[3]) {
            let pruned = bench
                .spool
                .prune(at(1000), Some(mails[2]), 1)
                .await
                .unwrap();
            assert_eq!(pruned.removed, 1);
        }
    }
    let expected = [
        vec![mails[4], mails[3]],
        vec![mails[2], mails[1]],
        vec![mails[0]],
    ];
    assert_eq!(read, expected);
}

async fn a_glance_counts_and_draws_the_last_hour(store: Store) {
    let bench = Bench::new(store).await;
    let hour = 3_600_000;
    bench.bring(&new("long-ago"), 0).await;
    bench.deliver_all(1).await;
    bench.bring(&new("A"), hour * 2).await;
    bench.bring(&event("acknowledged", "A"), hour * 2).await;
    bench.bring(&new("B"), hour * 2).await;
    bench.accept(&new("C"), hour * 2).await;
    let leased = bench.lease(hour * 2).await;
    bench.deliver(&leased[0], hour * 2 + 60_000).await;
    let glance = bench.spool.glance(at(hour * 2 + 60_000)).await.unwrap();
    let counts = (
        glance.accepted,
        glance.behind,
        glance.waiting,
        glance.sending,
    );
    assert_eq!(counts, (1, 0, 1, 1));
    assert_eq!((glance.dead_letters, glance.open_tickets), (0, 2));
    assert_eq!(glance.teams["ops"].unfinished(), 3);
    assert_eq!(glance.overdue["ops"], at(hour * 2));
    assert_eq!(glance.minutes.len(), MINUTES);
    let minute = |mails, alerts| Minute { mails, alerts };
    assert_eq!(glance.minutes[58..], [minute(4, 0), minute(0, 1)]);
    assert!(glance.minutes[..58].iter().all(|one| *one == minute(0, 0)));
    assert!(!glance.is_cut_off);
}

async fn an_empty_store_answers_all_of_it(store: Store) {
    let bench = Bench::new(store).await;
    assert_eq!(found(&bench, query()).await, []);
    assert_eq!(found(&bench, text("x")).await, []);
    assert_eq!(found(&bench, stage("undropped")).await, []);
    let glance = bench.spool.glance(at(0)).await.unwrap();
    assert!(glance.minutes.iter().all(|one| *one == Minute::default()));
    assert!(bench.spool.tickets(None, 9).await.unwrap().is_empty());
}

async fn open_tickets_come_in_pages(store: Store) {
    let bench = Bench::new(store).await;
    for (index, id) in ["A", "B", "C", "D"].into_iter().enumerate() {
        let ms = i64::try_from(index).unwrap() / 2 * 10;
        bench.bring(&new(id), ms).await;
        bench.deliver_all(ms).await;
    }
    bench.bring(&event("resolved", "B"), 20).await;
    bench.bring(&event("acknowledged", "A"), 21).await;
    bench.deliver_all(30).await;
    let first = bench.spool.tickets(None, 2).await.unwrap();
    let names = |tickets: &[mailbell::spool::KnownTicket]| -> Vec<String> {
        tickets.iter().map(|one| one.external_id.clone()).collect()
    };
    assert_eq!(names(&first), ["A", "D"]);
    assert_eq!(first[0].state, TicketState::Acknowledged);
    assert_eq!(first[0].opened, Some(at(0)));
    assert_eq!(first[0].changed, at(30));
    let cursor = TicketCursor {
        changed: first[1].changed,
        team: first[1].team.clone(),
        external_id: first[1].external_id.clone(),
    };
    let rest = bench.spool.tickets(Some(cursor), 2).await.unwrap();
    assert_eq!(names(&rest), ["C"]);
}

async fn what_was_not_understood_is_marked(store: Store) {
    let bench = Bench::new(store).await;
    bench.accept(&new("A"), 0).await;
    let undecided = bench.spool.undecided(1).await.unwrap().mails.remove(0);
    let mut decision = crate::scripted::decision(&new("A"));
    decision.degraded = true;
    let decided = mailbell::spool::Decided {
        delivery: undecided.addressed[0].delivery,
        message_id: None,
        reading: Reading::Decisions(vec![decision]),
    };
    bench.store(vec![decided], 1).await;
    let page = bench.spool.search(query()).await.unwrap();
    assert!(page.mails[0].deliveries[0].is_degraded);
}

on_every_store! {
    mails_are_found_by_what_a_person_knows_of_them,
    mails_are_found_by_their_stage,
    pages_follow_each_other_also_when_their_end_is_gone,
    a_glance_counts_and_draws_the_last_hour,
    an_empty_store_answers_all_of_it,
    open_tickets_come_in_pages,
    what_was_not_understood_is_marked,
}
