#![forbid(unsafe_code)]
#![doc = include_str!("ARCHITECTURE.md")]
//!
//! The modules, in the order in which the data flows.

// They panic when their reader is gone or their disk is full: nothing of it may depend on that.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod limits;

pub mod clock;
pub mod diagnostic;
pub mod document;
pub mod folder;
pub mod need;
pub mod trust;

pub mod config;

pub mod smtp;

pub mod spool;

pub mod message;

pub mod rules;

pub mod alert;

pub mod deliver;

pub mod pipeline;

pub mod observe;

pub mod alarms;

pub mod web;

pub mod gateway;
pub mod own_door;
pub mod standin;

pub mod cli;

#[cfg(test)]
#[path = "../tests/it/golden.rs"]
pub mod golden;
