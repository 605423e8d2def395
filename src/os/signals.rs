//! Which signals end a wait: signal(7), proc_pid_status(5).

/// The signals of a thread. Each set is a mask whose bit n - 1 is signal n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Signals {
    /// They wait for it or, of a process with threads, for any that does not block them.
    pub pending: u64,
    /// It does not take them now.
    pub blocked: u64,
    /// Its process ignores them.
    pub ignored: u64,
    /// Its process has a handler for them.
    pub caught: u64,
}

/// What ends a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndsBy {
    /// A signal that a handler catches, or that ends the process.
    AnySignal,
    /// Only one that ends the process.
    Fatal,
}

/// By default they stop a process, continue it, or do nothing. A system call that they meet goes on, with or without a stop.
const HARMLESS: [libc::c_int; 8] = [
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
    libc::SIGCONT,
    libc::SIGCHLD,
    libc::SIGURG,
    libc::SIGWINCH,
];

impl Signals {
    /// Those that the thread will meet when it leaves its system call, if not before.
    fn coming(&self) -> u64 {
        self.pending & !self.blocked
    }

    /// Whether the thread will meet any signal.
    pub fn any(&self) -> bool {
        self.coming() != 0
    }

    /// Whether they end a wait of the thread.
    pub fn end(&self, by: EndsBy) -> bool {
        let fatal = self.coming() & !self.caught & !self.ignored & !mask(&HARMLESS);
        let caught = self.coming() & self.caught;
        match by {
            EndsBy::AnySignal => fatal | caught != 0,
            EndsBy::Fatal => fatal != 0,
        }
    }
}

fn mask(signals: &[libc::c_int]) -> u64 {
    signals.iter().fold(0, |mask, signal| mask | 1 << (signal - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that signal(7) calls Term or Core, the real-time signals among them.
    const ENDS_THE_PROCESS: [libc::c_int; 23] = [
        libc::SIGABRT,
        libc::SIGALRM,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGHUP,
        libc::SIGILL,
        libc::SIGINT,
        libc::SIGIO,
        libc::SIGKILL,
        libc::SIGPIPE,
        libc::SIGPROF,
        libc::SIGPWR,
        libc::SIGQUIT,
        libc::SIGSEGV,
        libc::SIGSTKFLT,
        libc::SIGSYS,
        libc::SIGTERM,
        libc::SIGTRAP,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGVTALRM,
        libc::SIGXCPU,
        libc::SIGXFSZ,
    ];

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Disposition {
        Default,
        Ignored,
        Caught,
    }

    fn with_one(signal: libc::c_int, blocks: bool, disposition: Disposition) -> Signals {
        let only_if = |is: bool| if is { mask(&[signal]) } else { 0 };
        Signals {
            pending: mask(&[signal]),
            blocked: only_if(blocks),
            ignored: only_if(disposition == Disposition::Ignored),
            caught: only_if(disposition == Disposition::Caught),
        }
    }

    /// Each signal in each way in which it can be pending, and whether it ends a wait: of any call, of one that only the end of the process ends.
    fn every_one() -> Vec<(Signals, [bool; 2])> {
        let mut all = Vec::new();
        for signal in 1..=64 {
            for disposition in [Disposition::Default, Disposition::Ignored, Disposition::Caught] {
                for blocks in [false, true] {
                    let is_own = disposition != Disposition::Default || blocks;
                    if is_own && (signal == libc::SIGKILL || signal == libc::SIGSTOP) {
                        continue;
                    }
                    let fatal = ENDS_THE_PROCESS.contains(&signal) || signal > 31;
                    let ends = match disposition {
                        _ if blocks => [false, false],
                        Disposition::Default => [fatal, fatal],
                        Disposition::Ignored => [false, false],
                        Disposition::Caught => [true, false],
                    };
                    all.push((with_one(signal, blocks, disposition), ends));
                }
            }
        }
        all
    }

    const WAYS: [EndsBy; 2] = [EndsBy::AnySignal, EndsBy::Fatal];

    #[test]
    fn every_signal_ends_the_waits_that_it_ends_elsewhere() {
        assert_eq!(ENDS_THE_PROCESS.len() + HARMLESS.len(), 31);
        for (signals, ends) in every_one() {
            assert_eq!(WAYS.map(|by| signals.end(by)), ends, "{signals:?}");
            assert_eq!(signals.any(), signals.blocked == 0, "{signals:?}");
        }
        assert_eq!(WAYS.map(|by| Signals::default().end(by)), [false, false]);
    }

    #[test]
    fn of_two_signals_each_counts_for_itself() {
        let all = every_one();
        for (one, ends) in &all {
            for (other, others) in all.iter().filter(|(other, _)| one.pending != other.pending) {
                let both = Signals {
                    pending: one.pending | other.pending,
                    blocked: one.blocked | other.blocked,
                    ignored: one.ignored | other.ignored,
                    caught: one.caught | other.caught,
                };
                let either = [ends[0] || others[0], ends[1] || others[1]];
                assert_eq!(WAYS.map(|by| both.end(by)), either, "{both:?}");
            }
        }
    }

    #[test]
    fn what_is_not_pending_ends_nothing() {
        for (signals, _) in every_one() {
            let none = Signals { pending: 0, ..signals };
            assert_eq!(WAYS.map(|by| none.end(by)), [false, false]);
        }
    }
}
