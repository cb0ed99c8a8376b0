//! A store with the steps of the pipeline, done by hand.

use std::sync::Arc;
use std::time::Duration;

use mailbell::clock::Time;
use mailbell::config::Storm;
use mailbell::deliver::schedule::Progress;
use mailbell::spool::postgres::{Postgres, execute};
use mailbell::spool::sqlite::Sqlite;
use mailbell::spool::{
    Ask, Attempt, Budget, Decided, Deciding, Effects, Ending, Filter, Leased, MailId, Reading,
    Settled, Settlement, Spool, Step,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::database::Database;
use crate::scripted::{decisions, mail};

pub const PLENTY: Budget = Budget {
    new: usize::MAX,
    other: usize::MAX,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    Postgres,
}

/// Where the store is kept.
pub enum Home {
    Folder(TempDir),
    Database(Database),
}

impl Home {
    pub async fn new(store: Store) -> Home {
        match store {
            Store::Sqlite => Home::Folder(tempfile::tempdir().unwrap()),
            Store::Postgres => Home::Database(Database::create().await),
        }
    }

    pub async fn open(&self) -> Arc<dyn Spool> {
        match self {
            Home::Folder(folder) => {
                let path = folder.path().join("data/spool.db");
                Arc::new(Sqlite::open_gateway(&path).unwrap())
            }
            Home::Database(database) => {
                let opened = Postgres::open_gateway(&database.config(), "a node").await;
                Arc::new(opened.unwrap())
            }
        }
    }
}

impl Home {
    /// From now on the store refuses whatever has the title `poison`.
    pub async fn refuse_poison(&self) {
        match self {
            Home::Folder(_) => self.execute(
                "CREATE TRIGGER refuse BEFORE UPDATE ON deliveries WHEN NEW.title = 'poison'
                 BEGIN SELECT RAISE(ABORT, 'refused_by_the_test'); END",
            ),
            Home::Database(_) => self.execute(
                "ALTER TABLE deliveries ADD CONSTRAINT refused_by_the_test CHECK (title <> 'poison')",
            ),
        }
        .await;
    }

    pub async fn execute(&self, sql: &str) {
        match self {
            Home::Folder(folder) => {
                let path = folder.path().join("data/spool.db");
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.execute_batch(sql).unwrap();
            }
            Home::Database(database) => database.execute(sql).await,
        }
    }

    /// Pieces of whatever mails.
    pub async fn pieces(&self) -> i64 {
        let sql = "SELECT count(*) FROM pieces";
        match self {
            Home::Folder(folder) => {
                let path = folder.path().join("data/spool.db");
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.query_row(sql, (), |row| row.get(0)).unwrap()
            }
            Home::Database(database) => database.number(sql).await,
        }
    }
}

impl Home {
    /// From now on the store takes no mail: what else there is to write, it writes.
    pub async fn take_no_mail(&self) {
        match self {
            Home::Folder(folder) => {
                let path = folder.path().join("data/spool.db");
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.execute_batch(NO_MAIL).unwrap();
            }
            Home::Database(database) => {
                let sql = "ALTER TABLE bodies ADD CONSTRAINT no_mail CHECK (false) NOT VALID";
                execute(&database.config(), sql).await.unwrap();
            }
        }
    }
}

/// A file of SQLite takes no mail, and what has ended does not begin again.
pub const NO_MAIL: &str = "CREATE TRIGGER no_mail BEFORE INSERT ON bodies
    BEGIN SELECT RAISE(ABORT, 'no room'); END;
    CREATE TRIGGER no_repair BEFORE UPDATE ON deliveries WHEN old.stage = 4 AND new.stage <> 4
    BEGIN SELECT RAISE(ABORT, 'no room'); END";

pub struct Bench {
    pub spool: Arc<dyn Spool>,
    pub home: Home,
    pub storm: Option<Storm>,
}

pub fn at(ms: i64) -> Time {
    Time::from_ms(1_700_000_000_000 + ms)
}

impl Bench {
    pub async fn new(store: Store) -> Bench {
        let home = Home::new(store).await;
        Bench {
            spool: home.open().await,
            home,
            storm: None,
        }
    }

    /// The gateway stops, and starts again.
    pub async fn restart(self) -> Bench {
        let Bench { spool, home, storm } = self;
        spool.close().await.unwrap();
        drop(spool);
        Bench {
            spool: home.open().await,
            home,
            storm,
        }
    }

    pub async fn accept(&self, script: &Value, ms: i64) -> MailId {
        self.spool
            .accept(mail("ops", script), at(ms))
            .await
            .unwrap()
    }

    /// Decides all that is undecided, as its script says.
    pub async fn decide(&self, ms: i64) -> Vec<Settled> {
        let mut decided = Vec::new();
        for mail in self.spool.undecided(1000).await.unwrap().mails {
            let text = String::from_utf8_lossy(&mail.raw).into_owned();
            let message_id = text
                .split_once("Message-ID: ")
                .map(|(_, rest)| rest.split("\r\n").next().unwrap_or_default().to_owned());
            for addressed in mail.addressed.clone() {
                decided.push(Decided {
                    delivery: addressed.delivery,
                    message_id: message_id.clone(),
                    reading: Reading::Decisions(decisions(&mail.raw)),
                });
            }
        }
        self.store(decided, ms).await
    }

    pub async fn store(&self, decided: Vec<Decided>, ms: i64) -> Vec<Settled> {
        let deciding = Deciding {
            decided: decided.into(),
            storm: self.storm,
            asks: Vec::new(),
            budget: PLENTY,
        };
        self.spool.decide(deciding, at(ms)).await.unwrap().settled
    }

    /// Accepts and decides.
    pub async fn bring(&self, script: &Value, ms: i64) -> Vec<Settled> {
        self.accept(script, ms).await;
        self.decide(ms).await
    }

    pub async fn lease_for(&self, asks: &[(&str, usize)], budget: Budget, ms: i64) -> Effects {
        let asks = asks
            .iter()
            .map(|(team, slots)| Ask {
                team: (*team).to_owned(),
                slots: *slots,
                paced: true,
                since_before: None,
            })
            .collect();
        self.spool.lease(asks, budget, at(ms)).await.unwrap()
    }

    pub async fn lease(&self, ms: i64) -> Vec<Leased> {
        self.lease_for(&[("ops", 100)], PLENTY, ms).await.leased
    }

    pub async fn settle(&self, leased: &Leased, step: Step, ms: i64) -> Vec<Settled> {
        let settlement = Settlement {
            delivery: leased.delivery,
            lease: leased.lease,
            attempts: vec![Attempt {
                at: at(ms),
                took: Duration::from_millis(3),
                transport: "webhook".to_owned(),
                result: "some".to_owned(),
                answer: "an answer".to_owned(),
            }],
            progress: Progress::default(),
            step,
        };
        let settling = self.spool.settle(vec![settlement], at(ms));
        settling.await.unwrap().settled
    }

    pub async fn deliver(&self, leased: &Leased, ms: i64) {
        let ending = match leased.alert.status.as_str() {
            "new" => Ending::Alerted,
            "acknowledged" => Ending::Acknowledged,
            _ => Ending::Resolved,
        };
        self.settle(leased, Step::End(ending, "201".to_owned()), ms)
            .await;
    }

    /// Delivers all that is due, and returns `status id` of each in the order of sending.
    pub async fn deliver_all(&self, ms: i64) -> Vec<String> {
        let mut sent = Vec::new();
        loop {
            let lease = self.lease_for(&[("ops", 100)], PLENTY, ms).await;
            if lease.leased.is_empty() && lease.settled.is_empty() {
                return sent;
            }
            for one in &lease.leased {
                sent.push(named(one));
                self.deliver(one, ms).await;
            }
        }
    }

    pub async fn outcomes(&self) -> Vec<String> {
        let mut list = self.spool.list(Filter::default(), 1000).await.unwrap();
        list.reverse();
        list.iter()
            .map(|one| format!("{}: {}", one.stage.as_str(), one.reason))
            .collect()
    }

    pub async fn assert_balanced(&self) {
        let audit = self.spool.audit().await.unwrap();
        assert!(audit.balances(), "{:?}", audit.problems);
        if let Home::Database(database) = &self.home {
            let sql = "SELECT coalesce(sum(bytes), 0)::bigint FROM mails";
            let bytes = u64::try_from(database.number(sql).await).unwrap();
            assert_eq!(self.spool.bytes().await.unwrap(), bytes);
        }
    }
}

pub fn named(leased: &Leased) -> String {
    let id = leased.alert.external_id.as_ref();
    let id = id.map_or("-", |id| id.as_str());
    format!("{} {id}", leased.alert.status.as_str())
}

pub fn names(leased: &[Leased]) -> Vec<String> {
    leased.iter().map(named).collect()
}
