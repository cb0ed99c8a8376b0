#![forbid(unsafe_code)]

pub mod alert;
pub mod cli;
pub mod config;
pub mod diagnostic;
pub mod document;
pub mod limits;
pub mod message;
pub mod rules;
pub mod smtp;
