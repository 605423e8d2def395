//! R1 and R4 where a session takes over the node that another process has just found: what the kernel shows of it to whom.

mod support;

use support::puppet::Puppet;
use support::{Project, Running, watchdog};

/// Saves STATE.md for three seconds in a way of its own.
fn saver(project: &Project, save: &str) -> Running {
    let program = format!(
        r#"
import os, time
end, n = time.monotonic() + 3, 0
while time.monotonic() < end:
    n += 1
{}
print('saved', n > 5)
"#,
        save.lines().map(|line| format!("    {line}\n")).collect::<String>()
    );
    Running::start(project.python(&program))
}

const IN_TWO_STEPS: &str = "with open('STATE.md', 'w') as f:
    f.write('x' * 250); f.flush()
    f.write('y' * 250)";
const THERE_AND_BACK: &str = "with open('STATE.md', 'r+') as f:
    os.pwrite(f.fileno(), b'z' * 100, 600)
    os.ftruncate(f.fileno(), 500)";

/// Counts the sizes that stat(2) shows for as long.
const LOOKS: &str = r#"
import os, time
end, seen = time.monotonic() + 3, {}
def append():
    try: os.close(os.open('STATE.md', os.O_WRONLY | os.O_APPEND))
    except OSError: pass
looks = [lambda: os.stat('STATE.md'), lambda: next(x for x in os.scandir('.') if x.name == 'STATE.md').stat(),
         lambda: append() or os.lstat('STATE.md')]
while time.monotonic() < end:
    for look in looks[APPENDS:]:
        size = look().st_size
        seen[size] = seen.get(size, 0) + 1
print(sorted(seen), seen)
"#;

#[test]
fn r4_others_are_never_shown_a_size_that_is_being_staged() {
    watchdog();
    let project = Project::with(&[("STATE.md", &"w".repeat(500))]);
    for (save, appends) in [(IN_TWO_STEPS, "0"), (THERE_AND_BACK, "0"), (IN_TWO_STEPS, "2")] {
        let mut savers = [saver(&project, save)];
        let looks = LOOKS.replace("APPENDS", appends);
        let mut lookers: Vec<Running> = (0..2).map(|_| Running::start(project.python(&looks))).collect();
        for looker in &mut lookers {
            let seen = looker.hear();
            assert!(seen.starts_with("[500] "), "stat(2) showed {seen} beside\n{save}");
        }
        for saver in &mut savers {
            assert_eq!(saver.hear(), "saved True");
        }
    }
}

#[test]
fn r1_what_is_mapped_beside_a_writer_is_as_long_as_fstat_said() {
    watchdog();
    let project = Project::with(&[("STATE.md", "first\n")]);
    let mut savers = [saver(
        &project,
        "with open('STATE.md', 'w') as f: f.write('x' * (1 + n * 7919 % 20000))",
    )];
    // write(2) from a mapping fails where a program that touches it gets SIGBUS.
    let maps = r#"
import mmap, os, time
end, wrong, n = time.monotonic() + 3, [], 0
out = os.open('/proc/self/fd/%d' % os.memfd_create('out'), os.O_RDWR)
while time.monotonic() < end:
    n += 1
    with open('STATE.md', 'rb') as f:
        size = os.fstat(f.fileno()).st_size
        try:
            mapped = mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ)
            written = os.pwrite(out, mapped, 0)
            after = os.fstat(f.fileno()).st_size
            if (written, after) != (size, size): wrong.append((size, written, after))
        except (OSError, ValueError) as error: wrong.append((size, str(error)))
print(wrong, n)
"#;
    let mut readers: Vec<Running> = (0..2).map(|_| Running::start(project.python(maps))).collect();
    for reader in &mut readers {
        let wrong = reader.hear();
        assert!(wrong.starts_with("[] "), "a mapping was cut: {wrong}");
    }
    for saver in &mut savers {
        assert_eq!(saver.hear(), "saved True");
    }
}

#[test]
fn r4_a_writers_descriptor_shows_others_what_it_holds() {
    watchdog();
    let project = Project::with(&[("STATE.md", "first\n")]);
    let (mut other, mut holder) = (Puppet::new(&project), Puppet::new(&project));
    holder.does("f = open('STATE.md', 'w')");
    holder.does("f.write('half')");
    holder.does("f.flush()");
    let link = format!("/proc/{}/fd/{}", holder.does("os.getpid()"), holder.does("f.fileno()"));
    assert_eq!(other.does("os.stat('STATE.md').st_size"), "6");
    for _ in 0..3 {
        assert_eq!(other.does(&format!("os.stat('{link}').st_size")), "4");
    }
    other.does(&format!("fd = os.open('{link}', os.O_PATH)"));
    assert_eq!(other.does("os.fstat(fd).st_size"), "4", "nobody walks again for that");
    assert_eq!(other.does("os.stat('STATE.md').st_size"), "6");
    holder.does("f.close()");
    assert_eq!(other.does("os.stat('STATE.md').st_size"), "4");
}
