#![forbid(unsafe_code)]

pub mod alert;
pub mod cli;
pub mod clock;
pub mod config;
pub mod deliver;
pub mod diagnostic;
pub mod document;
pub mod gateway;
pub mod limits;
pub mod message;
pub mod observe;
pub mod pipeline;
pub mod rules;
pub mod smtp;
pub mod spool;
pub mod standin;
pub mod web;
