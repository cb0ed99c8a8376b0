//! The one integration binary: every test that needs more than one room, or a real peer.

mod commands;
mod configuration;
mod corpus;
mod golden;
mod program;
mod tidy;
mod reading;
