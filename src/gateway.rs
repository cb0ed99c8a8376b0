//! Puts the rooms together, and takes them down again without losing anything.
//!
//! Owns the order of starting and draining: what could be wrong is found before a socket is
//! bound, and the door closes before the pipeline does.
