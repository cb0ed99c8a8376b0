//! What is wrong right now, by component; `/readyz` and the log say it.
//!
//! Owns the list only: each room reports its own state, and takes it back when it heals.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The state of the running gateway. Components are few and named by the program, so the list
/// is bounded.
#[derive(Debug, Default)]
pub struct Health {
    problems: Mutex<BTreeMap<String, String>>,
}

impl Health {
    /// `Some(problem)` while something is wrong with the component, `None` once it is well.
    /// True when that is news, so that the caller logs a change and not a state.
    pub fn report(&self, component: &str, problem: Option<String>) -> bool {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        match problem {
            Some(problem) => problems.insert(component.to_owned(), problem.clone()) != Some(problem),
            None => problems.remove(component).is_some(),
        }
    }

    /// Component and problem, sorted by component; empty while all is well.
    pub fn problems(&self) -> Vec<(String, String)> {
        let problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        problems
            .iter()
            .map(|(component, problem)| (component.clone(), problem.clone()))
            .collect()
    }
}
