//! When a system call has returned, nobody finds the file still taken by it.

mod support;

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use support::{Project, Running, watchdog};

const ROUNDS: usize = 300;

/// A child that one test starts has the descriptors of the other's until it is in execve(2): a close by the one would not be the last.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn w8_a_name_that_was_unlinked_is_free_at_once() {
    watchdog();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let project = Project::with(&[]);
    let path = project.path("a.md");
    for round in 0..ROUNDS {
        let mut file = File::create_new(&path).unwrap_or_else(|error| panic!("round {round}: {error}"));
        file.write_all(b"content").unwrap();
        drop(file);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn w2_who_does_not_wait_gets_a_file_that_was_just_closed() {
    watchdog();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let project = Project::with(&[("a.md", "v1\n")]);
    let mut writer = Running::start(project.python(
        "import sys\nprint('ready',flush=True)\nfor line in sys.stdin:\n f=open('a.md','w'); f.write(line); f.close(); print('closed',flush=True)",
    ));
    let mut other = Running::start(project.python(
        "import os,sys\nprint('ready',flush=True)\nfor line in sys.stdin:\n try: os.close(os.open('a.md',os.O_WRONLY|os.O_NONBLOCK)); print('got it',flush=True)\n except OSError as e: print(e,flush=True)",
    ));
    assert_eq!((writer.hear(), other.hear()), ("ready".into(), "ready".into()));
    for round in 0..ROUNDS {
        writer.say("x");
        assert_eq!(writer.hear(), "closed");
        other.say("");
        assert_eq!(other.hear(), "got it", "round {round}");
    }
}
