//! W10 and W6 beside programs that have the file open for writing: whatever they and their relatives do, no line that write(2) has taken is lost or torn, and
//! nobody is refused.

mod support;

use support::puppet::Puppet;
use support::{Project, succeed, watchdog};

/// Three children append beside their parent, which opens the file "r+" time and again. The first argument is what it does with it, the second the flags by
/// which the children open the file, the third how many lines each of them writes, the fourth in how many pieces.
const FAMILY: &str = "import os, subprocess, sys, time
change, flags, lines, pieces = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4]
open('log.jsonl', 'w').close()
APPENDER = '''
import os, sys, time
who, flags, lines, pieces = sys.argv[1], *map(int, sys.argv[2:])
for number in range(lines):
    log = os.open('log.jsonl', flags | os.O_APPEND)
    line = b'<%s %d %s>\\\\n' % (who.encode(), number, b'x' * (number * 37 % 300))
    for piece in range(pieces):
        part = line[len(line) * piece // pieces:len(line) * (piece + 1) // pieces]
        assert os.write(log, part) == len(part)
        if pieces > 1: time.sleep(0.0003)
    os.close(log)
'''
flags = os.O_RDWR if flags == 'a+' else os.O_WRONLY
started = [subprocess.Popen([sys.executable, '-c', APPENDER, str(who), str(flags), lines, pieces]) for who in range(3)]
rounds = 0
while any(one.poll() is None for one in started):
    fd = os.open('log.jsonl', os.O_RDWR)
    text = b''
    while part := os.read(fd, 65536): text += part
    if change == 'rewrite':
        os.ftruncate(fd, 0)
        os.pwrite(fd, text, 0)
    if change == 'in place': os.pwrite(fd, text, 0)
    if change == 'at the end': os.pwrite(fd, b'<own>\\n', os.lseek(fd, 0, 2))
    if change == 'mode': os.fchmod(fd, 0o640 + rounds % 2 * 4)
    if change == 'fsync': os.fsync(fd)
    os.close(fd)
    rounds += 1
    time.sleep(0.01)
assert [one.returncode for one in started] == [0, 0, 0], 'an appender was refused'
written = {b'<%d %d %s>\\n' % (who, number, b'x' * (number * 37 % 300)) for who in range(3) for number in range(int(lines))}
there = [line for line in open('log.jsonl', 'rb') if line != b'<own>\\n']
torn = [line for line in there if line not in written]
assert not torn, 'torn: %r' % torn[:3]
assert len(there) == len(set(there)), 'a line is there twice'
assert len(there) == len(written), '%d of %d lines are lost' % (len(written) - len(there), len(written))
";

fn family(change: &str, flags: &str, lines: u32, pieces: u32) {
    watchdog();
    let project = Project::with(&[("log.jsonl", "")]);
    let mut command = project.python(FAMILY);
    command.args([change, flags, &lines.to_string(), &pieces.to_string()]);
    succeed(command);
}

#[test]
fn w10_children_lose_no_line_beside_a_parent_that_rewrites_the_file() {
    family("rewrite", "a", 500, 1);
}

#[test]
fn w10_children_tear_no_line_beside_a_parent_that_rewrites_the_file() {
    family("rewrite", "a", 200, 2);
}

#[test]
fn w10_children_lose_and_tear_no_line_beside_a_parent_that_changes_a_part() {
    for change in ["in place", "at the end", "mode"] {
        family(change, "a", 150, 2);
    }
}

#[test]
fn w10_no_child_is_refused_beside_a_parent_that_only_looks_or_syncs() {
    for change in ["fsync", "nothing"] {
        family(change, "a", 400, 1);
    }
}

#[test]
fn w6_what_a_child_wrote_to_the_parents_session_is_published_whoever_closes_last() {
    for change in ["fsync", "nothing"] {
        family(change, "a+", 150, 1);
    }
}

#[test]
fn w10_a_childs_lines_come_after_what_its_parent_writes_and_all_others_see_them_at_once() {
    watchdog();
    let project = Project::with(&[("log.jsonl", "first\n")]);
    let mut parent = Puppet::new(&project);
    parent.does("fd = os.open('log.jsonl', os.O_RDWR)");
    parent.does("os.ftruncate(fd, 0)");
    assert_eq!(
        parent.does("subprocess.call(['sh', '-c', 'echo child >> log.jsonl'])"),
        "0"
    );
    assert_eq!(project.read("log.jsonl"), "first\nchild\n");
    // Its own handle too, and there a line has more than one piece.
    parent.does("log = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)");
    parent.does("os.write(log, b'own\\nhalf ')");
    parent.does("os.pwrite(fd, b'rewritten\\n', 0)");
    assert_eq!(project.read("log.jsonl"), "first\nchild\nown\n");
    assert_eq!(parent.does("os.close(fd)"), "None");
    assert_eq!(project.read("log.jsonl"), "rewritten\nchild\nown\n");
    parent.does("os.write(log, b'a line\\n')");
    assert_eq!(parent.does("os.close(log)"), "None");
    assert_eq!(project.read("log.jsonl"), "rewritten\nchild\nown\nhalf a line\n");
}

#[test]
fn w3_a_child_that_appends_to_what_its_parent_is_creating_writes_to_that() {
    watchdog();
    let project = Project::with(&[]);
    let mut parent = Puppet::new(&project);
    parent.does("fd = os.open('new.jsonl', os.O_WRONLY | os.O_CREAT)");
    parent.does("os.write(fd, b'parent\\n')");
    assert_eq!(
        parent.does("subprocess.call(['sh', '-c', 'echo child >> new.jsonl'])"),
        "0"
    );
    assert_eq!(parent.does("os.stat('new.jsonl').st_size"), "13");
    assert!(!project.path("new.jsonl").exists());
    assert_eq!(parent.does("os.close(fd)"), "None");
    assert_eq!(project.read("new.jsonl"), "parent\nchild\n");
}

#[test]
fn w5_handles_that_outlive_their_session_do_not_write_over_each_other() {
    const CHILD: &str = "import os, sys
log = os.open('new.jsonl', os.O_WRONLY | os.O_APPEND)
for step in ['', 'os.write(log, sys.argv[1].encode())', 'os.close(log)']:
    eval(step or '0')
    print('done', flush=True)
    sys.stdin.readline()";
    watchdog();
    let project = Project::with(&[]);
    let mut parent = Puppet::new(&project);
    parent.does(&format!("program = {CHILD:?}"));
    parent.does("fd = os.open('new.jsonl', os.O_WRONLY | os.O_CREAT)");
    parent.does("start = lambda who: subprocess.Popen([sys.executable, '-c', program, who + '\\n'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)");
    parent.does("children = [start('one'), start('two'), start('three')]");
    parent
        .does("step = lambda child: (child.stdin.write('\\n'), child.stdin.flush(), child.stdout.readline()) and None");
    parent.does("[child.stdout.readline() for child in children]");
    // It ends their session by renaming the file.
    assert_eq!(parent.does("os.close(fd)"), "None");
    assert_eq!(parent.does("os.rename('new.jsonl', 'old.jsonl')"), "None");
    parent.does("[step(child) for child in children[:2]]");
    parent.does("[step(child) for child in children[:2]]");
    // One that comes to write when the others have closed it.
    parent.does("step(children[2])");
    parent.does("step(children[2])");
    assert_eq!(
        parent.does("[child.stdin.close() for child in children] and [child.wait() for child in children]"),
        "[0, 0, 0]"
    );
    assert_eq!(project.read("old.jsonl"), "one\ntwo\nthree\n");
}
