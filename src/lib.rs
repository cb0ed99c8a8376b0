#![forbid(unsafe_code)]
#![doc = include_str!("ARCHITECTURE.md")]
//!
//! The modules, in the order in which the data flows.

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
pub mod standin;

pub mod cli;

#[cfg(test)]
#[path = "../tests/it/golden.rs"]
pub mod golden;
