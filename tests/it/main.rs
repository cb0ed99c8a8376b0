//! The one integration binary: every test that needs more than one room, or a real peer.

mod commands;
#![allow(
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, not what they call"
)]

mod configuration;
mod corpus;
mod dialogs;
mod door;
mod golden;
mod program;
mod tidy;
mod reading;
mod samotop;
mod reading;
mod rules;
mod tidy;
