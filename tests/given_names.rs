//! W8 and W11: names that are given to, and taken from, a file while it is written, waited for or linked.

mod support;

use support::linked::{inode, linked};
use support::puppet::Puppet;
use support::{Project, watchdog};

#[test]
fn w11_names_that_come_and_go_while_it_is_written_are_names_of_the_same_file() {
    watchdog();
    let project = Project::with(&[("a.md", "v1\n")]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    // A second name while a session is open.
    holder.does("f = open('a.md', 'r+')");
    holder.does("(f.seek(0, 2), f.write('held\\n'), f.flush())");
    assert_eq!(other.does("os.link('a.md', 'b.md')"), "None");
    other.starts("(lambda f: (f.seek(0, 2), f.write('other\\n'), f.close()))(open('b.md', 'r+'))");
    project.await_sessions(1, 1);
    holder.does("f.close()");
    other.says();
    for name in ["a.md", "b.md"] {
        assert_eq!(
            (project.read(name), inode(&project, name).1),
            ("v1\nheld\nother\n".into(), 2)
        );
    }
    // One name goes: what is written to the other is its own.
    assert_eq!(other.does("os.unlink('a.md')"), "None");
    assert_eq!(other.does("put('b.md', 'alone\\n')"), "None");
    assert_eq!((project.read("b.md"), inode(&project, "b.md").1), ("alone\n".into(), 1));
    assert_eq!(other.does("os.path.exists('a.md')"), "False");
    // A file that replaces one of two names leaves the other as it was.
    assert_eq!(other.does("os.link('b.md', 'c.md')"), "None");
    assert_eq!(other.does("put('c.md', 'both\\n')"), "None");
    assert_eq!(other.does("put('x.tmp', 'replaced\\n')"), "None");
    assert_eq!(other.does("os.replace('x.tmp', 'b.md')"), "None");
    assert_eq!(
        (project.read("b.md"), inode(&project, "b.md").1),
        ("replaced\n".into(), 1)
    );
    assert_eq!((project.read("c.md"), inode(&project, "c.md").1), ("both\n".into(), 1));
    assert_eq!(other.does("put('b.md', 'b\\n'), put('c.md', 'c\\n')"), "(None, None)");
    assert_eq!(
        (project.read("b.md"), project.read("c.md")),
        ("b\n".into(), "c\n".into())
    );
    // Renamed, it is the same file still.
    assert_eq!(
        other.does("os.link('b.md', 'd.md'), put('d.md', 'e\\n'), os.rename('b.md', 'f.md')"),
        "(None, None, None)"
    );
    assert_eq!(other.does("put('f.md', 'last\\n')"), "None");
    assert_eq!(
        (project.read("d.md"), project.read("f.md")),
        ("last\n".into(), "last\n".into())
    );
}

#[test]
fn w11_a_name_that_was_given_beside_a_session_is_in_its_queue_though_the_kernel_has_forgotten_the_other() {
    watchdog();
    let project = Project::with(&[("a.md", "v1\n")]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    holder.does("f = open('a.md', 'r+')");
    assert_eq!(other.does("os.link('a.md', 'b.md')"), "None");
    // proc_sys_vm(5): dentries and inodes.
    std::fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    let at_once = other.does("os.open('b.md', os.O_WRONLY | os.O_NONBLOCK)");
    assert!(["EAGAIN", "EWOULDBLOCK"].contains(&&*at_once), "{at_once}");
}

/// Both names are one file when it begins to wait.
#[test]
fn w11_who_waited_by_one_name_saves_that_though_the_other_leads_elsewhere_when_its_turn_comes() {
    for (change, left) in [
        ("os.unlink('a.md')", None),
        ("os.replace('x.tmp', 'a.md')", Some("replaced")),
    ] {
        watchdog();
        let project = Project::with(&[("a.md", "v1"), ("x.tmp", "replaced")]);
        let [mut holder, mut changer, mut saver] = [(); 3].map(|()| Puppet::new(&project));
        assert_eq!(holder.does("os.link('a.md', 'b.md')"), "None");
        assert_eq!(holder.does("f = open('a.md', 'r+')"), "ok");
        changer.starts(change);
        project.await_sessions(1, 1);
        saver.starts("put('b.md', 'by its own name')");
        project.await_sessions(1, 2);
        assert_eq!(holder.does("f.close()"), "None");
        assert_eq!([changer.says(), saver.says()], ["None", "None"], "{change}");
        assert_eq!(project.read("b.md"), "by its own name", "{change}");
        assert_eq!(
            std::fs::read_to_string(project.path("a.md")).ok().as_deref(),
            left,
            "{change}"
        );
    }
}

#[test]
fn w8_a_file_that_lost_a_name_beside_a_session_is_linked_by_the_other_that_it_has() {
    for written in ["None", "f.write('zz')"] {
        watchdog();
        let project = Project::with(&[("a.md", "v1")]);
        let mut holder = Puppet::new(&project);
        for step in [
            // By the mount, so that the node has both names.
            "os.link('a.md', 'b.md')",
            "f = open('a.md', 'r+')",
            "os.unlink('a.md')",
            written,
            "f.close()",
            "f = open('b.md', 'r+')",
            "os.link('b.md', 'c.md')",
        ] {
            assert!(["None", "ok", "2"].contains(&&*holder.does(step)), "{step}, {written}");
        }
        assert_eq!(holder.does("f.write('QQ'), f.close()"), "(2, None)");
        for name in ["b.md", "c.md"] {
            assert_eq!(
                (project.read(name), inode(&project, name).1),
                ("QQ".into(), 2),
                "{written}"
            );
        }
    }
}

/// The kernel counts links itself, and links nothing of which it counts none.
#[test]
fn w8_a_name_that_is_there_is_linked_while_others_of_the_file_come_and_go() {
    watchdog();
    let project = linked("v1", &[]);
    const COMES_AND_GOES: &str = "def comes_and_goes(name):
    failed = []
    for _ in range(1500):
        try:
            os.link('a.md', name)
            os.unlink(name)
        except OSError as error:
            failed.append(error)
    return failed";
    let mut all = ["c.md", "e.md", "f.md"].map(|name| (name, Puppet::new(&project)));
    assert_eq!(all[0].1.does("os.unlink('b.md')"), "None");
    for (name, puppet) in &mut all {
        assert_eq!(puppet.does(COMES_AND_GOES), "ok");
        puppet.starts(&format!("comes_and_goes('{name}')"));
    }
    for (name, puppet) in &mut all {
        assert_eq!(puppet.says(), "[]", "{name}");
    }
    assert_eq!(inode(&project, "a.md").1, 1);
}

#[test]
fn w11_a_file_that_lost_its_other_name_is_found_by_the_name_that_it_has() {
    watchdog();
    let project = Project::with(&[]);
    let mut other = Puppet::new(&project);
    for step in [
        "put('a.md', 'first')",
        "os.link('a.md', 'x.txt')",
        "put('a.md', 'in place')",
        // So the kernel goes on to know the node of the ordinary name, though it opens nothing.
        "known = os.open('x.txt', os.O_PATH)",
        "os.unlink('x.txt')",
        "os.rename('a.md', 'b.md')",
        "os.rename('b.md', 'y.txt')",
        "put('a.md', 'another')",
        "put('y.txt', 'ordinary')",
        "os.rename('y.txt', 'c.md')",
        "put('c.md', 'coordinated')",
    ] {
        assert!(["None", "ok"].contains(&&*other.does(step)), "{step}");
    }
    assert_eq!(
        ["a.md", "c.md"].map(|name| project.read(name)),
        ["another", "coordinated"]
    );
}

/// By the ordinary name the file would not be found to be coordinated, and who saves it by the other would write into it.
#[test]
fn w8_w11_no_ordinary_name_stands_for_a_file_that_has_a_coordinated_one() {
    let project = linked("v1\n", &[]);
    let mut puppet = Puppet::new(&project);
    // Somebody uses a file with several names.
    assert_eq!(puppet.does("put('a.md', 'v2')"), "None");
    for step in [
        "put('x', 'one')",
        "os.link('x', 'y')",
        "os.rename('y', 'c.md')",
        "os.rename('x', 'y')",
        "put('c.md', 'two')",
        "put('c.md', 'three')",
    ] {
        assert_eq!(puppet.does(step), "None", "{step}");
    }
    assert_eq!([project.read("c.md"), project.read("y")], ["three", "three"]);
    assert_eq!(puppet.does("fd = os.open('c.md', os.O_WRONLY | os.O_TRUNC)"), "ok");
    assert_eq!(puppet.does("os.write(fd, b'staged'), get('c.md')"), "(6, 'staged')");
    assert_eq!(project.read("c.md"), "three");
    assert_eq!(puppet.does("os.close(fd)"), "None");
    let history = project.history("c.md");
    let how: Vec<_> = history.iter().map(|version| version["how"].as_str().unwrap()).collect();
    assert_eq!(how, ["close", "close", "close", "found"]);
    assert_eq!(project.show("c.md", 2), b"two");
}

/// Each way by which the name that it was locked by is no longer its own.
#[test]
fn w12_a_lock_stays_with_a_file_that_loses_one_of_its_names() {
    watchdog();
    let leaving = [
        "os.unlink('a.md')",
        "put('n.tmp', ''); os.rename('n.tmp', 'a.md')",
        "os.rename('a.md', 't.tmp')",
    ];
    for (open, leaves) in ["O_RDONLY", "O_RDWR", "O_WRONLY | os.O_APPEND"]
        .into_iter()
        .flat_map(|open| leaving.map(|leaves| (open, leaves)))
    {
        let project = Project::with(&[("a.md", "base\n")]);
        std::fs::hard_link(project.path("a.md"), project.path("b.md")).unwrap();
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        assert_eq!(holder.does(&format!("fd = os.open('a.md', os.{open})")), "ok");
        assert_eq!(holder.does("fcntl.flock(fd, fcntl.LOCK_EX)"), "None");
        let left = holder.does(leaves);
        assert!(["None", "ok"].contains(&&*left), "{leaves}: {left}");
        let lock = "mine = os.open('b.md', os.O_RDONLY); fcntl.flock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)";
        assert_eq!(other.does(lock), "EAGAIN", "{open}, {leaves}");
        assert_eq!(holder.does("os.close(fd)"), "None");
        assert_eq!(other.does(lock), "ok", "{open}, {leaves}");
    }
}

#[test]
fn w12_a_lock_by_an_ordinary_name_is_one_by_the_coordinated_name() {
    watchdog();
    for asked in [["a.md", "t.tmp"], ["t.tmp", "a.md"]] {
        let project = Project::with(&[("t.tmp", "base\n")]);
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        let lock =
            |name| format!("fd = os.open('{name}', os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)");
        assert_eq!(holder.does(&lock("t.tmp")), "ok");
        std::fs::hard_link(project.path("t.tmp"), project.path("a.md")).unwrap();
        for name in asked {
            assert_eq!(other.does(&lock(name)), "EAGAIN", "{name}");
        }
        assert_eq!(holder.does("os.close(fd)"), "None");
        for name in asked {
            assert_eq!(other.does(&lock(name)), "ok", "{name}");
            assert_eq!(other.does("os.close(fd)"), "None");
        }
    }
}

/// He goes on under the name that is left, and so do those who wait for him; the one that he has removed is free.
#[test]
fn w11_who_opens_a_name_that_is_left_waits_for_who_has_removed_the_one_that_stood_for_all() {
    watchdog();
    // By which of both all of them queue is not for us to say.
    for (removed, left) in [("a.md", "b.md"), ("b.md", "a.md")] {
        let project = linked("v1\n", &[]);
        let [mut holder, mut before, mut after] = [(); 3].map(|()| Puppet::new(&project));
        holder.does(&format!("f = open('{removed}', 'r+')"));
        before.starts(&format!(
            "(lambda f: (f.seek(0, 2), f.write('before\\n'), f.close()))(open('{left}', 'r+'))"
        ));
        project.await_sessions(1, 1);
        assert_eq!(holder.does(&format!("os.unlink('{removed}')")), "None");
        assert_eq!(after.does(&format!("put('{removed}', 'another\\n')")), "None");
        let at_once = after.does(&format!("os.open('{left}', os.O_WRONLY | os.O_NONBLOCK)"));
        assert!(["EAGAIN", "EWOULDBLOCK"].contains(&&*at_once), "{at_once}");
        holder.does("(f.seek(0, 2), f.write('held\\n'), f.close())");
        before.says();
        assert_eq!(project.read(left), "v1\nheld\nbefore\n");
        assert_eq!(project.read(removed), "another\n");
    }
}

/// Otherwise what he goes on to write would take back what they have put there.
#[test]
fn w8_a_saver_who_waits_for_a_name_that_is_left_waits_on_for_who_has_removed_the_other() {
    watchdog();
    for (removed, left) in [("a.md", "b.md"), ("b.md", "a.md")] {
        let project = linked("v1\n", &[]);
        let [mut holder, mut saver] = [(); 2].map(|()| Puppet::new(&project));
        holder.does(&format!("f = open('{removed}', 'r+')"));
        saver.does("put('new.txt', 'saved\\n')");
        saver.starts(&format!("os.replace('new.txt', '{left}')"));
        project.await_sessions(1, 1);
        assert_eq!(holder.does(&format!("os.unlink('{removed}')")), "None");
        project.await_sessions(1, 1);
        holder.does("(f.seek(0, 2), f.write('held\\n'), f.close())");
        assert_eq!(saver.says(), "None");
        assert_eq!(project.read(left), "saved\n", "{left}");
        let versions: Vec<_> = project
            .history(left)
            .iter()
            .map(|version| version["how"].clone())
            .collect();
        assert_eq!(versions[..2], ["rename", "close"], "{versions:?}");
    }
}
