//! What becomes of a log when its name, or its file, changes (W10).

use std::sync::Arc;

use rustix::fs::Stat;

use super::Coordination;
use super::append_log::{Live, Log, State, lock_both};
use crate::mount::attr;
use crate::mount::nodes::Name;

impl Coordination {
    /// The name leads to another file now; whoever appends goes on there.
    pub(super) fn replaced(&self, state: &mut State) {
        if state.appenders == 0 || !matches!(state.live, Live::Open(_) | Live::Idle) {
            return;
        }
        let name = state.name.clone();
        let continued = self
            .open_to_append(&name)
            .and_then(|file| self.continue_on(state, file));
        if let Err(errno) = continued {
            log::error!(
                "what is appended to {} is kept in recovered/ from now on: {errno}",
                name.name.to_string_lossy()
            );
            self.removed(state);
        }
    }

    /// The file was removed: what its appenders still write has no place to go.
    pub(super) fn removed(&self, state: &mut State) {
        self.logs.forget(&state.name);
        self.stop(state, Live::Gone);
    }

    /// The file has an ordinary name now: its appenders follow it.
    pub(super) fn departed(&self, state: &mut State) {
        self.logs.forget(&state.name);
        if let Some(current) = self.stop(state, Live::Gone) {
            state.live = Live::Departed(current.file);
        }
    }

    /// The file has another name now, whose log `to` is; its appenders follow it. What had that name before was replaced.
    pub(super) fn renamed_log(&self, state: &mut State, (to, target): (&Arc<Log>, &mut State)) {
        self.logs.forget(&state.name);
        let appenders = std::mem::take(&mut state.appenders);
        let before = std::mem::replace(&mut state.live, Live::Moved(Arc::clone(to)));
        match (before, &target.live) {
            (before, Live::Open(_)) => {
                if let Live::Open(current) = before {
                    self.logs.shrunk(&current);
                }
                self.replaced(target);
            }
            (Live::Open(current), _) => target.live = Live::Open(current),
            (_, _) => {}
        }
        target.appenders += appenders;
    }

    /// A name may lead elsewhere now, without the store: its file, whose stat this was, has other names. Its lock goes on under one of those. Who appends goes on with what
    /// the name leads to, else with the file.
    pub(super) fn name_changed(&self, name: &Name, before: &Stat) {
        let was = attr::identity(before, false);
        let now = self.stat_backing(name).ok().map(|stat| attr::identity(&stat, false));
        if now == Some(was) {
            return;
        }
        let other = self.other_name_of(name, before);
        self.lock_goes_on(name, before, other.as_ref());
        if !self.logs.is_used(name) {
            return;
        }
        let log = self.logs.of(name);
        match other.filter(|_| now.is_none()) {
            Some(other) => {
                let to = self.logs.of(&other);
                let mut locked = lock_both(&log, &to);
                self.settle_growth(&mut locked.0);
                self.settle_growth(&mut locked.1);
                self.renamed_log(&mut locked.0, (&to, &mut locked.1));
            }
            None => {
                let mut state = log.lock();
                self.settle_growth(&mut state);
                match now {
                    Some(_) => self.replaced(&mut state),
                    None => self.departed(&mut state),
                }
            }
        }
    }
}
