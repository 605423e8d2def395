//! The queue of writers over all coordinated files, as one pure state machine. No I/O, no clock, no threads.

/// A process: a thread group and when it started, so that a reused pid is another process (contract, "Words").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcId {
    /// Thread group id in the daemon's pid namespace; 0 when the kernel could not tell.
    pub tgid: u32,
    /// Start time in clock ticks since boot, proc_pid_stat(5) field 22.
    pub start: u64,
}

/// One writer's stay: from the open for writing to the close that publishes or discards it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);
