//! Descriptors that travel: to children and daemons, through sockets, by /proc and pidfd. Each file is published once, when the last of them is closed.

mod support;

use std::time::Duration;

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, Running, eventually, succeed, wait, watchdog};

fn project() -> Project {
    watchdog();
    Project::with(&[("STATE.md", "version one\n")])
}

/// A Python program whose descriptor travels: it is started, says a line when the first part is done, and goes on when it is told to.
fn published_in_the_end(program: &str, versions: usize, content: &str) {
    let project = project();
    let mut started = Running::start(project.python(program));
    let said = started.hear();
    assert_eq!(said, "ready", "{program}");
    std::fs::write(project.outside().join("go"), "").unwrap();
    eventually(&format!("{content}: {program}"), || project.read("STATE.md") == content);
    drop(started.0.stdin.take());
    assert!(wait(&mut started.0, Duration::from_secs(30)).success());
    eventually("no session is open", || {
        project.status()["sessions"].as_array().unwrap().is_empty()
    });
    assert_eq!(project.history("STATE.md").len(), versions, "{program}");
    assert!(project.recovered().is_empty(), "{program}");
}

/// Waits, in a child, for the test's word.
const AWAIT: &str = "import os, subprocess, sys, time
def go():
    while not os.path.exists('../go'): time.sleep(0.005)
fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'parent ')
";

#[test]
fn w5_a_daemonized_child_publishes_once_when_it_closes() {
    let double_fork = "
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(0.2)
        sys.stdout.write('ready\\n'); sys.stdout.flush()
        os.close(1)
        go()
        os.write(fd, b'daemon')
        os._exit(0)
    os._exit(0)
os.wait()
sys.stdin.read()";
    // The parent still has its own descriptor: the version comes with the last of both.
    let project = project();
    let mut parent = Running::start(project.python(&format!("{AWAIT}{double_fork}\nos.close(fd)")));
    assert_eq!(parent.hear(), "ready");
    assert_eq!(project.read("STATE.md"), "version one\n", "not before the last close");
    std::fs::write(project.outside().join("go"), "").unwrap();
    drop(parent.0.stdin.take());
    assert!(wait(&mut parent.0, Duration::from_secs(30)).success());
    eventually("the daemon's words", || project.read("STATE.md") == "parent daemon");
    assert!(project.recovered().is_empty());
}

#[test]
fn w5_a_spawned_child_writes_into_the_session_that_it_was_given() {
    let spawn = "
p = os.posix_spawn('/bin/sh', ['sh', '-c', 'while [ ! -e ../go ]; do sleep 0.01; done; printf child >&7'], os.environ,
    file_actions=[(os.POSIX_SPAWN_DUP2, fd, 7)])
os.close(fd)
print('ready', flush=True)
os.waitpid(p, 0)";
    published_in_the_end(&format!("{AWAIT}{spawn}"), 2, "parent child");
    // vfork: what subprocess uses where it can.
    let vfork = "
os.set_inheritable(fd, True)
p = subprocess.Popen(['sh', '-c', f'while [ ! -e ../go ]; do sleep 0.01; done; printf child >&{fd}'], close_fds=False)
os.close(fd)
print('ready', flush=True)
p.wait()";
    published_in_the_end(&format!("{AWAIT}{vfork}"), 2, "parent child");
    // As its standard output.
    let output = "
p = subprocess.Popen(['sh', '-c', 'while [ ! -e ../go ]; do sleep 0.01; done; printf child'], stdout=fd)
os.close(fd)
print('ready', flush=True)
p.wait()";
    published_in_the_end(&format!("{AWAIT}{output}"), 2, "parent child");
}

#[test]
fn w5_a_child_that_execs_keeps_its_parents_session_open() {
    let program = "
if os.fork() == 0:
    os.set_inheritable(fd, True)
    os.execvp('sh', ['sh', '-c', f'while [ ! -e ../go ]; do sleep 0.01; done; printf child >&{fd}'])
print('ready', flush=True)
os.close(fd)
os.wait()";
    published_in_the_end(&format!("{AWAIT}{program}"), 2, "parent child");
}

#[test]
fn w5_a_descriptor_in_a_socket_that_nobody_reads_is_published_when_it_goes() {
    let project = project();
    let mut giver = Puppet::new(&project);
    giver.does("a, b = socket.socketpair()");
    giver.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    assert_eq!(
        giver.does("os.write(fd, b'sent'), socket.send_fds(a, [b'x'], [fd])"),
        "(4, 1)"
    );
    assert_eq!(giver.does("os.close(fd)"), "None");
    assert_eq!(
        project.read("STATE.md"),
        "sent",
        "the close of the last known one publishes"
    );
    // Received again by the same process: what it writes then follows.
    assert_eq!(giver.does("fd = socket.recv_fds(b, 1, 1)[1][0]"), "ok");
    assert_eq!(giver.does("os.write(fd, b' on'), os.close(fd)"), "(3, None)");
    assert_eq!(project.read("STATE.md"), "sent on");
    // One that was written to and goes with its socket, by nobody's close: it is published all the same.
    giver.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    giver.does("(os.write(fd, b'in flight'), socket.send_fds(a, [b'x'], [fd]))");
    giver.0.signal(Signal::TERM);
    wait(&mut giver.0.0, Duration::from_secs(30));
    eventually("it is published, or kept", || {
        project.read("STATE.md") == "in flight" || !project.recovered().is_empty()
    });
}

#[test]
fn w5_a_daemon_that_outlives_everybody_loses_nothing_and_tears_nothing() {
    // As daemon(3) does it: both parents have gone before the first word of the daemon itself.
    let daemonize = "
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.chdir('/')
print('ready', flush=True)
time.sleep(0.3)
for n in range(20):
    os.write(fd, b'%d ' % n)
    time.sleep(0.01)
os.close(fd)
os.close(0)
os.close(1)
time.sleep(0.2)";
    let project = project();
    let mut parent = Running::start(project.python(&format!("{AWAIT}{daemonize}")));
    assert_eq!(parent.hear(), "ready");
    let whole: String = (0..20).fold("parent ".to_owned(), |text, n| text + &format!("{n} "));
    eventually("all that was written", || {
        let seen = project.read("STATE.md");
        assert!(
            seen == "version one\n" || whole.starts_with(&seen),
            "never anything else: {seen}"
        );
        seen == whole
    });
    let history = project.history("STATE.md");
    assert!(history.len() <= 3, "once, or once late: {history:?}");
    assert!(project.recovered().is_empty());
}

#[test]
fn w3_a_child_that_goes_on_with_its_parents_descriptor_holds_the_session() {
    let project = project();
    // Without waiting, so that a stranger's open would fail at once.
    let program = "import os, time
parent = os.getpid()
fd = os.open('NEW.md', os.O_WRONLY | os.O_CREAT)
os.write(fd, b'parent ')
if os.fork(): os._exit(0)
while os.getppid() == parent: time.sleep(0.005)
two = os.open('NEW.md', os.O_RDWR | os.O_NONBLOCK)
print(os.stat('NEW.md').st_size, os.read(two, 99))
if os.fork() == 0:
    os.write(os.open('NEW.md', os.O_WRONLY | os.O_NONBLOCK), b'PARENT')
    os._exit(0)
os.wait()
os.write(two, b'child')
os.rename('NEW.md', 'NEWER.md')
os.close(two)
os.close(fd)
print(open('NEWER.md').read())";
    let said = succeed(project.python(program));
    let (seen, left) = said.split_once('\n').unwrap();
    assert_eq!(seen, "7 b'parent '");
    assert_eq!(left, "PARENT child\n", "{said}");
}

#[test]
fn w5_children_that_outlive_their_parent_are_one_session_also_when_only_one_has_closed() {
    let project = project();
    let program = "import os, sys, time
parent = os.getpid()
fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)
os.write(fd, b'parent ')
for name in ('one', 'two'):
    if os.fork() == 0:
        for _ in range(12000):
            if os.getppid() != parent and os.path.exists('../' + name): break
            time.sleep(0.005)
        os.write(fd, name.encode())
        os.close(fd)
        print(name, flush=True)
        os._exit(0)
os._exit(0)";
    let mut parent = Running::start(project.python(program));
    for (name, content) in [("one", "version one\n"), ("two", "parent onetwo")] {
        std::fs::write(project.outside().join(name), "").unwrap();
        assert_eq!(parent.hear(), name);
        assert_eq!(project.read("STATE.md"), content);
    }
    assert_eq!(project.history("STATE.md").len(), 2);
    assert_eq!(project.status()["counts"]["late"], 0);
}

/// Who has STATE.md open for writing as `fd` and has written `holder `, and another process that took a copy of the descriptor, its own `fd`.
fn holder_and_thief(project: &Project) -> Option<(Puppet, Puppet)> {
    let (mut holder, mut thief) = (Puppet::new(project), Puppet::new(project));
    holder.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    holder.does("os.write(fd, b'holder ')");
    let number: u32 = holder.does("fd").parse().unwrap();
    let pid = holder.0.pid();
    thief.does("call = ctypes.CDLL(None, use_errno=True).syscall");
    thief.does(&format!("fd = call(438, os.pidfd_open({pid}), {number}, 0)"));
    if thief.does("fd") == "-1" {
        eprintln!("no pidfd_getfd(2) here: not tested");
        return None;
    }
    Some((holder, thief))
}

#[test]
fn w5_a_descriptor_that_another_process_took_is_published_when_it_closes() {
    let project = project();
    let Some((mut holder, mut thief)) = holder_and_thief(&project) else {
        return;
    };
    assert_eq!(holder.does("os.close(fd)"), "None");
    assert_eq!(thief.does("os.write(fd, b'thief'), os.close(fd)"), "(5, None)");
    assert_eq!(project.read("STATE.md"), "holder thief");
    assert!(project.recovered().is_empty());
}

/// It has closed one copy of it before: so it is known to have been given one.
#[test]
fn w5_who_was_given_a_descriptor_and_closed_a_copy_of_it_goes_on_with_the_session() {
    let project = project();
    let Some((mut holder, mut thief)) = holder_and_thief(&project) else {
        return;
    };
    assert_eq!(thief.does("os.close(os.dup(fd))"), "None");
    assert_eq!(holder.does("os.close(fd)"), "None");
    assert_eq!(project.read("STATE.md"), "version one\n", "not before the last close");
    assert_eq!(thief.does("os.write(fd, b'thief'), os.close(fd)"), "(5, None)");
    assert_eq!(project.read("STATE.md"), "holder thief");
    assert_eq!(project.history("STATE.md").len(), 2);
}

#[test]
fn w1_a_strangers_open_through_the_holders_proc_directory_waits_its_turn() {
    let project = project();
    let (mut holder, mut stranger) = (Puppet::new(&project), Puppet::new(&project));
    holder.does("fd = os.open('STATE.md', os.O_WRONLY | os.O_TRUNC)");
    holder.does("os.write(fd, b'holder')");
    let name = format!("/proc/{}/fd/{}", holder.0.pid(), holder.does("fd"));
    assert_eq!(
        stranger.does(&format!("os.open('{name}', os.O_WRONLY | os.O_NONBLOCK)")),
        "EAGAIN"
    );
    stranger.starts(&format!("fd = os.open('{name}', os.O_RDWR)"));
    project.await_sessions(1, 1);
    assert_eq!(holder.does("os.close(fd)"), "None");
    assert_eq!(stranger.says(), "ok");
    assert_eq!(
        stranger.does("os.read(fd, 99), os.write(fd, b' and stranger'), os.close(fd)"),
        "(b'holder', 13, None)"
    );
    assert_eq!(project.read("STATE.md"), "holder and stranger");
    assert_eq!(project.history("STATE.md").len(), 3);
}
