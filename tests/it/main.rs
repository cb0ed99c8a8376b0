//! The one integration binary: every test that needs more than one room, or a real peer.

mod configuration;
mod dialogs;
mod door;
mod golden;
mod samotop;
