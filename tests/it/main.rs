//! The one integration binary: every test that needs more than one room, or a real peer.

#![allow(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "clippy sees tests only in functions marked as such, not in what they share"
)]

mod configuration;
mod corpus;
mod crash;
mod delivery;
mod golden;
mod reading;
mod receiver;
mod scripted;
mod simulation;
mod spool;
mod tidy;
