//! Databases in the PostgreSQL cluster that `tests/run` has started, and clusters of a test's own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use mailbell::config;
use tempfile::TempDir;
use tokio_postgres::NoTls;

static NEXT: AtomicU32 = AtomicU32::new(0);

fn cluster() -> String {
    std::env::var("MAILBELL_TEST_POSTGRES").expect(
        "MAILBELL_TEST_POSTGRES is not set: `tests/run` starts PostgreSQL and runs the tests",
    )
}

async fn command(sql: &str) {
    execute(&cluster(), sql).await;
}

async fn execute(url: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
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

    pub async fn execute(&self, sql: &str) {
        execute(&self.url(), sql).await;
    }

    /// The one number that a query finds.
    pub async fn number(&self, sql: &str) -> i64 {
        let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        let number = client.query_one(sql, &[]).await.unwrap().get(0);
        drop(client);
        let _ = driver.await;
        number
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

/// A PostgreSQL of a test's own, which may be stopped as no other test's may. Gone when dropped.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    port: u16,
}

impl Cluster {
    pub fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            let chown = Command::new("chown")
                .arg("postgres:")
                .arg(folder.path())
                .status();
            assert!(chown.unwrap().success());
        }
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().port()
        };
        let cluster = Cluster { folder, port };
        let data = cluster.data();
        let made = program("initdb")
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
            ])
            .args(["-D", &data])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        cluster.control(&["start"]);
        cluster
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// As if its machine had died, and come back.
    pub fn crash_and_restart(&self) {
        self.control(&["restart", "-m", "immediate"]);
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn control(&self, arguments: &[&str]) {
        let folder = self.folder.path().display();
        let options = format!("-p {} -k {folder} -c listen_addresses=127.0.0.1", self.port);
        let done = program("pg_ctl")
            .args(arguments)
            .args(["-w", "-s", "-o", &options, "-D", &self.data()])
            .args(["-l", &format!("{folder}/log")])
            .status()
            .unwrap();
        assert!(done.success(), "pg_ctl {arguments:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = program("pg_ctl")
            .args(["stop", "-m", "immediate", "-s", "-D", &self.data()])
            .status();
    }
}

/// One of PostgreSQL's programs, which refuse to be run by root.
fn program(name: &str) -> Command {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("tests/run installs PostgreSQL")
        .map(|version| version.unwrap().path())
        .collect();
    versions.sort();
    let path = versions.pop().unwrap().join("bin").join(name);
    if !rustix::process::geteuid().is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
        .arg(path);
    command
}
