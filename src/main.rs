#![forbid(unsafe_code)]
//! Arguments in, exit code out; the allocator.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for no huge pages; where the system gives them unasked, an idle gateway would
    // hold half as much again.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    mailbell::cli::run()
}
