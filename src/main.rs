#![forbid(unsafe_code)]
//! Arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailbell::cli::run()
}
