#![forbid(unsafe_code)]
//! Arguments in, exit code out.

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Where the system gives huge pages unasked, an idle gateway would hold twice the memory.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    mailbell::cli::run()
}
