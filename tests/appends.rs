//! W10: appenders neither wait nor copy, and whoever reads sees whole lines.

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::puppet::Puppet;
use support::{Project, Running, eventually, run, succeed, wait, watchdog};

const OPEN: &str = "fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)";

fn project() -> Project {
    watchdog();
    Project::with(&[("log.jsonl", "first\n")])
}

/// Each line of `text`, which must be whole.
fn lines(text: &str) -> Vec<&str> {
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "a torn line: {:?}",
        text.lines().last()
    );
    text.lines().collect()
}

/// What `concord recover` and the readers of `recovered/` find there, as text.
fn recovered(project: &Project) -> Vec<String> {
    let found = project.recovered().into_iter();
    found
        .map(|entry| String::from_utf8(std::fs::read(project.path(entry["kept"].as_str().unwrap())).unwrap()).unwrap())
        .collect()
}

#[test]
fn w10_a_hundred_appenders_lose_tear_and_glue_no_line() {
    let project = project();
    let python = "import sys
with open('log.jsonl', 'ab', buffering=512) as log:
    for number in range(40):
        line = b'%s-%d-%s\\n' % (sys.argv[1].encode(), number, b'x' * (number * 37 % 900))
        log.write(line[:len(line) // 3])
        log.write(line[len(line) // 3:])";
    let shell = "for number in 0 1 2 3; do echo $0-$number >> log.jsonl; done";
    let mut running: Vec<Running> = (0..100)
        .map(|who| {
            let mut command = if who < 40 {
                project.python(python)
            } else {
                project.sh("exec sh -c \"$1\" $2")
            };
            match who < 40 {
                true => command.arg(who.to_string()),
                false => command.args(["sh", shell, &who.to_string()]),
            };
            Running::start(command)
        })
        .collect();
    while running.iter_mut().any(|one| one.0.try_wait().unwrap().is_none()) {
        lines(&project.read("log.jsonl"));
        std::thread::sleep(Duration::from_millis(20));
    }
    for one in &mut running {
        assert!(wait(&mut one.0, Duration::from_secs(1)).success());
    }
    let text = project.read("log.jsonl");
    let mut found: Vec<String> = lines(&text).iter().map(|line| (*line).to_owned()).collect();
    let mut expected = vec!["first".to_owned()];
    for who in 0..100 {
        let count = if who < 40 { 40 } else { 4 };
        expected.extend((0..count).map(|number| match who < 40 {
            true => format!("{who}-{number}-{}", "x".repeat(number * 37 % 900)),
            false => format!("{who}-{number}"),
        }));
    }
    found.sort();
    expected.sort();
    assert!(found == expected, "{} lines of {}", found.len(), expected.len());
}

#[test]
fn w10_a_buffered_writer_that_flushes_within_a_line_shows_whole_lines() {
    let project = project();
    let mut writer = Puppet::new(&project);
    writer.does("log = open('log.jsonl', 'ab', buffering=16)");
    let mut seen = String::new();
    for number in 0..20 {
        writer.does(&format!("[log.write(piece) for piece in (b'line {number} ', b'is longer than ', b'the buffer\\nso', b' it goes\\n')]"));
        let text = project.read("log.jsonl");
        lines(&text);
        assert!(text.starts_with(&seen), "readers see it grow");
        seen = text;
    }
    assert!(seen.lines().count() > 15, "{seen}");
    writer.does("log.flush()");
    writer.does("os.write(log.fileno(), b'half ')");
    assert!(!project.read("log.jsonl").contains("half"));
    writer.does("os.write(log.fileno(), b'a line\\n')");
    assert!(project.read("log.jsonl").contains("half a line\n"));
    writer.does("log.close()");
    assert_eq!(project.read("log.jsonl").lines().count(), 42);
}

#[test]
fn w10_a_killed_appender_leaves_no_part_of_a_line() {
    let project = project();
    let mut writer = Puppet::new(&project);
    writer.does(OPEN);
    writer.does("os.write(fd, b'whole\\nhalf of')");
    assert_eq!(project.read("log.jsonl"), "first\nwhole\n");
    writer.0.signal(Signal::KILL);
    drop(writer);
    eventually("it is set aside", || recovered(&project) == ["half of"]);
    succeed(project.sh("echo next >> log.jsonl"));
    assert_eq!(project.read("log.jsonl"), "first\nwhole\nnext\n");
    assert!(project.recovered()[0]["why"].as_str().unwrap().contains("killed"));
}

#[test]
fn w10_the_size_is_that_of_what_can_be_read() {
    let project = project();
    let (mut writer, mut reader) = (Puppet::new(&project), Puppet::new(&project));
    writer.does(OPEN);
    reader.does("seen = os.open('log.jsonl', os.O_RDONLY)");
    for (step, size) in [
        ("os.write(fd, b'sec')", 6),
        ("os.write(fd, b'ond\\nthird')", 13),
        ("os.close(fd)", 18),
    ] {
        writer.does(step);
        // Nothing else may ask: a walk to the name would have the kernel forget what it remembers.
        assert_eq!(reader.does("os.fstat(seen).st_size"), size.to_string(), "after {step}");
    }
    assert_eq!(project.read("log.jsonl"), "first\nsecond\nthird");
}

#[test]
fn w10_a_line_that_its_writer_left_open_goes_on_with_what_comes_next() {
    let project = project();
    succeed(project.sh("printf one >> log.jsonl"));
    assert_eq!(project.read("log.jsonl"), "first\none");
    succeed(project.sh("{ printf tw; /bin/printf o; } >> log.jsonl; printf 'three\\n' >> log.jsonl"));
    assert_eq!(project.read("log.jsonl"), "first\nonetwothree\n");
}

#[test]
fn w10_a_logger_that_stays_open_shows_each_line_at_once_and_holds_nobody_up() {
    let project = project();
    let (mut logger, mut reader, mut other) = (Puppet::new(&project), Puppet::new(&project), Puppet::new(&project));
    logger.does(OPEN);
    reader.does("seen = open('log.jsonl'); seen.read()");
    for number in 0..50 {
        assert_ne!(logger.does(&format!("os.write(fd, b'{number}\\n')")), "EBUSY");
        assert_eq!(reader.does("seen.read()"), format!("{number}\n").trim_end().to_owned());
        reader.0.hear();
        let size = std::fs::metadata(project.path("log.jsonl")).unwrap().len();
        assert_eq!(size, project.read("log.jsonl").len() as u64);
        assert_eq!(reader.does("os.stat('log.jsonl').st_size"), size.to_string());
        let start = Instant::now();
        assert_eq!(
            other.does(&format!("put('log.jsonl', 'o{number}\\n', os.O_WRONLY | os.O_APPEND)")),
            "None"
        );
        assert!(start.elapsed() < Duration::from_secs(2));
        assert_eq!(reader.does("seen.read()"), format!("o{number}"));
        reader.0.hear();
    }
    assert_eq!(project.read("log.jsonl").lines().count(), 101);
    assert_eq!(
        project.status()["sessions"].as_array().unwrap().len(),
        1,
        "the logger is shown"
    );
}

#[test]
fn w10_a_logger_that_creates_its_file_shows_it_with_its_first_line() {
    let project = project();
    let mut logger = Puppet::new(&project);
    logger.does("fd = os.open('new.jsonl', os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)");
    logger.does("os.write(fd, b'on')");
    assert!(!project.path("new.jsonl").exists());
    let appends = "for n in 1 2 3; do echo other $0 $n >> new.jsonl; done";
    let mut others: Vec<Running> = (0..8)
        .map(|who| {
            let mut command = project.sh("exec sh -c \"$1\" $2");
            command.args(["sh", appends, &who.to_string()]);
            Running::start(command)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    assert!(!project.path("new.jsonl").exists());
    assert_eq!(logger.does("os.write(fd, b'e\\ntw')"), "4");
    for other in &mut others {
        assert!(wait(&mut other.0, Duration::from_secs(20)).success());
    }
    assert_eq!(logger.does("os.write(fd, b'o\\n')"), "2");
    let text = project.read("new.jsonl");
    assert_eq!(lines(&text).len(), 26, "{text}");
    assert!(text.starts_with("one\n") && text.ends_with("\ntwo\n"), "{text}");
    assert_eq!(logger.does("os.close(fd)"), "None");
    assert_eq!(logger.does("oct(os.stat('new.jsonl').st_mode & 0o777)"), "0o640");
}

#[test]
fn w10_an_appender_may_truncate_its_file_and_goes_on() {
    let project = project();
    let mut logger = Puppet::new(&project);
    logger.does(OPEN);
    logger.does("os.write(fd, b'one\\n')");
    assert_eq!(logger.does("os.ftruncate(fd, 0)"), "None");
    assert_eq!(project.read("log.jsonl"), "");
    logger.does("os.write(fd, b'two\\n')");
    assert_eq!(project.read("log.jsonl"), "two\n");
    succeed(project.sh("truncate -s 0 log.jsonl"));
    logger.does("os.write(fd, b'three\\n')");
    assert_eq!(project.read("log.jsonl"), "three\n");
    assert_eq!(logger.does("os.close(fd)"), "None");
}

/// Also after watchers were told of the version that the truncation is, which takes 100 ms.
#[test]
fn w10_the_position_of_an_appender_counts_from_what_it_has_truncated() {
    let project = project();
    let mut logger = Puppet::new(&project);
    logger.does(OPEN);
    logger.does("os.write(fd, b'one\\nand two\\n')");
    for pause in ["0", "0.5"] {
        assert_eq!(logger.does("os.ftruncate(fd, 6)"), "None");
        logger.does(&format!("time.sleep({pause})"));
        assert_eq!(
            logger.does("os.write(fd, b'2\\n'), os.lseek(fd, 0, os.SEEK_CUR)"),
            "(2, 8)"
        );
        assert_eq!(project.read("log.jsonl"), "first\n2\n");
        logger.does("os.write(fd, b'and more\\n')");
    }
    assert_eq!(logger.does("os.close(fd)"), "None");
}

/// The flags that a handle has when it writes say where.
#[test]
fn w10_o1_who_takes_o_append_from_its_handle_writes_nothing_where_it_did_not_ask() {
    let project = project();
    let mut program = Puppet::new(&project);
    program.does("def append(fd, on): fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND if on else 0)");
    program.does(OPEN);
    program.does("os.write(fd, b'one\\nheld')");
    program.does("append(fd, False)");
    assert_eq!(program.does("os.pwrite(fd, b'Z', 0)"), "EINVAL");
    assert_eq!(program.does("os.write(fd, b'Z\\n')"), "EINVAL");
    program.does("append(fd, True)");
    assert_eq!(program.does("os.write(fd, b' back\\n'), os.close(fd)"), "(6, None)");
    assert_eq!(project.read("log.jsonl"), "first\none\nheld back\n");
    // A session has its shadow to itself.
    program.does("fd = os.open('log.jsonl', os.O_RDWR | os.O_APPEND)");
    assert_eq!(program.does("os.pwrite(fd, b'end\\n', 0)"), "4");
    program.does("append(fd, False)");
    assert_eq!(program.does("os.pwrite(fd, b'F', 0)"), "1");
    program.does("append(fd, True)");
    assert_eq!(program.does("os.pwrite(fd, b'last\\n', 0), os.close(fd)"), "(5, None)");
    assert_eq!(project.read("log.jsonl"), "First\none\nheld back\nend\nlast\n");
    // Nor has what it creates a first line that makes it a log.
    program.does("fd = os.open('new.jsonl', os.O_WRONLY | os.O_CREAT | os.O_APPEND)");
    program.does("append(fd, False)");
    assert_eq!(
        program.does("os.write(fd, b'one\\ntwo'), os.pwrite(fd, b'T', 4), os.close(fd)"),
        "(7, 1, None)"
    );
    assert_eq!(project.read("new.jsonl"), "one\nTwo");
}

#[test]
fn w10_what_is_appended_during_a_session_comes_after_what_it_wrote() {
    let project = project();
    let (mut logger, mut writer) = (Puppet::new(&project), Puppet::new(&project));
    logger.does(OPEN);
    logger.does("os.write(fd, b'before\\n')");
    writer.does("new = os.open('log.jsonl', os.O_WRONLY | os.O_TRUNC)");
    writer.does("os.write(new, b'rewritten')");
    logger.does("os.write(fd, b'during 1\\nduring 2\\nhel')");
    succeed(project.sh("echo another >> log.jsonl"));
    assert_eq!(
        project.read("log.jsonl"),
        "first\nbefore\nduring 1\nduring 2\nanother\n"
    );
    assert_eq!(writer.does("os.close(new)"), "None");
    assert_eq!(project.read("log.jsonl"), "rewritten\nduring 1\nduring 2\nanother\n");
    logger.does("os.write(fd, b'd back\\n')");
    assert_eq!(
        project.read("log.jsonl"),
        "rewritten\nduring 1\nduring 2\nanother\nheld back\n"
    );
    // One that only changes a part began with what was there when it was opened.
    writer.does("new = os.open('log.jsonl', os.O_RDWR)");
    logger.does("os.write(fd, b'later\\n')");
    writer.does("os.pwrite(new, b'REWRITTEN', 0)");
    assert_eq!(writer.does("os.close(new)"), "None");
    let text = "REWRITTEN\nduring 1\nduring 2\nanother\nheld back\nlater\n";
    assert_eq!(project.read("log.jsonl"), text);
    logger.does("os.close(fd)");
    assert_eq!(project.read("log.jsonl"), text);
    let stale = project
        .history("log.jsonl")
        .iter()
        .filter(|v| v["stale"] == true)
        .count();
    assert_eq!(stale, 0);
}

#[test]
fn w10_no_line_is_lost_among_writers_that_replace_the_file() {
    let project = project();
    let logger = "import os
fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)
for number in range(400): os.write(fd, b'line %d\\n' % number)";
    let writer = "import os, time
for number in range(30):
    if number % 3 == 2:
        with open('new.tmp', 'w') as new: new.write('renamed %d\\n' % number)
        os.rename('new.tmp', 'log.jsonl')
    else:
        with open('log.jsonl', 'w') as new:
            new.write('rewritten %d\\n' % number)
            time.sleep(0.003)";
    std::fs::write(project.path("concord.toml"), "keep = 1000\n").unwrap();
    let mut both = [
        Running::start(project.python(logger)),
        Running::start(project.python(writer)),
    ];
    for one in &mut both {
        assert!(wait(&mut one.0, Duration::from_secs(60)).success());
    }
    let mut everywhere: BTreeSet<String> = lines(&project.read("log.jsonl"))
        .iter()
        .map(|l| (*l).to_owned())
        .collect();
    for version in project.history("log.jsonl") {
        let content = project.show("log.jsonl", version["version"].as_u64().unwrap());
        everywhere.extend(lines(&support::text(&content)).iter().map(|l| (*l).to_owned()));
    }
    for number in 0..400 {
        assert!(everywhere.contains(&format!("line {number}")), "line {number} is lost");
    }
}

#[test]
fn w10_an_append_costs_the_same_on_a_small_and_on_a_large_file() {
    watchdog();
    let mut project = Project::unmounted(&[("small.jsonl", "first\n")]);
    std::fs::write(
        project.path("large.jsonl"),
        "a line of a file that is not small\n".repeat(1 << 21),
    )
    .unwrap();
    let daemon = project.mount();
    let io = || -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{daemon}/io")).unwrap();
        let field = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        field("rchar:") + field("wchar:")
    };
    let cost = |name: &str| {
        let (before, start) = (io(), project.path(".concord"));
        succeed(project.sh(&format!("for n in 1 2 3 4 5; do echo line $n >> {name}; done")));
        let used = |path| {
            support::text(
                &run({
                    let mut du = std::process::Command::new("du");
                    du.arg("-sk").arg(path);
                    du
                })
                .stdout,
            )
        };
        (io() - before, used(start))
    };
    let (small, _) = cost("small.jsonl");
    let (large, kept) = cost("large.jsonl");
    assert!(
        large < small + (64 << 10),
        "{large} bytes read and written, {small} for the small file"
    );
    let kept: u64 = kept.split_whitespace().next().unwrap().parse().unwrap();
    assert!(kept < 4 << 10, "{kept} KiB in .concord");
    assert_eq!(project.history("large.jsonl").len(), 6);
}

#[test]
fn w10_each_stay_of_appenders_is_a_version_that_costs_no_copy() {
    let project = project();
    for number in 1..=3 {
        succeed(project.sh(&format!("echo {number} >> log.jsonl")));
    }
    let kept = |project: &Project| -> Vec<(u64, String, String)> {
        let history = project.history("log.jsonl").into_iter();
        history
            .map(|v| {
                let number = v["version"].as_u64().unwrap();
                let content = support::text(&project.show("log.jsonl", number));
                assert_eq!(v["bytes"].as_u64().unwrap(), content.len() as u64);
                (number, v["how"].as_str().unwrap().to_owned(), content)
            })
            .collect()
    };
    let expected = vec![
        (4, "append".to_owned(), "first\n1\n2\n3\n".to_owned()),
        (3, "append".to_owned(), "first\n1\n2\n".to_owned()),
        (2, "append".to_owned(), "first\n1\n".to_owned()),
        (1, "found".to_owned(), "first\n".to_owned()),
    ];
    assert_eq!(kept(&project), expected);
    // Replaced, they are all in the one file that was replaced.
    succeed(project.sh("echo new > log.jsonl"));
    assert_eq!(kept(&project)[1..], expected);
    let mut restore = project.sh("echo 5 >> log.jsonl; exec $0 restore log.jsonl@2");
    restore.arg(env!("CARGO_BIN_EXE_concord"));
    succeed(restore);
    assert_eq!(project.read("log.jsonl"), "first\n1\n");
    assert_eq!(kept(&project)[3..], expected);
    succeed(project.sh("rm log.jsonl"));
    let gone = project.history("log.jsonl");
    assert_eq!(gone[1]["how"], "restore");
    assert_eq!(support::text(&project.show("log.jsonl", 3)), "first\n1\n2\n");
}

#[test]
fn w10_the_oldest_lengths_go_and_what_is_left_can_be_read() {
    watchdog();
    let project = Project::with(&[("log.jsonl", "first\n"), ("concord.toml", "keep = 2\n")]);
    for number in 1..=5 {
        succeed(project.sh(&format!("echo {number} >> log.jsonl")));
    }
    let numbers = |project: &Project| -> Vec<u64> {
        let history = project.history("log.jsonl").into_iter();
        history.map(|v| v["version"].as_u64().unwrap()).collect()
    };
    let comes_to = |expected: [u64; 3]| eventually("pruned", || numbers(&project) == expected);
    comes_to([6, 5, 4]);
    succeed(project.sh("echo new > log.jsonl"));
    comes_to([7, 6, 5]);
    assert_eq!(support::text(&project.show("log.jsonl", 5)), "first\n1\n2\n3\n4\n");
    succeed(project.sh("echo newer > log.jsonl"));
    comes_to([8, 7, 6]);
    succeed(project.sh("echo newest > log.jsonl"));
    comes_to([9, 8, 7]);
}

#[test]
fn w10_a_daemon_killed_under_appenders_leaves_whole_lines_and_none_is_lost() {
    let mut project = project();
    let program = "import os, sys
fd = os.open('log.jsonl', os.O_WRONLY | os.O_APPEND)
for number in range(100000):
    line = b'%s %d %s\\n' % (sys.argv[1].encode(), number, b'x' * (number % 5000))
    cut = len(line) // 2
    os.write(fd, line[:cut]); os.write(fd, line[cut:])
    print(number, flush=True)";
    let mut running: Vec<Running> = (0..4)
        .map(|who| {
            let mut command = project.python(program);
            command.arg(who.to_string()).stderr(std::process::Stdio::null());
            Running::start(command)
        })
        .collect();
    for one in &mut running {
        while one.hear().parse::<u32>().unwrap() < 50 {}
    }
    let report = project.crash_and_recover();
    let acknowledged: Vec<Option<u32>> = running
        .iter_mut()
        .map(|one| {
            let mut last = Some(50);
            loop {
                match one.hear().parse() {
                    Ok(number) => last = Some(number),
                    Err(_) => return last,
                }
            }
        })
        .collect();
    let text = project.read("log.jsonl");
    let found: BTreeSet<&str> = lines(&text).into_iter().collect();
    assert!(found.contains("first"));
    for (who, last) in acknowledged.iter().enumerate() {
        for number in 0..=last.unwrap() {
            let line = format!("{who} {number} {}", "x".repeat(number as usize % 5000));
            assert!(
                found.contains(line.as_str()),
                "line {number} of {who} is lost; {report}"
            );
        }
    }
    for line in &found {
        let mut words = line.split(' ').skip(1);
        let whole = *line == "first" || {
            let number: usize = words.next().unwrap().parse().unwrap();
            words.next().unwrap().len() == number % 5000
        };
        assert!(whole, "a torn line: {line:?}");
    }
    let shadows: Vec<_> = std::fs::read_dir(project.path(".concord/shadows")).unwrap().collect();
    assert_eq!(shadows.len(), 1, "{shadows:?}");
    assert_eq!(project.history("log.jsonl")[0]["how"], "append");
}

#[test]
fn w10_what_was_held_back_when_the_daemon_died_is_in_recovered() {
    let mut project = project();
    let mut writer = Puppet::new(&project);
    writer.does(OPEN);
    writer.does("os.write(fd, b'whole\\nhalf')");
    let report = project.crash_and_recover();
    assert!(report.to_string().contains("log.jsonl"), "{report}");
    project.mount();
    assert_eq!(project.read("log.jsonl"), "first\nwhole\n");
    assert_eq!(recovered(&project), ["half"]);
}

/// As when the daemon is killed between a write and the note of it, which a test cannot hit.
#[test]
fn w10_f1_what_was_being_appended_when_the_daemon_died_is_cut_off_and_the_log_goes_on() {
    let mut project = project();
    let mut writer = Puppet::new(&project);
    writer.does(OPEN);
    writer.does("os.write(fd, b'whole\\n')");
    project.kill_daemon();
    rustix::mount::unmount(project.root(), rustix::mount::UnmountFlags::DETACH).unwrap();
    let log = std::fs::OpenOptions::new().append(true).open(project.path("log.jsonl"));
    std::io::Write::write_all(&mut log.unwrap(), b"in flight\nhal").unwrap();
    let recover = || support::on(&["recover"], &project.root());
    let said = recover();
    assert!(said.status.success(), "{}", support::text(&said.stderr));
    assert_eq!(project.read("log.jsonl"), "first\nwhole\n");
    assert!(recover().status.success());
    project.mount();
    succeed(project.sh("echo next >> log.jsonl"));
    assert_eq!(project.read("log.jsonl"), "first\nwhole\nnext\n");
    assert_eq!(recovered(&project), ["in flight\nhal"], "once");
}

#[test]
fn w10_with_append_close_nothing_is_seen_before_the_close() {
    watchdog();
    let project = Project::with(&[("log.jsonl", "first\n"), ("concord.toml", "append = \"close\"\n")]);
    let (mut one, mut two) = (Puppet::new(&project), Puppet::new(&project));
    for (writer, name) in [(&mut one, "one"), (&mut two, "two")] {
        writer.does(OPEN);
        assert_ne!(
            writer.does(&format!("os.write(fd, b'{name} a\\n'), os.write(fd, b'{name} b\\n')")),
            "EBUSY"
        );
    }
    assert_eq!(project.read("log.jsonl"), "first\n");
    assert_eq!(two.does("os.close(fd)"), "None");
    assert_eq!(project.read("log.jsonl"), "first\ntwo a\ntwo b\n");
    assert_eq!(one.does("os.close(fd)"), "None");
    assert_eq!(project.read("log.jsonl"), "first\ntwo a\ntwo b\none a\none b\n");
}

#[test]
fn w10_what_is_no_lines_is_published_at_close() {
    let project = project();
    let mut writer = Puppet::new(&project);
    writer.does(OPEN);
    writer.does("data = bytes(range(1, 10)) * 200000");
    writer.does("[os.write(fd, data[at:at + 65536]) for at in range(0, len(data), 65536)] and None");
    writer.does("os.write(fd, b'\\n')");
    succeed(project.sh("echo line >> log.jsonl"));
    assert_eq!(project.read("log.jsonl"), "first\nline\n");
    assert_eq!(writer.does("os.close(fd)"), "None");
    let content = std::fs::read(project.path("log.jsonl")).unwrap();
    let data: Vec<u8> = (1..10).collect::<Vec<u8>>().repeat(200_000);
    assert_eq!(content.len(), 11 + data.len() + 1);
    assert!(content.starts_with(b"first\nline\n") && content[11..].starts_with(&data));
}

#[test]
fn w10_an_appender_follows_a_renamed_file_and_a_removed_one_keeps_its_lines() {
    let project = project();
    let mut logger = Puppet::new(&project);
    logger.does(OPEN);
    logger.does("os.write(fd, b'one\\n')");
    succeed(project.sh("mv log.jsonl old.jsonl"));
    logger.does("os.write(fd, b'two\\n')");
    assert_eq!(project.read("old.jsonl"), "first\none\ntwo\n");
    succeed(project.sh("mv old.jsonl plain.txt; echo new > log.jsonl"));
    logger.does("os.write(fd, b'three\\n')");
    assert_eq!(project.read("plain.txt"), "first\none\ntwo\nthree\n");
    assert_eq!(project.read("log.jsonl"), "new\n");
    assert_eq!(logger.does("os.close(fd)"), "None");
    logger.does(OPEN);
    logger.does("os.write(fd, b'four\\n')");
    succeed(project.sh("rm log.jsonl"));
    assert_ne!(logger.does("os.write(fd, b'five\\n')"), "ENOENT");
    assert_eq!(logger.does("os.close(fd)"), "None");
    assert!(!project.path("log.jsonl").exists());
    assert_eq!(recovered(&project), ["five\n"]);
}

#[test]
fn w10_a_forced_unmount_keeps_what_is_finished_and_sets_the_rest_aside() {
    let mut project = project();
    let mut logger = Puppet::new(&project);
    logger.does(OPEN);
    logger.does("os.write(fd, b'whole\\nhalf')");
    let mut command = support::concord(&["unmount", "--force"]);
    command.arg(project.root());
    succeed(command);
    assert_eq!(project.read("log.jsonl"), "first\nwhole\n");
    project.mount();
    assert_eq!(recovered(&project), ["half"]);
    let file = std::fs::File::open(project.path("log.jsonl")).unwrap();
    let mut last = [0];
    file.read_exact_at(&mut last, 11).unwrap();
}
