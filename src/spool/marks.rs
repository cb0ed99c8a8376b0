//! Moments that outlive the process.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::SpoolError;
use crate::clock::Time;

/// Moments, each under a name that the program or the configuration gives.
#[async_trait]
pub trait Marks {
    /// Keeps the latest moment of the name. Durable when it returns.
    async fn mark(&self, name: &str, at: Time) -> Result<(), SpoolError>;

    /// The same, unless its moment is after `before`. Returns whether it was kept: of several gateways
    /// that want to do something once, one may.
    async fn claim(&self, name: &str, at: Time, before: Time) -> Result<bool, SpoolError>;

    async fn marks(&self) -> Result<BTreeMap<String, Time>, SpoolError>;
}
