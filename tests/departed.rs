//! Who finds a file by a coordinated name, and opens it when it has just left for an ordinary one: he means what the coordinated name leads to. fanotify(7) lets the
//! test hold a thread between its walk and its open. Needs root, for that.

mod support;

use support::puppet::Puppet;
use support::{Project, Running, succeed, watchdog};

/// Holds whoever opens `f.md`, the one inode that it is now, until it is let on.
const GATE: &str = "import struct
libc = ctypes.CDLL(None, use_errno=True)
def shut(name):
    global gate
    gate = libc.fanotify_init(0x4, os.O_RDONLY)
    if gate < 0 or libc.fanotify_mark(gate, 1, ctypes.c_uint64(0x10000), -100, name.encode()):
        raise OSError(ctypes.get_errno(), 'fanotify')
def somebody_comes():
    global held
    held = struct.unpack('IBBHQii', os.read(gate, 24))[5]
def let_on():
    os.write(gate, struct.pack('iI', held, 1))
    os.close(held)
    os.close(gate)";

/// Opens as it is told, and does what one does with such a handle.
const OPENER: &str = "import os, sys
flags = {'write': os.O_WRONLY, 'empty': os.O_WRONLY | os.O_TRUNC, 'append': os.O_WRONLY | os.O_APPEND, 'read': os.O_RDONLY}[sys.argv[1]]
try:
    fd = os.open('f.md', flags | (os.O_CREAT if sys.argv[2] == 'creates' else 0), 0o644)
    if sys.argv[1] == 'read':
        print(os.read(fd, 100).decode())
    else:
        os.write(fd, b'saved')
        os.close(fd)
        print('ok')
except OSError as error:
    print(error.strerror)";

fn opens(project: &Project, how: &str, creates: bool) -> Running {
    let mut opener = project.python(OPENER);
    opener.args([how, if creates { "creates" } else { "finds" }]);
    Running::start(opener)
}

#[test]
fn w8_who_opens_a_file_that_is_just_leaving_for_an_ordinary_name_gets_what_the_coordinated_one_leads_to() {
    watchdog();
    let project = Project::with(&[]);
    let mut mover = Puppet::new(&project);
    assert_eq!(mover.does(&GATE.replace('\n', "\x1f")), "ok");
    let leaves = [
        ("exchange('x.tmp', 'f.md')", "x.tmp", true),
        (
            "(os.link('f.md', 'o.txt'), os.rename('x.tmp', 'f.md'))[0]",
            "o.txt",
            true,
        ),
        ("os.rename('f.md', 'f.old')", "f.old", false),
        ("(os.link('f.md', 'o.txt'), os.unlink('f.md'))[0]", "o.txt", false),
    ];
    for (step, name, is_there) in leaves {
        for how in ["write", "empty", "append", "read"] {
            for creates in [false, true] {
                succeed(project.sh("rm -f f.md x.tmp o.txt f.old; printf old > f.md; printf new > x.tmp"));
                let refused = mover.does("shut('f.md')");
                if refused != "None" {
                    eprintln!("fanotify: {refused}: not tested");
                    return;
                }
                let mut opener = opens(&project, how, creates);
                for step in ["somebody_comes()", step, "let_on()"] {
                    assert_eq!(mover.does(step), "None");
                }
                let said = opener.hear();
                let case = format!("{step}, {how}, {creates}");
                assert_eq!(project.read(name), "old", "{case}");
                match (how, is_there || creates) {
                    (_, false) => assert_eq!(said, "No such file or directory", "{case}"),
                    ("read", _) => assert_eq!(said, if is_there { "new" } else { "" }, "{case}"),
                    _ => {
                        assert_eq!(said, "ok", "{case}");
                        let appended = how == "append" && is_there;
                        assert_eq!(
                            project.read("f.md"),
                            if appended { "newsaved" } else { "saved" },
                            "{case}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn o1_who_opens_a_file_by_the_ordinary_name_that_it_has_just_got_has_that_file() {
    watchdog();
    let project = Project::with(&[("f.md", "old"), ("x.tmp", "new")]);
    let mut puppet = Puppet::new(&project);
    succeed(project.sh("echo -n mine > f.md"));
    assert_eq!(puppet.does("exchange('x.tmp', 'f.md')"), "None");
    let before = project.history("f.md").len();
    for (number, flags) in ["os.O_WRONLY", "os.O_RDWR | os.O_CREAT", "os.O_WRONLY | os.O_TRUNC"]
        .iter()
        .enumerate()
    {
        assert_eq!(puppet.does(&format!("put('x.tmp', 'by {number}', {flags})")), "None");
        assert_eq!(project.read("x.tmp"), format!("by {number}"));
    }
    assert_eq!(puppet.does("os.truncate('x.tmp', 2)"), "None");
    assert_eq!(
        (project.read("x.tmp"), project.read("f.md")),
        ("by".into(), "new".into())
    );
    assert_eq!(project.history("f.md").len(), before);
}

/// Holds each open(2) of one process in the mount until it is let on.
const GATE_OF_ONE: &str = "import struct
libc = ctypes.CDLL(None, use_errno=True)
comes = threading.Semaphore(0)
def shut(whose):
    global gate
    gate = libc.fanotify_init(0x4, os.O_RDONLY)
    if gate < 0 or libc.fanotify_mark(gate, 0x11, ctypes.c_uint64(0x10000), -100, b'.'):
        raise OSError(ctypes.get_errno(), 'fanotify')
    threading.Thread(target=watch, args=(whose,), daemon=True).start()
def watch(whose):
    global held
    while True:
        for event in struct.iter_unpack('IBBHQii', os.read(gate, 24)):
            fd, pid = event[5:]
            if pid == whose:
                held = fd
                comes.release()
            else:
                let_on(fd)
def let_on(fd):
    os.write(gate, struct.pack('iI', fd, 1))
    os.close(fd)";

/// The name that stands for all of a file's goes while a thread is on its way by another one, and the file has a writer by that already.
#[test]
fn w8_w2_who_was_sent_round_by_one_name_waits_its_turn_though_the_other_is_gone() {
    for how in ["os.O_WRONLY", "os.O_WRONLY | os.O_TRUNC"] {
        watchdog();
        let project = Project::with(&[("a.md", "v1")]);
        let [mut reader, mut holder, mut saver, mut gate] = [(); 4].map(|()| Puppet::new(&project));
        assert_eq!(gate.does(&GATE_OF_ONE.replace('\n', "\x1f")), "ok");
        assert_eq!(
            gate.does("os.link('a.md', 'b.md'), put('a.md', 'linked')"),
            "(None, None)"
        );
        assert_eq!(reader.does("f = open('b.md'); f.read()"), "ok");
        let whose = saver.does("os.getpid()");
        let refused = gate.does(&format!("shut({whose})"));
        if refused != "None" {
            eprintln!("fanotify: {refused}: not tested");
            return;
        }
        saver.starts(&format!("put('b.md', 'SAVED', {how})"));
        // Its first open; then it has been sent round, and has found a node of its own.
        assert_eq!(
            gate.does("comes.acquire(), let_on(held), comes.acquire()"),
            "(True, None, True)"
        );
        assert_eq!(gate.does("os.unlink('a.md')"), "None");
        assert_eq!(holder.does("f = open('b.md', 'r+')"), "ok");
        assert_eq!(gate.does("let_on(held)"), "None");
        project.await_sessions(1, 1);
        assert_eq!(holder.does("f.close()"), "None");
        assert_eq!(saver.says(), "None", "{how}");
        let saved = if how.contains("TRUNC") { "SAVED" } else { "SAVEDd" };
        assert_eq!(project.read("b.md"), saved);
        assert!(!project.path("a.md").exists());
    }
}
