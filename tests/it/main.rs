//! The one integration binary: every test that needs more than one room, or a real peer.

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
