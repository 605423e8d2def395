//! What a whole `concord.toml` means.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use super::*;

mod arbitrary;
mod mistakes;

fn rules(text: &str) -> Rules {
    Rules::parse(text, Path::new("concord.toml")).unwrap_or_else(|e| panic!("{e}"))
}

fn coordinated(rules: &Rules, path: impl AsRef<OsStr>) -> bool {
    rules.policy(Path::new(path.as_ref())).is_some()
}

fn keep(rules: &Rules, path: &str) -> Option<u32> {
    rules.policy(Path::new(path)).map(|p| p.keep)
}

const COORDINATED: &[&str] = &[
    "README.md",
    "a/b/c/notes.md",
    ".hidden.md",
    ".md",
    "x.json",
    "x.jsonl",
    "x.ndjson",
    "x.yaml",
    "x.yml",
    "concord.toml",
    "a/.concord/x.md",
    ".concordance/x.md",
    ".concord.md",
    "target.md",
    "targets/x.md",
    "a/node_modules.json",
    ".gitignore.d/x.yml",
    ".github/workflows/ci.yml",
];

const ORDINARY: &[&str] = &[
    "",
    "README",
    "x.txt",
    "x.log",
    "x.md~",
    "x.MD",
    "md",
    ".git",
    "sub/.git",
    ".git/config.toml",
    "sub/.git/x/y.json",
    "node_modules/a/package.json",
    "web/node_modules/a/package.json",
    "target/x.json",
    "crate/target/debug/x.json",
    ".venv/x.json",
    "a/.venv/lib/x.toml",
    "a.db",
    "a.db-wal",
    "a.sqlite3.json",
    "Cargo.lock",
    ".concord",
    ".concord/x.md",
    ".concord/recovered/1/x.json",
];

#[test]
fn the_builtin_rules_coordinate_shared_text_and_leave_tools_their_trees() {
    let rules = Rules::builtin();
    for path in COORDINATED {
        assert_eq!(rules.policy(Path::new(path)), Some(&Policy::default()), "{path}");
    }
    for path in ORDINARY {
        assert_eq!(rules.policy(Path::new(path)), None, "{path}");
    }
    assert_eq!(rules.grace(), Duration::from_secs(10));
}

#[test]
fn each_builtin_exclusion_excludes_what_a_wider_inclusion_would_take() {
    // By extension alone the built-in inclusions miss databases and locks; the exclusions must hold by themselves.
    let all = rules("builtin = false\n[[rule]]\npaths = '**'");
    let globs: Vec<String> = builtin::EXCLUDED.iter().map(|g| format!("{g:?}")).collect();
    let text = format!(
        "builtin = false\n[[rule]]\npaths = '**'\n[[rule]]\npaths = [{}]\ncoordinate = false",
        globs.join(",")
    );
    let excluding = rules(&text);
    let excluded = [
        ".git",
        "a/.git",
        ".git/HEAD",
        "a/.git/b/c",
        "node_modules/a",
        "a/node_modules/b/c",
        "target/a",
        ".venv/a/b",
        "a.db",
        "d/a.db-wal",
        "a.db-shm",
        "a.db-journal",
        "a.sqlite",
        "a.sqlite3",
        "d/a.sqlite-wal",
        "a.sqlite3-shm",
        "Cargo.lock",
        "d/.lock",
    ];
    for path in excluded {
        assert!(coordinated(&all, path) && !coordinated(&excluding, path), "{path}");
    }
    for path in [".gitignore", "target", "adb", "a.db-x", "lock", "a/venv/b"] {
        assert!(coordinated(&excluding, path), "{path}");
    }
}

#[test]
fn the_default_policy_is_the_contracts() {
    let policy = Policy {
        wait: Duration::from_secs(5),
        lease_max: Duration::from_secs(300),
        keep: 20,
        max_age: None,
        max_bytes: None,
        durability: Durability::Full,
        on_stale: OnStale::Allow,
        append: Append::Lines,
    };
    assert_eq!(Policy::default(), policy);
}

#[test]
fn every_setting_of_a_rule_reaches_its_policy() {
    let text = r#"
        grace = "1min"
        [[rule]]
        paths = ["*.txt"]
        wait = "250ms"
        lease_max = "1h"
        keep = 0x10
        max_age = "30days"
        max_bytes = "64MiB"
        durability = "atomic"
        on_stale = "refuse"
        append = "close"
        [[rule]]
        paths = "*.csv"
        coordinate = true
        max_bytes = 1_000
        durability = "fast"
        on_stale = "merge"
        append = "lines"
    "#;
    let rules = rules(text);
    assert_eq!(rules.grace(), Duration::from_secs(60));
    let txt = Policy {
        wait: Duration::from_millis(250),
        lease_max: Duration::from_secs(3600),
        keep: 16,
        max_age: Some(Duration::from_secs(30 * 86_400)),
        max_bytes: Some(64 << 20),
        durability: Durability::Atomic,
        on_stale: OnStale::Refuse,
        append: Append::Close,
    };
    assert_eq!(rules.policy(Path::new("a/x.txt")), Some(&txt));
    let csv = Policy {
        max_bytes: Some(1000),
        durability: Durability::Fast,
        on_stale: OnStale::Merge,
        ..Policy::default()
    };
    assert_eq!(rules.policy(Path::new("x.csv")), Some(&csv));
    assert_eq!(rules.policy(Path::new("x.md")), Some(&Policy::default()));
}

#[test]
fn the_top_level_sets_the_defaults_of_all_rules_the_builtin_ones_included() {
    let rules = rules("keep = 3\nwait = '1s'\n[[rule]]\npaths = '*.txt'\nkeep = 4");
    let (md, txt) = (
        rules.policy(Path::new("x.md")).unwrap(),
        rules.policy(Path::new("x.txt")).unwrap(),
    );
    assert_eq!((md.keep, md.wait), (3, Duration::from_secs(1)));
    assert_eq!((txt.keep, txt.wait), (4, Duration::from_secs(1)));
}

#[test]
fn the_last_rule_that_matches_wins_alone() {
    let rules = rules(
        "[[rule]]\npaths = 'docs/**'\nkeep = 1\nwait = '1s'\n\
         [[rule]]\npaths = ['docs/*.md', 'docs/x/**']\nkeep = 2\n\
         [[rule]]\npaths = 'docs/secret.md'\ncoordinate = false\n\
         [[rule]]\npaths = 'docs/x/secret.md'\ncoordinate = false\n\
         [[rule]]\npaths = 'docs/x/s*.md'\nkeep = 5",
    );
    assert_eq!(keep(&rules, "docs/a.txt"), Some(1));
    assert_eq!(keep(&rules, "docs/a.md"), Some(2));
    assert_eq!(
        rules.policy(Path::new("docs/a.md")).unwrap().wait,
        Duration::from_secs(5),
        "nothing comes from rule 1"
    );
    assert_eq!(keep(&rules, "docs/secret.md"), None);
    assert_eq!(keep(&rules, "docs/x/secret.md"), Some(5), "included again");
    assert_eq!(keep(&rules, "other/a.md"), Some(20));
}

#[test]
fn a_rule_of_the_user_comes_after_the_builtin_ones_and_builtin_false_switches_those_off() {
    let with = rules("[[rule]]\npaths = 'target/report.json'\n[[rule]]\npaths = '*.md'\ncoordinate = false");
    assert!(coordinated(&with, "target/report.json") && !coordinated(&with, "target/other.json"));
    assert!(!coordinated(&with, "a/x.md") && coordinated(&with, "x.json"));
    let without = rules("builtin = false\n[[rule]]\npaths = '*.md'");
    assert!(coordinated(&without, "x.md") && !coordinated(&without, "x.json"));
    assert!(
        coordinated(&without, "node_modules/x.md"),
        "the exclusions are built-in rules, too"
    );
    assert!(!coordinated(&rules("builtin = false"), "x.md"));
    assert!(coordinated(&rules("builtin = true"), "x.md"));
}

#[test]
fn the_store_is_never_coordinated_whatever_a_rule_says() {
    let rules = rules("[[rule]]\npaths = ['**', '/.concord/**', '.concord', '/.concord/x.md']");
    for path in [".concord", ".concord/x.md", ".concord/a/b"] {
        assert!(!coordinated(&rules, path), "{path}");
    }
    for path in [".concordx", "a/.concord/x", "a/.concord"] {
        assert!(coordinated(&rules, path), "{path}");
    }
}

#[test]
fn globs_follow_gitignore_in_what_a_slash_means() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("*.txt", &["a.txt", "d/a.txt", "d/e/.txt"], &["a.txt/b", "a.txtx"]),
        ("TODO", &["TODO", "d/TODO"], &["TODO/a", "d/xTODO", "TODOx"]),
        ("/TODO", &["TODO"], &["d/TODO"]),
        ("/*.txt", &["a.txt"], &["d/a.txt"]),
        ("d/*.txt", &["d/a.txt"], &["a.txt", "d/e/a.txt", "c/d/a.txt"]),
        ("d/**", &["d/a", "d/e/f"], &["d", "c/d/a", "da"]),
        ("**/d/**", &["d/a", "c/d/a", "b/c/d/e/f"], &["d", "xd/a"]),
        ("d/**/a", &["d/a", "d/x/a", "d/x/y/a"], &["a", "da", "d/xa"]),
        ("**", &["a", "d/a", ".x"], &[]),
        ("/**", &["a", "d/a"], &[]),
        ("a?c", &["abc", "d/abc"], &["a/c", "ac"]),
        ("*.{x,y}", &["a.x", "d/a.y"], &["a.z"]),
        ("[ab]", &["a", "d/b"], &["c"]),
        ("[]!]", &["]", "!"], &["a"]),
        (r"\*", &["*"], &["a"]),
        (r"\[ä]", &["[ä]"], &["ä"]),
        ("ä*", &["ä", "d/äb"], &["a"]),
    ];
    for (glob, yes, no) in cases {
        let rules = rules(&format!("builtin = false\n[[rule]]\npaths = '{glob}'"));
        for path in *yes {
            assert!(coordinated(&rules, path), "{glob} must match {path}");
        }
        for path in *no {
            assert!(!coordinated(&rules, path), "{glob} must not match {path}");
        }
    }
}

#[test]
fn hostile_names_are_names() {
    let builtin = Rules::builtin();
    let long = [b"x".repeat(252), b".md".to_vec()].concat();
    assert_eq!(long.len(), 255);
    let names: &[&[u8]] = &[
        b"a\nb.md",
        b"\n/\n.md",
        b"\xff\xfe.md",
        b"dir\xff/\x80.json",
        &long,
        b" .md",
        b"*.md",
        b"[.md",
        b"\\.md",
        b"-rf.yml",
        b"a\x01\x7f.toml",
        "\u{202e}\u{0}.md".as_bytes(),
    ];
    for name in names {
        let name = OsString::from_vec(name.to_vec());
        assert!(coordinated(&builtin, &name), "{name:?}");
        let mut below = OsString::from("a\n/.git/");
        below.push(&name);
        assert!(!coordinated(&builtin, &below), "{below:?}");
    }
    // The regex of this glob, not only its suffix, meets these bytes.
    let pattern = rules("builtin = false\n[[rule]]\npaths = 'a*z?q/**/b'");
    assert!(coordinated(
        &pattern,
        OsString::from_vec(b"a\xff\nz\xffq/\n\xfe/b".to_vec())
    ));
    assert!(!coordinated(&builtin, OsString::from_vec(b"x.md\n".to_vec())));
    assert!(!coordinated(&builtin, OsString::from_vec(b"x.md\xff".to_vec())));
}

#[test]
fn the_template_means_what_the_builtin_rules_mean() {
    assert_same(&rules(TEMPLATE), &Rules::builtin());
}

#[test]
fn the_keys_shown_in_the_template_have_their_default_values() {
    let shown: Vec<&str> = TEMPLATE
        .lines()
        .filter_map(|l| l.strip_prefix('#'))
        .filter(|l| is_key_line(l))
        .collect();
    assert_eq!(shown.len(), 8, "{shown:?}");
    assert_same(&rules(&shown.join("\n")), &Rules::builtin());
}

fn is_key_line(line: &str) -> bool {
    !line.is_empty() && !line.starts_with(' ')
}

#[test]
fn the_examples_in_the_template_parse_and_its_list_is_that_of_the_builtin_globs() {
    let example: Vec<&str> = TEMPLATE
        .lines()
        .filter_map(|l| l.strip_prefix("#   "))
        .filter(|l| l.starts_with('[') || l.contains(" = "))
        .collect();
    let example: Vec<&str> = example.iter().map(|l| l.split("      (").next().unwrap()).collect();
    let rules = rules(&example.join("\n"));
    assert_eq!(keep(&rules, "docs/a/x.txt"), Some(100));
    assert_eq!(keep(&rules, "TODO"), Some(100));
    assert_eq!(keep(&rules, "generated/x.md"), None);
    assert_eq!(rules.policy(Path::new("x.md")).unwrap().max_bytes, Some(64 << 20));
    let listed: Vec<&str> = TEMPLATE
        .lines()
        .filter(|l| l.starts_with("#   **"))
        .flat_map(|l| l[1..].split_whitespace())
        .collect();
    assert_eq!(listed, [builtin::COORDINATED, builtin::EXCLUDED].concat());
}

/// The same in all that decides a policy: the globs' regexes are told by matching.
fn assert_same(a: &Rules, b: &Rules) {
    assert_eq!(a.grace, b.grace);
    assert_eq!(a.policies, b.policies);
    assert_eq!(a.rule_of_glob, b.rule_of_glob);
    for path in COORDINATED.iter().chain(ORDINARY) {
        assert_eq!(a.policy(Path::new(path)), b.policy(Path::new(path)), "{path}");
    }
}
