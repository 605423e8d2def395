//! W8: what takes the place of a coordinated file by rename(2), where that is something of which there are no versions itself.

mod support;

use support::puppet::Puppet;
use support::{Project, concord, succeed, watchdog};

/// What each does to `f.md`, and what that holds then; `None`: it is no regular file.
const WAYS: [(&str, Option<&str>); 9] = [
    ("ln -f linked.md f.md", Some("linked\n")),
    ("cp -lf linked.md f.md", Some("linked\n")),
    ("mv -f linked2.md f.md", Some("linked\n")),
    ("ln linked.md tmp && mv -f tmp f.md", Some("linked\n")),
    (
        "echo two >> linked.md; ln linked.md c.md; mv -f c.md f.md",
        Some("linked\ntwo\n"),
    ),
    ("mv -f plain2 f.md", Some("plain\n")),
    ("ln -sf linked.md f.md", None),
    ("mkfifo pipe && mv -f pipe f.md", None),
    ("ln -s nowhere link.md && mv -f link.md f.md", None),
];

fn project() -> Project {
    watchdog();
    let mut project = Project::unmounted(&[("linked.md", "linked\n"), ("plain", "plain\n"), ("f.md", "found\n")]);
    std::fs::hard_link(project.path("linked.md"), project.path("linked2.md")).unwrap();
    std::fs::hard_link(project.path("plain"), project.path("plain2")).unwrap();
    project.mount();
    project
}

/// The last versions of a file, oldest first: how they came, and what each holds.
fn versions(project: &Project, name: &str) -> Vec<(String, Option<String>)> {
    let history = project.history(name);
    let shown = |version: &serde_json::Value| {
        let how = version["how"].as_str().unwrap().to_owned();
        let content = (how != "unlink").then(|| project.show(name, version["version"].as_u64().unwrap()));
        (how, content.map(|content| String::from_utf8(content).unwrap()))
    };
    history.iter().rev().map(shown).collect()
}

#[test]
fn w8_whatever_takes_a_files_place_the_versions_of_that_stay() {
    for saved in [false, true] {
        for (way, comes) in WAYS {
            let mut project = project();
            let mut expected = vec![("found", Some("found\n"))];
            if saved {
                succeed(project.sh("echo saved > f.md"));
                expected.push(("close", Some("saved\n")));
            }
            succeed(project.sh(way));
            expected.push(match comes {
                Some(content) => ("rename", Some(content)),
                None => ("unlink", None),
            });
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(how, content)| (how.to_owned(), content.map(str::to_owned)))
                .collect();
            project.crash_and_recover();
            project.mount();
            match comes {
                Some(content) => assert_eq!(project.read("f.md"), content, "{way}"),
                // By the name of a link one asks for the history of what it leads to.
                None => std::fs::remove_file(project.path("f.md")).unwrap(),
            }
            assert_eq!(versions(&project, "f.md"), expected, "{way}, {saved}");
            project.unmount();
        }
    }
}

#[test]
fn w8_what_was_replaced_by_a_link_is_restored() {
    let project = project();
    succeed(project.sh("echo saved > f.md; ln -sf linked.md f.md"));
    std::fs::remove_file(project.path("f.md")).unwrap();
    let mut restore = concord(&["restore"]);
    restore.arg(format!("{}@2", project.path("f.md").display()));
    succeed(restore);
    assert_eq!(project.read("f.md"), "saved\n");
    assert_eq!(project.read("linked.md"), "linked\n");
}

#[test]
fn w8_a_linked_file_takes_the_place_of_one_that_is_written_when_that_is_closed() {
    let project = project();
    let mut writer = Puppet::new(&project);
    let mut other = Puppet::new(&project);
    assert_eq!(writer.does("fd = os.open('f.md', os.O_WRONLY | os.O_TRUNC)"), "ok");
    other.starts("os.link('linked.md', 'tmp'), os.rename('tmp', 'f.md')");
    assert_eq!(writer.does("os.write(fd, b'slow'), os.close(fd)"), "(4, None)");
    assert_eq!(other.says(), "(None, None)");
    let kept = versions(&project, "f.md");
    let how: Vec<_> = kept.iter().map(|(how, _)| how.as_str()).collect();
    assert_eq!(how, ["found", "close", "rename"]);
    assert_eq!(kept[1].1.as_deref(), Some("slow"));
}

#[test]
fn w10_who_appends_to_a_file_whose_place_a_linked_one_takes_goes_on_there() {
    let project = project();
    let mut logger = Puppet::new(&project);
    assert_eq!(logger.does("fd = os.open('f.md', os.O_WRONLY | os.O_APPEND)"), "ok");
    assert_eq!(
        logger.does("os.write(fd, b'one\\x1fhalf'.replace(b'\\x1f', b'\\n'))"),
        "8"
    );
    succeed(project.sh("ln -f linked.md f.md"));
    assert_eq!(logger.does("os.write(fd, bytes([10])), os.close(fd)"), "(1, None)");
    assert_eq!(project.read("f.md"), "linked\nhalf\n");
    assert_eq!(project.read("linked2.md"), "linked\nhalf\n");
    assert_eq!(versions(&project, "f.md").first().unwrap().0, "found");
    let kept = versions(&project, "f.md");
    assert!(
        kept.iter()
            .any(|(_, content)| content.as_deref() == Some("found\none\n")),
        "{kept:?}"
    );
}

#[test]
fn w10_who_appends_to_a_linked_file_goes_on_when_its_name_takes_the_place_of_another() {
    for (from, left) in [("linked2.md", "linked.md"), ("linked.md", "linked2.md")] {
        let project = project();
        let mut logger = Puppet::new(&project);
        assert_eq!(
            logger.does(&format!("fd = os.open('{from}', os.O_WRONLY | os.O_APPEND)")),
            "ok"
        );
        assert_eq!(logger.does("os.write(fd, b'one' + bytes([10]) + b'half')"), "8");
        succeed(project.sh(&format!("mv -f {from} f.md; echo fresh > {from}; echo more >> {from}")));
        let mut other = Puppet::new(&project);
        assert_eq!(other.does("fd = os.open('f.md', os.O_WRONLY | os.O_APPEND)"), "ok");
        assert_eq!(other.does("os.write(fd, b'other' + bytes([10]))"), "6");
        assert_eq!(logger.does("os.write(fd, bytes([10]))"), "1");
        // Each line is there for all at once, while both go on.
        assert_eq!(project.read("f.md"), "linked\none\nother\nhalf\n");
        succeed(project.sh(&format!("echo last >> {left}")));
        assert_eq!(logger.does("os.close(fd)"), "None");
        assert_eq!(other.does("os.close(fd)"), "None");
        let lines = "linked\none\nother\nhalf\nlast\n";
        assert_eq!([project.read("f.md"), project.read(left)], [lines, lines]);
        assert_eq!(project.read(from), "fresh\nmore\n");
    }
}

#[test]
fn w12_the_lock_of_a_file_whose_place_a_linked_one_takes_is_not_that_ones() {
    let project = project();
    let mut holder = Puppet::new(&project);
    let mut other = Puppet::new(&project);
    assert_eq!(
        holder.does("fd = os.open('f.md', os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX)"),
        "ok"
    );
    succeed(project.sh("mv -f plain2 f.md"));
    assert_eq!(
        other.does("fd = os.open('f.md', os.O_RDONLY); fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)"),
        "ok"
    );
}
