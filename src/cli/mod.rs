//! The command line: one file a subcommand.

/// Parses the arguments, runs the subcommand, and returns 0, 1 for "no" or 2 for usage.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::from(2)
}
