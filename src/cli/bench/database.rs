//! A database of its own on the PostgreSQL server that the user names. Dropped with it.

use anyhow::Context;
use secrecy::ExposeSecret;

use crate::cli::tell;
use crate::config;
use crate::spool::postgres;

#[derive(Debug)]
pub(super) struct Database {
    server: config::Postgres,
    name: String,
}

impl Database {
    /// `server`: a URL whose user may create databases.
    pub(super) async fn create(server: &str) -> anyhow::Result<Database> {
        let server = config::Postgres {
            url: server.into(),
            ca_file: None,
        };
        let name = format!("mailbell_bench_{:08x}", fastrand::u32(..));
        postgres::execute(&server, &format!("CREATE DATABASE {name}"))
            .await
            .context("--spool: a database for the benchmark")?;
        Ok(Database { server, name })
    }

    /// The server's URL, but for the database. May hold a password.
    pub(super) fn url(&self) -> String {
        let server = self.server.url.expose_secret();
        let (address, parameters) = match server.split_once('?') {
            Some((address, parameters)) => (address, format!("?{parameters}")),
            None => (server, String::new()),
        };
        let authority = address.find("://").map_or(0, |at| at + 3);
        let end = address
            .bytes()
            .skip(authority)
            .position(|byte| byte == b'/')
            .map_or(address.len(), |at| authority + at);
        let address = address.get(..end).unwrap_or_default();
        format!("{address}/{}{parameters}", self.name)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let server = self.server.clone();
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // The runtime that we are on may be about to end.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async { Ok(postgres::execute(&server, &sql).await?) })
        });
        let dropped: anyhow::Result<()> = dropping
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("a panic")));
        if let Err(error) = dropped {
            tell(format_args!(
                "mailbell: the database {} stays: {error:#}",
                self.name
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_changes_in_the_url() {
        let of = |url: &str| {
            let database = std::mem::ManuallyDrop::new(Database {
                server: config::Postgres {
                    url: url.into(),
                    ca_file: None,
                },
                name: "own".to_owned(),
            });
            database.url()
        };
        assert_eq!(of("postgres://u:p@h:1/db"), "postgres://u:p@h:1/own");
        assert_eq!(
            of("postgres://h?sslmode=require"),
            "postgres://h/own?sslmode=require"
        );
        assert_eq!(
            of("postgresql://h/?host=/run/x"),
            "postgresql://h/own?host=/run/x"
        );
    }
}
