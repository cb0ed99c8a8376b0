//! The stores.

/// Each of the tests as one for each store.
macro_rules! on_every_store {
    ($($test:ident,)*) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(crate::spool::bench::Store::Sqlite).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test]
                async fn $test() {
                    super::$test(crate::spool::bench::Store::Postgres).await;
                }
            )*
        }
    };
}

pub mod bench;
mod conformance;
mod postgres;
mod search;
mod sqlite;
mod storms;
