//! A Python process that does, one after the other, what the test tells it: each line is one step of a program of its own.
#![allow(dead_code)]

use super::{Project, Running};

/// Reads a line, runs it, prints the value of an expression, `ok` after a statement, or the name of the errno that it failed with.
const PROGRAM: &str = r#"
import ctypes, errno, fcntl, mmap, os, signal, socket, subprocess, sys, threading, time
def attempt(line):
    try:
        code = compile(line, 'told', 'eval')
    except SyntaxError:
        exec(line, globals())
        return 'ok'
    return eval(code, globals())
def put(name, text, flags=os.O_WRONLY | os.O_CREAT | os.O_TRUNC):
    fd = os.open(name, flags, 0o666)
    os.write(fd, text.encode())
    os.close(fd)
def get(name):
    fd = os.open(name, os.O_RDONLY)
    text = os.read(fd, 1 << 20).decode()
    os.close(fd)
    return text
def raw(call, *arguments):
    function = getattr(ctypes.CDLL(None, use_errno=True), call)
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), call)
def exchange(a, b):
    raw('renameat2', -100, a.encode(), -100, b.encode(), 2)
for line in iter(sys.stdin.readline, ''):
    try:
        answer = attempt(line.strip('\n').replace('\x1f', '\n'))
    except OSError as error:
        answer = errno.errorcode[error.errno]
    except Exception as error:
        answer = repr(error)
    print(answer, flush=True)
"#;

/// The process; its working directory is the project.
pub struct Puppet(pub Running);

impl Puppet {
    /// Starts one.
    pub fn new(project: &Project) -> Puppet {
        Puppet(Running::start(project.python(PROGRAM)))
    }

    /// Starts one by a command that runs another, such as nsenter(1).
    pub fn by(project: &Project, mut runner: std::process::Command) -> Puppet {
        runner.args(["python3", "-c", PROGRAM]).current_dir(project.root());
        Puppet(Running::start(runner))
    }

    /// Tells it to do something and returns how that went.
    pub fn does(&mut self, step: &str) -> String {
        self.starts(step);
        self.says()
    }

    /// Tells it to do something that may wait; [`Puppet::says`] tells how it went.
    pub fn starts(&mut self, step: &str) {
        self.0.say(&step.replace('\n', "\x1f"));
    }

    /// What came of the last step.
    pub fn says(&mut self) -> String {
        self.0.hear()
    }
}
