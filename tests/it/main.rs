//! The one integration binary: every test that needs more than one room, or a real peer.

mod configuration;
mod corpus;
mod golden;
mod tidy;
mod reading;
