//! Databases in the PostgreSQL cluster that `tests/run` has started.

use std::sync::atomic::{AtomicU32, Ordering};

use mailbell::config;
use tokio_postgres::NoTls;

static NEXT: AtomicU32 = AtomicU32::new(0);

fn cluster() -> String {
    std::env::var("MAILBELL_TEST_POSTGRES").expect(
        "MAILBELL_TEST_POSTGRES is not set: `tests/run` starts PostgreSQL and runs the tests",
    )
}

async fn command(sql: &str) {
    let (client, connection) = tokio_postgres::connect(&cluster(), NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    client.batch_execute(sql).await.unwrap();
    drop(client);
    let _ = driver.await;
}

/// An empty database, dropped with it.
#[derive(Debug)]
pub struct Database {
    name: String,
}

impl Database {
    pub async fn create() -> Database {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("mailbell_{}_{number}", std::process::id());
        command(&format!("CREATE DATABASE {name}")).await;
        Database { name }
    }

    pub fn url(&self) -> String {
        let cluster = cluster();
        let (server, _) = cluster.rsplit_once('/').unwrap();
        format!("{server}/{}", self.name)
    }

    pub fn config(&self) -> config::Postgres {
        config::Postgres {
            url: self.url().into(),
            ca_file: None,
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        // The test's own runtime may be about to end.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(command(&sql));
        });
        let _ = dropping.join();
    }
}
