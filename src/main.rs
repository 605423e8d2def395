//! The `concord` command: parse, run, exit code.

fn main() -> std::process::ExitCode {
    concordfs::cli::run()
}
