//! W10 beside whoever renames, copies, empties or removes the log, and programs that do so: on a plain filesystem no line that write(2) has taken is lost by that,
//! and nobody who would create the file is refused.

mod support;

use std::collections::BTreeSet;

use support::puppet::Puppet;
use support::twin::{Twin, lacks};
use support::{Project, succeed, watchdog};

/// Six processes append to `log.jsonl` by opening it with O_CREAT, writing a line and closing it, until another one has rotated it so many times. Arguments: how, how
/// often, in how many pieces a line is written, and where to note things down. What is wrong is an assertion; the lines that were taken are printed.
const ROTATION: &str = r#"
import glob, os, pickle, subprocess, sys, time
how, rounds, pieces, out = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
APPENDER = '''
import os, pickle, sys, time
who, pieces, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
number, taken, failed = 0, [], []
while not os.path.exists(out + '/done'):
    start = time.monotonic_ns()
    line = b'<%s %d %s>\\n' % (who.encode(), number, b'x' * (number * 37 % 300))
    try:
        log = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        for piece in range(pieces):
            part = line[len(line) * piece // pieces:len(line) * (piece + 1) // pieces]
            assert os.write(log, part) == len(part)
        os.close(log)
        taken.append((line.decode(), start, time.monotonic_ns()))
    except OSError as error:
        failed.append('%d: %s' % (number, error.strerror))
    number += 1
pickle.dump((taken, failed), open(out + '/' + who, 'wb'))
'''
open('log.jsonl', 'w').close()
appenders = [subprocess.Popen([sys.executable, '-c', APPENDER, str(who), pieces, out]) for who in range(6)]

# The rotator is no relative of theirs.
rotator = os.fork()
if not rotator:
    held, unlinks = [], []
    def remove(name):
        fd = os.open(name, os.O_RDONLY)
        os.read(fd, 1)
        held.append(fd)
        start = time.monotonic_ns()
        os.unlink(name)
        unlinks.append((start, time.monotonic_ns()))
    def attempt(act, *names):
        try:
            act(*names)
        except (FileNotFoundError, FileExistsError):
            pass
    def create(flags):
        os.close(os.open('log.jsonl', os.O_CREAT | flags, 0o644))
    old = (lambda n: 'old.%d.jsonl' % n) if 'coordinated' in how else (lambda n: 'old.%d' % n)
    for number in range(rounds):
        if 'rename' in how: attempt(os.rename, 'log.jsonl', old(number))
        if 'create' in how: attempt(create, os.O_EXCL | os.O_RDWR if number % 2 else os.O_WRONLY)
        if 'chain' in how:
            attempt(remove, old(3))
            for n in (2, 1): attempt(os.rename, old(n), old(n + 1))
            attempt(os.rename, 'log.jsonl', old(1))
        if 'remove' in how: attempt(remove, 'log.jsonl')
        if 'copy' in how:
            open(old(number), 'wb').write(open('log.jsonl', 'rb').read())
            os.close(os.open('log.jsonl', os.O_WRONLY | os.O_TRUNC))
        time.sleep(0.003)
    open(out + '/done', 'w').close()
    while len(glob.glob(out + '/[0-5]')) < 6: time.sleep(0.01)
    texts = []
    for fd in held:
        os.lseek(fd, 0, 0)
        text = b''
        while part := os.read(fd, 1 << 20): text += part
        texts.append(text.decode())
    pickle.dump((texts, unlinks), open(out + '/rotated', 'wb'))
    os._exit(0)
assert os.waitpid(rotator, 0)[1] == 0 and [one.wait() for one in appenders] == [0] * 6
texts, unlinks = pickle.load(open(out + '/rotated', 'rb'))
taken, failed = [], []
for who in range(6):
    one = pickle.load(open('%s/%d' % (out, who), 'rb'))
    taken += one[0]
    failed += one[1]
assert not failed, 'an appender was refused: %s' % failed[:3]
there = [open(name).read() for name in glob.glob('log.jsonl') + glob.glob('old.*')]
kept = [open(name).read() for name in glob.glob('.concord/recovered/*') if not name.endswith('.json')]
written = {line for line, _, _ in taken}
for text in there + texts:
    torn = [line for line in text.splitlines(True) if line not in written]
    assert not torn, 'torn: %r' % torn[:3]
lines = [line for text in there for line in text.splitlines(True)]
assert how == 'copy' or len(lines) == len(set(lines)), 'a line is there twice'
found, read, recovered = set(lines), set(''.join(texts).splitlines(True)), set(''.join(kept).splitlines(True))
if how == 'copy':
    print(''.join(written))
    sys.exit()
for line, start, end in taken:
    assert line in found | read | recovered, 'lost: %r' % line
    # What is only in a file that was removed was written to it by who had opened it before.
    removed = any(begin <= end and start <= over for begin, over in unlinks)
    assert line in found | read or removed, 'it is in no file: %r' % line
assert unlinks or not recovered, 'nothing was removed: %s' % kept
"#;

fn rotated(how: &str, rounds: u32, pieces: u32) -> (Project, String) {
    watchdog();
    let project = Project::with(&[("concord.toml", "keep = 100000\n")]);
    let out = tempfile::tempdir_in(project.outside()).unwrap();
    let mut command = project.python(ROTATION);
    command
        .args([how, &rounds.to_string(), &pieces.to_string()])
        .arg(out.path());
    let printed = succeed(command);
    (project, printed)
}

#[test]
fn w10_a_log_that_is_renamed_away_loses_no_line_and_refuses_nobody() {
    rotated("rename, coordinated", 80, 1);
    rotated("rename, ordinary", 80, 1);
    rotated("rename, coordinated", 40, 2);
    rotated("rename, ordinary", 80, 2);
}

#[test]
fn w10_a_log_that_is_renamed_away_and_made_anew_loses_no_line_and_refuses_nobody() {
    rotated("rename and create, coordinated", 60, 1);
    rotated("rename and create, ordinary", 60, 1);
}

#[test]
fn w10_of_a_chain_of_logs_nothing_is_lost_but_what_the_oldest_takes_along() {
    rotated("chain, coordinated", 40, 1);
    rotated("chain, ordinary", 60, 1);
}

#[test]
fn w10_no_line_goes_to_a_file_that_was_removed_before_it_was_opened() {
    rotated("remove", 120, 1);
    rotated("remove", 60, 2);
}

#[test]
fn w10_a_log_that_is_copied_and_emptied_keeps_each_line_there_or_in_its_history() {
    let (project, printed) = rotated("copy", 30, 1);
    let mut there: BTreeSet<String> = BTreeSet::new();
    let mut take = |text: &str| there.extend(text.lines().map(str::to_owned));
    take(&project.read("log.jsonl"));
    for version in project.history("log.jsonl") {
        take(&support::text(
            &project.show("log.jsonl", version["version"].as_u64().unwrap()),
        ));
    }
    for line in printed.lines().filter(|line| !line.is_empty()) {
        assert!(there.contains(line), "{line} is lost");
    }
}

#[test]
fn w10_what_others_write_by_an_ordinary_name_is_not_written_over() {
    watchdog();
    let project = Project::with(&[("log.jsonl", ""), ("linked.jsonl", "")]);
    let mut logger = Puppet::new(&project);
    logger.does("fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)");
    logger.does("os.write(fd, b'one\\nhalf ')");
    succeed(project.sh("mv log.jsonl plain.txt; echo other >> plain.txt"));
    logger.does("os.write(fd, b'a line\\n')");
    succeed(
        project.sh("mv plain.txt again.txt; echo another >> again.txt; mv again.txt log.jsonl; echo back >> log.jsonl"),
    );
    logger.does("os.write(fd, b'two\\n')");
    succeed(project.sh("echo last >> log.jsonl"));
    assert_eq!(logger.does("os.close(fd)"), "None");
    let text = "one\nother\nhalf a line\nanother\nback\ntwo\nlast\n";
    assert_eq!(project.read("log.jsonl"), text);
    logger.does("fd = os.open('linked.jsonl', os.O_WRONLY | os.O_APPEND)");
    logger.does("os.write(fd, b'one\\n')");
    succeed(project.sh("ln linked.jsonl plain.txt; echo other >> plain.txt"));
    logger.does("os.write(fd, b'two\\n')");
    assert_eq!(project.read("linked.jsonl"), "one\nother\ntwo\n");
    succeed(project.sh(": > plain.txt"));
    logger.does("os.write(fd, b'three\\n')");
    assert_eq!(project.read("linked.jsonl"), "three\n");
}

#[test]
fn w10_w11_a_name_of_several_that_goes_leaves_its_appenders_to_the_others() {
    watchdog();
    for (goes, stays) in [("rm log.jsonl", "a.jsonl"), ("mv log.jsonl b.jsonl", "b.jsonl")] {
        let project = Project::with(&[("log.jsonl", "")]);
        let mut logger = Puppet::new(&project);
        logger.does("fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)");
        logger.does("os.write(fd, b'one\\n')");
        succeed(project.sh(&format!("ln log.jsonl a.jsonl; {goes}; echo new >> log.jsonl")));
        logger.does("os.write(fd, b'two\\n')");
        succeed(project.sh(&format!("echo other >> {stays}")));
        logger.does("os.write(fd, b'three\\n')");
        assert_eq!(project.read("log.jsonl"), "new\n", "{goes}");
        assert_eq!(project.read("a.jsonl"), "one\ntwo\nother\nthree\n", "{goes}");
        assert_eq!(logger.does("os.close(fd)"), "None");
    }
}

#[test]
fn w10_what_is_appended_when_file_and_directory_are_gone_is_taken_and_kept() {
    watchdog();
    let project = Project::with(&[("logs/deep/log.jsonl", "")]);
    let mut logger = Puppet::new(&project);
    logger.does("fd = os.open('logs/deep/log.jsonl', os.O_WRONLY | os.O_APPEND)");
    logger.does("os.write(fd, b'one\\n')");
    succeed(project.sh("rm -r logs"));
    assert_eq!(logger.does("os.write(fd, b'two\\nhalf ')"), "9");
    assert_eq!(logger.does("os.write(fd, b'a line\\n')"), "7");
    assert_eq!(logger.does("os.fsync(fd)"), "None");
    assert_eq!(logger.does("os.ftruncate(fd, 0)"), "None");
    assert_eq!(logger.does("os.close(fd)"), "None");
    let kept = project.recovered();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0]["path"], "logs/deep/log.jsonl");
    let content = std::fs::read_to_string(project.path(kept[0]["kept"].as_str().unwrap())).unwrap();
    assert_eq!(content, "two\nhalf a line\n");
}

#[test]
fn w10_an_appender_truncates_and_makes_room_in_the_file_that_it_appends_to() {
    watchdog();
    let project = Project::with(&[("log.jsonl", "first\n"), ("other.jsonl", "other\n")]);
    let mut logger = Puppet::new(&project);
    logger.does("fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)");
    logger.does("os.write(fd, b'one\\n')");
    succeed(project.sh("mv log.jsonl old.jsonl; mv other.jsonl log.jsonl"));
    assert_eq!(logger.does("os.ftruncate(fd, 6)"), "None");
    assert_eq!(project.read("old.jsonl"), "first\n");
    assert_eq!(project.read("log.jsonl"), "other\n");
    // KEEP_SIZE, within the file, behind its end.
    for (mode, length) in [(1, 10_000), (0, 6), (0, 8)] {
        let asked = format!("raw('fallocate', fd, {mode}, ctypes.c_long(0), ctypes.c_long({length}))");
        assert_eq!(logger.does(&asked), "None", "{mode} {length}");
    }
    logger.does("os.write(fd, b'two\\n')");
    assert_eq!(project.read("old.jsonl"), "first\n\0\0two\n");
    assert_eq!(
        logger.does("raw('fallocate', fd, 3, ctypes.c_long(0), ctypes.c_long(4))"),
        "ENOTSUP"
    );
    succeed(project.sh("mv old.jsonl plain.txt"));
    assert_eq!(logger.does("os.ftruncate(fd, 6)"), "None");
    assert_eq!(project.read("plain.txt"), "first\n");
    assert_eq!(logger.does("os.close(fd)"), "None");
}

#[test]
fn w10_an_appender_is_shown_the_size_of_the_file_that_its_lines_go_to() {
    watchdog();
    let project = Project::with(&[("log.jsonl", "first\nand more than that\n")]);
    let mut logger = Puppet::new(&project);
    logger.does("fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)");
    let size = |logger: &mut Puppet| logger.does("(os.fstat(fd).st_size, os.lseek(fd, 0, os.SEEK_END))");
    assert_eq!(size(&mut logger), "(25, 25)");
    succeed(project.sh(": > log.jsonl"));
    assert_eq!(size(&mut logger), "(0, 0)");
    for number in 1..=3 {
        logger.does("os.write(fd, b'line\\n')");
        let expected = format!("({0}, {0})", 5 * number);
        assert_eq!(size(&mut logger), expected);
    }
    succeed(project.sh("echo by another >> log.jsonl"));
    assert_eq!(size(&mut logger), "(26, 26)");
}

/// What loggers do, with what is installed, in a plain directory and on a mount.
const PYTHON_LOGGERS: &str = r#"
import logging, logging.handlers, os, subprocess, sys
def logger(name, handler):
    log = logging.getLogger(name)
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    return log
shell = lambda script: subprocess.check_call(['sh', '-c', script])
# By size: to names that no rule coordinates, and to others that one does.
rotating = logging.handlers.RotatingFileHandler('a.jsonl', maxBytes=200, backupCount=3)
by_size = logger('size', rotating)
named = logging.handlers.RotatingFileHandler('b.jsonl', maxBytes=200, backupCount=2)
named.namer = lambda name: name.replace('b.jsonl.', 'b.') + '.jsonl'
by_name = logger('name', named)
for number in range(60):
    by_size.info('line %d', number)
    by_name.info('line %d', number)
    if number in (3, 40): shell(': > a.jsonl')
    if number == 30: shell('echo by another >> a.jsonl; echo by another >> b.jsonl')
# Reopened when somebody has moved it.
watched = logger('watched', logging.handlers.WatchedFileHandler('c.jsonl'))
for number in range(12):
    watched.info('line %d', number)
    if number == 3: shell('mv c.jsonl c.1.jsonl')
    if number == 6: shell('mv c.jsonl c.old')
    if number == 9: shell('rm c.jsonl')
# Never reopened.
plain = logger('plain', logging.FileHandler('d.jsonl'))
plain.info('one')
shell('mv d.jsonl d.1.jsonl')
plain.info('two')
shell('echo new >> d.jsonl')
plain.info('three')
shell('mv d.1.jsonl d.old; echo other >> d.old')
plain.info('four')
logging.shutdown()
"#;

#[test]
fn loggers_in_python_leave_what_they_leave_in_a_plain_directory() {
    let twin = Twin::with(&[("README.md", "# Title\n")]);
    std::fs::write(twin.project.outside().join("loggers.py"), PYTHON_LOGGERS).unwrap();
    twin.same("python3 $OUT/../loggers.py; ls; for name in *; do echo $name; cat $name; done");
    twin.nothing_is_left("loggers");
}

#[test]
fn loggers_in_node_leave_what_they_leave_in_a_plain_directory() {
    if lacks("node") {
        return;
    }
    let twin = Twin::with(&[("README.md", "# Title\n")]);
    twin.same(
        r#"cat > $OUT/log.js <<'JS'
const fs = require('fs');
const stream = fs.createWriteStream('a.jsonl', { flags: 'a' });
for (let n = 0; n < 50; n++) stream.write(`{"n": ${n}}\n`);
stream.write('half ');
stream.write('a line\n', () => {
    // winston, pino.reopen(): renamed, and opened anew.
    fs.renameSync('a.jsonl', 'a.1.jsonl');
    stream.write('to the old one\n');
    const next = fs.createWriteStream('a.jsonl', { flags: 'a' });
    next.write('to the new one\n');
    stream.end(() => next.end(() => {
        const fd = fs.openSync('b.jsonl', 'a', 0o644);
        for (let n = 0; n < 10; n++) fs.writeSync(fd, `${n}\n`);
        console.log(fs.fstatSync(fd).size, fs.statSync('b.jsonl').size);
        fs.closeSync(fd);
        fs.appendFileSync('b.jsonl', 'by appendFileSync\n');
        fs.renameSync('b.jsonl', 'b.old');
        fs.appendFileSync('b.jsonl', 'anew\n');
    }));
});
JS
node $OUT/log.js; ls; cat a.1.jsonl a.jsonl b.old b.jsonl"#,
    );
    twin.nothing_is_left("loggers");
}

#[test]
fn shells_that_log_leave_what_they_leave_in_a_plain_directory() {
    let twin = Twin::with(&[("README.md", "# Title\n")]);
    twin.same("exec 3>> a.jsonl; echo one >&3; mv a.jsonl a.1.jsonl; echo two >&3; exec 3>> a.jsonl; echo three >&3; echo four >> a.jsonl; cat a.1.jsonl a.jsonl");
    twin.same("for n in 1 2 3; do echo $n | tee -a b.jsonl; cp b.jsonl b.$n; : > b.jsonl; done; echo 4 | tee -a b.jsonl b.1 > b.2; cat b.*");
    twin.same("exec >> c.jsonl; echo one; (echo two; printf half); /bin/echo a line; rm c.jsonl; echo gone; exec >> c.jsonl; echo three");
    twin.same("mkdir d; exec 3>> d/log.jsonl; echo one >&3; mv d e; echo two >&3; echo three >> e/log.jsonl; rm -r e; exec 3>&-");
    if !lacks("script") {
        twin.same("script -qac 'echo one' s.jsonl > $OUT/said; script -qac 'echo two' s.jsonl > $OUT/said; grep -v Script s.jsonl > s; rm s.jsonl; cat s");
    }
}

/// To who writes the beginning of a line it is the end of the file.
#[test]
fn w10_what_an_appender_has_held_back_is_cut_off_by_its_ftruncate_as_in_a_plain_file() {
    watchdog();
    let rules = "wait = \"100ms\"\n[[rule]]\npaths = [\"whole.md\"]\nappend = \"close\"\n";
    for name in ["lines.md", "whole.md"] {
        for (change, wanted) in [
            ("os.ftruncate(fd, 2)", "01"),
            ("os.ftruncate(fd, 10)", "0123456789"),
            ("os.ftruncate(fd, 12)", "0123456789pr"),
            ("os.ftruncate(fd, 15)", "0123456789pre\0\0"),
            ("os.ftruncate(fd, 2), os.write(fd, b'x')", "01x"),
            ("os.posix_fallocate(fd, 0, 12)", "0123456789pre"),
        ] {
            let project = Project::with(&[(name, "0123456789"), ("concord.toml", rules)]);
            let mut writer = Puppet::new(&project);
            writer.does(&format!("fd = os.open('{name}', os.O_WRONLY | os.O_APPEND)"));
            assert_eq!(writer.does("os.write(fd, b'pre')"), "3");
            writer.does(change);
            assert_eq!(writer.does("os.close(fd)"), "None", "{name}: {change}");
            assert_eq!(project.read(name), wanted, "{name}: {change}");
        }
        // What was refused has cut off nothing.
        let project = Project::with(&[(name, "0123456789"), ("concord.toml", rules)]);
        let (mut writer, mut other) = (Puppet::new(&project), Puppet::new(&project));
        writer.does(&format!("fd = os.open('{name}', os.O_WRONLY | os.O_APPEND)"));
        writer.does("os.write(fd, b'pre')");
        other.does(&format!("f = open('{name}', 'r+')"));
        assert_eq!(writer.does("os.ftruncate(fd, 2)"), "EBUSY");
        other.does("f.close()");
        assert_eq!(writer.does("os.close(fd)"), "None");
        assert_eq!(project.read(name), "0123456789pre");
    }
}
