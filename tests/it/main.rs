//! The one integration binary: every test that needs more than one room, or a real peer.
#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, not what they call"
)]

mod alarms;
mod api;
mod bench;
mod commands;
mod configuration;
mod corpus;
mod crash;
mod database;
mod delivery;
mod deployment;
mod dialogs;
mod doctor;
mod door;
mod gateway;
mod golden;
mod heldout;
mod large;
mod metrics;
mod nodes;
mod operations;
mod program;
mod reading;
mod receiver;
mod rules;
mod samotop;
mod scripted;
mod simulation;
mod spool;
mod stage;
mod steering;
mod tidy;
mod trail;
mod watching;
mod web;
