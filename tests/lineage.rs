//! W3: what a process that has a coordinated file open, and its children, do to the file by its name: as in a plain directory.

mod support;

use support::puppet::Puppet;
use support::twin::Twin;
use support::{Project, eventually, succeed, watchdog};

fn twin() -> Twin {
    Twin::with(&[
        ("f.md", "what was there before\n"),
        ("g.md", "another\n"),
        ("new.txt", "new\n"),
    ])
}

/// What the scripts print and leave is what they do in a plain directory, each in a project of its own.
fn same(scripts: &[&str]) {
    for script in scripts {
        let twin = twin();
        twin.same(script);
        eventually("no session is open", || {
            twin.project.status()["sessions"].as_array().unwrap().is_empty()
        });
        assert_eq!(twin.project.recovered().len(), 0, "{script}");
    }
}

/// rename(2) of one name over the other, which mv(1) does not call where it sees that they are one file.
const RENAME: &str = "rename() { python3 -c 'import os, sys; os.rename(*sys.argv[1:])' \"$@\"; }\n";

#[test]
fn w6_renaming_one_name_of_a_file_over_another_leaves_what_is_being_written() {
    for (from, to) in [
        ("g.orig", "f.md"),
        ("f.md", "g.orig"),
        ("k.md", "f.md"),
        ("f.md", "k.md"),
    ] {
        let other = if from == "f.md" { to } else { from };
        for mode in ["<>", ">"] {
            same(&[&format!(
                "{RENAME}ln f.md {other}; exec 9{mode}f.md; echo one >&9; rename {from} {to}; echo two >&9; exec 9>&-; cat f.md {other}; stat -c %h f.md"
            )]);
        }
    }
    watchdog();
    for (from, to) in [("o.txt", "f.md"), ("f.md", "o.txt")] {
        let project = Project::with(&[("f.md", "v1\n")]);
        succeed(project.sh(&format!(
            "{RENAME}ln f.md o.txt; exec 9<>f.md; echo v2 >&9; rename {from} {to}; echo v3 >&9; exec 9>&-"
        )));
        let versions = project.history("f.md");
        assert_eq!(
            (versions.len(), &versions[0]["how"]),
            (2, &"close".into()),
            "{versions:?}"
        );
    }
}

#[test]
fn w8_w9_the_name_that_a_lineage_has_removed_is_free_for_its_exclusive_creation() {
    for mode in ["<>", ">", ">>"] {
        for written in ["true", "echo written >&9"] {
            for removed in ["rm f.md", "mv f.md k.md", "mv f.md f.bak"] {
                let create = "python3 -c \"f = open('f.md', 'x'); f.write('created'); f.close()\"";
                same(&[
                    &format!("exec 9{mode}f.md; {written}; {removed}; {create}; cat f.md; exec 9>&-"),
                    &format!(
                        "exec 9{mode}f.md; {written}; {removed}; ( set -C; echo new > f.md; ! echo newer > f.md ) 2> $OUT/no; cat f.md; exec 9>&-"
                    ),
                ]);
            }
        }
    }
    same(&[
        "( flock 9; install -m 600 new.txt f.md ) 9<>f.md",
        "( flock 9; cp --remove-destination new.txt f.md ) 9>f.md",
        // The kernel asks whether the name is promised before it makes these.
        "rm f.md; ( rm f.md; mkdir f.md; rmdir f.md; ln -s g.md f.md; rm f.md; ln g.md f.md ) 9>f.md",
        "rm f.md; ( rm f.md; set -C; echo new > f.md ) 9>f.md",
        "( rm f.md; mv -n g.md f.md ) 9<>f.md",
    ]);
}

#[test]
fn w8_w9_who_creates_the_removed_name_exclusively_is_alone() {
    watchdog();
    let project = Project::with(&[("f.md", "v1\n")]);
    let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
    let create = "os.open('f.md', os.O_CREAT | os.O_EXCL | os.O_WRONLY)";
    assert_eq!(holder.does("f = open('f.md', 'r+')"), "ok");
    assert_eq!(holder.does("os.unlink('f.md')"), "None");
    assert_eq!(holder.does(&format!("g = {create}")), "ok");
    for puppet in [&mut other, &mut holder] {
        assert!(puppet.does(create).contains("EEXIST"));
    }
    assert_eq!(holder.does("os.write(g, b'new')"), "3");
    assert_eq!(other.does("os.path.exists('f.md')"), "False");
    assert_eq!(holder.does("os.close(g)"), "None");
    assert_eq!(other.does("get('f.md')"), "new");
    assert_eq!(holder.does("f.close()"), "None");
    assert_eq!(other.does("get('f.md')"), "new");

    // Also of a process whose child creates it, and who has only the removed file open itself.
    assert_eq!(holder.does("f = open('f.md', 'r+')"), "ok");
    assert_eq!(holder.does("os.unlink('f.md')"), "None");
    let child = "child = subprocess.Popen(['sh', '-c', 'set -C; exec 9> f.md; echo; read end'], stdin=-1, stdout=-1)";
    assert_eq!(holder.does(child), "ok");
    assert_eq!(holder.does("child.stdout.readline()"), "b'\\n'");
    assert!(holder.does(create).contains("EEXIST"));
    assert_eq!(holder.does("child.communicate(), child.returncode"), "((b'', None), 1)");
}

#[test]
fn w3_w12_metadata_that_a_child_changes_by_name_is_the_files_and_says_nothing_about_its_content() {
    let python = "python3 -c 'import os; os.setxattr(\"f.md\", \"user.a\", b\"1\")'";
    let shown = "python3 -c 'import os; print(os.getxattr(\"f.md\", \"user.a\"))'";
    for mode in ["<>", ">"] {
        for change in [
            "chmod 600 f.md",
            "touch f.md",
            "chown 0:1 f.md",
            "chmod 600 /proc/self/fd/9",
        ] {
            same(&[
                &format!(
                    "( flock 9; {change}; cat new.txt > f.md; stat -c '%a %u %g' f.md ) 9{mode}f.md; stat -c '%a %u %g' f.md"
                ),
                &format!("( flock 9; {change}; cp new.txt t; mv t f.md ) 9{mode}f.md"),
                &format!("( flock 9; cat new.txt > f.md; {change} ) 9{mode}f.md; stat -c '%a %u %g' f.md"),
                &format!("( flock 9; {change} ) 9{mode}f.md; stat -c '%a %u %g' f.md"),
                // A file that is only coming to be.
                &format!("rm f.md; ( flock 9; {change}; cat new.txt > f.md ) 9{mode}f.md; stat -c '%a %u %g' f.md"),
            ]);
        }
        same(&[
            &format!("( flock 9; {python}; cat new.txt > f.md; {shown} ) 9{mode}f.md; {shown}"),
            &format!("( flock 9; cat new.txt > f.md; {python} ) 9{mode}f.md; {shown}"),
        ]);
    }
    same(&["( flock 9; touch -d 2001-01-01 f.md ) 9>f.md; stat -c %Y f.md"]);
}

#[test]
fn w8_a_holder_links_the_version_that_the_name_leads_to() {
    for to in ["f.bak", "k.md"] {
        for mode in ["<>", ">"] {
            same(&[
                &format!("( flock 9; ln f.md {to} ) 9{mode}f.md; stat -c %h f.md {to}"),
                &format!("( flock 9; ln f.md {to}; echo x >&9 ) 9{mode}f.md; stat -c %h f.md {to}"),
                &format!("( flock 9; ln f.md {to}; cat new.txt > f.md ) 9{mode}f.md; stat -c %h f.md {to}"),
                &format!("( echo x >&9; ln f.md {to}; echo y >&9 ) 9{mode}f.md; stat -c %h f.md {to}"),
                // It has another name by then, and lives on by that.
                &format!("( echo x >&9; ln f.md {to}; rm f.md; echo y >&9 ) 9{mode}f.md; cat {to}; stat -c %h {to}"),
                &format!(
                    "( echo x >&9; ln f.md {to}; cp new.txt t; mv t f.md; echo y >&9 ) 9{mode}f.md; cat {to}; stat -c %h {to}"
                ),
                &format!("cat f.md; ln f.md {to}; cat {to}; ( echo x >&9; rm f.md; echo y >&9 ) 9{mode}f.md; cat {to}"),
            ]);
        }
        same(&[
            &format!("( flock 9; ln f.md {to}; cp new.txt t; mv t f.md; cat {to} ) 9<>f.md; cat {to}"),
            // There is no version yet.
            &format!("rm f.md; ( ln f.md {to}; stat -c %h f.md {to}; echo x >&9 ) 9>f.md; stat -c %h f.md {to}"),
            &format!("rm f.md; ( echo x >&9; ln f.md {to}; rm f.md; cat {to}; echo y >&9 ) 9>f.md; cat {to}"),
            &format!("rm f.md; ( echo x >&9; ln f.md {to}; rm f.md; echo y >&9; rm {to} ) 9>f.md"),
        ]);
    }
    // os.link() of Python does not follow the link in /proc.
    let link = "python3 -c 'import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.linkat(-100, b\"/proc/self/fd/9\", -100, b\"o.txt\", 0x400), ctypes.get_errno())'";
    same(&[
        "( flock 9; ln -f f.md g.md ) 9<>f.md; stat -c %h f.md g.md",
        "( flock 9; ln -f f.md g.md; echo x >&9 ) 9<>f.md",
        &format!("( rm f.md; {link} ) 9<>f.md"),
        &format!("( rm f.md; echo x > f.md; {link} ) 9<>f.md"),
    ]);
}

#[test]
fn w8_others_never_read_by_a_new_name_what_a_holder_has_not_published() {
    watchdog();
    for name in ["copy.txt", "COPY.md"] {
        let project = Project::with(&[("f.md", "v1")]);
        let (mut holder, mut other) = (Puppet::new(&project), Puppet::new(&project));
        assert_eq!(holder.does("f = open('f.md', 'w')"), "ok");
        assert_eq!(holder.does("(f.write('staged'), f.flush())"), "(6, None)");
        assert_eq!(holder.does(&format!("os.link('f.md', '{name}')")), "None");
        assert_eq!(other.does(&format!("get('f.md'), get('{name}')")), "('v1', 'v1')");
        assert_eq!(holder.does("(f.write(' whole'), f.close())"), "(6, None)");
        assert_eq!(
            other.does(&format!("get('f.md'), get('{name}')")),
            "('staged whole', 'staged whole')"
        );
    }
}

#[test]
fn w8_what_is_written_to_a_file_that_was_removed_goes_with_it_also_after_a_rename() {
    same(&[
        "rm f.md; ( echo x >&9; mv f.md k.md; rm k.md; echo y >&9 ) 9>f.md",
        "( echo x >&9; mv f.md k.md; rm k.md; echo y >&9 ) 9<>f.md",
        "( echo x >&9; mv f.md k.md; echo y >&9; rm k.md; echo z >&9 ) 9<>f.md",
        "( echo x >&9; mv f.md k.md; rm k.md; echo y >&9; echo n > k.md ) 9<>f.md",
    ]);
    let project = Project::with(&[("f.md", "v1\n")]);
    succeed(project.sh("( echo x >&9; mv f.md k.md; rm k.md; echo y >&9 ) 9<>f.md"));
    eventually("nothing is open", || {
        project.status()["sessions"].as_array().unwrap().is_empty()
    });
    assert_eq!(project.recovered().len(), 0);
}

#[test]
fn w11_who_appends_changes_the_mode_of_the_file_that_its_lines_go_to() {
    for between in [
        "pass",
        "os.ftruncate(fd, 5)",
        "os.write(fd, b'line\\n')",
        "os.write(fd, b'part')",
    ] {
        same(&[&format!(
            "python3 - <<'P'\nimport os\nfd = os.open('f.md', os.O_WRONLY | os.O_APPEND)\n{between}\nos.fchmod(fd, 0o603)\nos.close(fd)\nP\n"
        )]);
    }
}

#[test]
fn w3_who_has_created_a_file_or_looked_where_it_ends_goes_on_from_what_a_child_has_saved() {
    for flags in [
        "O_CREAT",
        "O_CREAT | os.O_EXCL",
        "O_CREAT | os.O_APPEND",
        "O_CREAT | os.O_TRUNC",
    ] {
        for access in ["O_RDWR", "O_WRONLY"] {
            if (access, flags) == ("O_WRONLY", "O_CREAT | os.O_APPEND") {
                // It makes no session.
                continue;
            }
            for goes_on in [
                "os.lseek(fd, 0, 2); os.write(fd, b'+more')",
                "os.ftruncate(fd, 3)",
                "pass",
            ] {
                if flags.contains("TRUNC") && !goes_on.contains("lseek") {
                    // It means to write a whole file.
                    continue;
                }
                same(&[&format!(
                    "python3 - <<'P'\nimport os\nfd = os.open('new.md', os.{access} | os.{flags}, 0o644)\n\
                    os.system('printf hello > new.md')\n{goes_on}\nos.close(fd)\nP\ncat new.md"
                )]);
            }
        }
    }
    same(&[
        "( flock 9; printf hello > new.md; printf Z >&9 ) 9<> new.md; cat new.md",
        "( printf hello > new.md; printf Z >&9 ) 9<> new.md; cat new.md",
    ]);
}

/// The node by which that is read stands for the version before as soon as the file has an image, and no other knows the other name.
#[test]
fn w6_what_is_written_to_a_file_that_loses_a_name_shows_in_the_other_though_somebody_reads_it_by_that() {
    for gone in ["rm f.md", "cp f.md tmp; mv -f tmp f.md", "ln -sf g.md f.md"] {
        for when in ["{gone}; echo one >&9", "echo one >&9; {gone}"] {
            let write = when.replace("{gone}", gone);
            same(&[&format!(
                "ln f.md k.md; exec 8<k.md; read -r first <&8; exec 9<>f.md; {write}; exec 9>&- 8<&-; cat k.md; stat -c %h k.md"
            )]);
        }
    }
}
