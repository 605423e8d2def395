//! What is said about mistakes in `concord.toml`, word for word.

use std::path::Path;

use super::Rules;

fn message(text: &str) -> String {
    match Rules::parse(text, Path::new("concord.toml")) {
        Ok(_) => panic!("accepted: {text}"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_mistake_is_told_with_its_place_its_key_and_its_remedy() {
    let long = format!("[[rule]]\npaths = '{}'", "x".repeat(1025));
    let cases: &[(&str, &str)] = &[
        (
            "keep = 20\nwait",
            "2:5: this is not valid TOML: key with no value, expected `=`; a line is key = value, or [[rule]], or begins with #",
        ),
        (
            "keep = 1\nkeep = 2",
            "2:1: `keep` is set a second time here; leave one of the two",
        ),
        (
            "[[rule]]\npaths = 'x'\n[rule]\nkeep = 1",
            "3:2: `rule` is set a second time here; leave one of the two",
        ),
        (
            "keep = all",
            "1:8: this is not valid TOML, at `keep`: string values must be quoted, expected literal string; \
             a value that is a word stands in quotes, like \"5s\"; only numbers, true and false do not",
        ),
        (
            "wait =",
            "1:7: this is not valid TOML, at `wait`: string values must be quoted, expected literal string; write a value behind the =",
        ),
        (
            "wait = '5s",
            "1:11: this is not valid TOML, at `wait`: invalid literal string, expected `'`; close the quotes on the same line",
        ),
        (
            "keep = 3 wait = '3s'",
            "1:15: this is not valid TOML, at `keep`: unexpected key or value, expected newline, `#`; each key has a line of its own",
        ),
        (
            "[[rule]\npaths = 'x'",
            "1:8: this is not valid TOML: unclosed array table, expected `]`; a rule begins with the line [[rule]]",
        ),
        (
            "\n  wiat = '5s'",
            "2:3: unknown key `wiat` at the top level; did you mean `wait`?",
        ),
        (
            "[[rule]]\npath = '*.md'",
            "2:1: unknown key `path` in a [[rule]]; did you mean `paths`?",
        ),
        (
            "[[rules]]\npaths = '*.md'",
            "1:3: unknown key `rules` at the top level; did you mean `rule`?",
        ),
        (
            "[[rule]]\npaths = '*.md'\ngrace = '5s'",
            "3:1: unknown key `grace` in a [[rule]]; it goes at the top level, above the first [[rule]]",
        ),
        (
            "paths = '*.md'",
            "1:1: unknown key `paths` at the top level; it goes in a [[rule]], below a [[rule]] line",
        ),
        (
            "[[rule]]\n\"a\\nb\" = 1",
            "2:1: unknown key `a\\nb` in a [[rule]]; known are `paths`, `coordinate`, `wait`, `lease_max`, `keep`, \
             `max_age`, `max_bytes`, `durability`, `on_stale`, `append`",
        ),
        (
            "wait = 5",
            "1:8: `wait` is an integer; it takes a string such as \"5s\"",
        ),
        (
            "keep = '20'",
            "1:8: `keep` is a string; it takes a whole number such as 20",
        ),
        ("builtin = 'no'", "1:11: `builtin` is a string; it takes true or false"),
        (
            "max_bytes = 1.5",
            "1:13: `max_bytes` is a float; it takes a string such as \"64MiB\" or a number of bytes",
        ),
        (
            "durability = true",
            "1:14: `durability` is a boolean; it takes a string such as \"full\"",
        ),
        (
            "on_stale = 1979-05-27",
            "1:12: `on_stale` is a date or time; it takes a string such as \"allow\"",
        ),
        (
            "[rule]\npaths = '*.md'",
            "1:1: `rule` is a table; it takes tables, each below a line [[rule]], with two brackets",
        ),
        (
            "rule = [1]",
            "1:9: `rule` is an integer; it takes tables, each below a line [[rule]], with two brackets",
        ),
        (
            "[[rule]]\npaths = ['a',\n  ['b']]",
            "3:3: `paths` is an array; it takes an array of strings such as [\"docs/**/*.md\"]",
        ),
        (
            "[[rule]]\npaths = 1",
            "2:9: `paths` is an integer; it takes an array of strings such as [\"docs/**/*.md\"]",
        ),
        (
            "wait = '5'",
            "1:8: `wait = \"5\"` is not a usable duration: it has no unit; \
             write a number and a unit (ms, s, min, h, days), for example \"5s\" or \"250ms\"",
        ),
        (
            "max_age = '30dayz'",
            "1:11: `max_age = \"30dayz\"` is not a usable duration: \"dayz\" is no unit; \
             write a number and a unit (ms, s, min, h, days), for example \"30days\" or \"12h\"",
        ),
        (
            "wait = 'soon'",
            "1:8: `wait = \"soon\"` is not a usable duration: it does not begin with a number; \
             write a number and a unit (ms, s, min, h, days), for example \"5s\" or \"250ms\"",
        ),
        (
            "grace = '200years'",
            "1:9: `grace = \"200years\"` is not a usable duration: it is longer than 100 years; \
             write a number and a unit (ms, s, min, h, days), for example \"5s\" or \"250ms\"",
        ),
        (
            "[[rule]]\npaths = 'x'\nlease_max = '0s'",
            "3:13: `lease_max = \"0s\"` is not a usable duration: it must be longer than zero; \
             write a number and a unit (ms, s, min, h, days), for example \"5min\" or \"90s\"",
        ),
        (
            "max_bytes = '64M'",
            "1:13: `max_bytes = \"64M\"` is not a size: its unit is not told; \
             write \"64MiB\" (of 1024) or \"64MB\" (of 1000)",
        ),
        (
            "keep = -1",
            "1:8: `keep = -1` is out of range; it takes a whole number from 0 to 4294967295",
        ),
        (
            "keep = 4_294_967_296",
            "1:8: `keep = 4294967296` is out of range; it takes a whole number from 0 to 4294967295",
        ),
        (
            "max_bytes = -1",
            "1:13: `max_bytes = -1` is out of range; it takes a whole number from 0 to 18446744073709551615",
        ),
        (
            "durability = 'ful'",
            "1:14: `durability = \"ful\"` is unknown; did you mean `full`?",
        ),
        (
            "append = 'line'",
            "1:10: `append = \"line\"` is unknown; did you mean `lines`?",
        ),
        (
            "append = true",
            "1:10: `append` is a boolean; it takes a string such as \"lines\"",
        ),
        (
            "on_stale = 'panic'",
            "1:12: `on_stale = \"panic\"` is unknown; known are `allow`, `refuse`, `merge`",
        ),
        (
            "# ä\n[[rule]]\nkeep = 1",
            "2:1: this [[rule]] has no `paths`, so it says nothing; write for example paths = [\"docs/**/*.md\"]",
        ),
        (
            "[[rule]]\npaths = 'x'\n[[rule]]\npaths = []",
            "3:1: this [[rule]] has no `paths`, so it says nothing; write for example paths = [\"docs/**/*.md\"]",
        ),
        (
            &long,
            &format!(
                "2:9: `paths` has the glob \"{}\", which cannot work: it is longer than 1024 bytes; split it into several",
                "x".repeat(1025)
            ),
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(message(text), format!("concord.toml:{expected}"), "for:\n{text}");
    }
}

#[test]
fn a_glob_that_cannot_work_is_told_with_the_reason() {
    let cases = [
        ("", "it is empty; every file is \"**\""),
        ("/", "it is empty; every file is \"**\""),
        (
            "docs/",
            "rules are for files, not directories; all files below it are \"docs/**\"",
        ),
        ("a//b", "it has two slashes in a row; write one"),
        ("//b", "it has two slashes in a row; write one"),
        (
            "./a",
            "paths are relative to the project's root and never have \".\"; leave it out",
        ),
        (
            "a/../b",
            "paths are relative to the project's root and never have \"..\"; leave it out",
        ),
        ("[ä]", "[...] takes only ASCII, 'ä' is not; write {a,b} instead of [ab]"),
        (
            "[!]ä]",
            "[...] takes only ASCII, 'ä' is not; write {a,b} instead of [ab]",
        ),
        (
            "!x",
            "a ! excludes nothing here; put \"x\" into a [[rule]] with coordinate = false, below this one (a name that begins with ! is '\\!...')",
        ),
        (
            "~/x",
            "paths are relative to the project's root, and ~ is no home there; leave it out",
        ),
        ("[abc", "its [ has no ]; a plain bracket is \\[ (in TOML: '\\[')"),
        ("[z-a]", "the range 'z' to 'a' is backwards; swap its ends"),
        ("a}", "its } has no {; a plain brace is \\} (in TOML: '\\}')"),
        ("{a", "its { has no }; a plain brace is \\{ (in TOML: '\\{')"),
        ("a\\", "it ends in \\, which escapes nothing; leave it out or double it"),
    ];
    for (glob, why) in cases {
        let text = format!("[[rule]]\npaths = ['ok', '{glob}']");
        let expected = format!("concord.toml:2:16: `paths` has the glob {glob:?}, which cannot work: {why}");
        assert_eq!(message(&text), expected);
    }
    let nested = message(&format!("[[rule]]\npaths = '{}a{}'", "{".repeat(500), "}".repeat(500)));
    assert!(
        nested.contains("which cannot work: ") && nested.ends_with("write a simpler one"),
        "{nested}"
    );
}

#[test]
fn globs_that_together_exceed_the_compiler_are_an_error() {
    let globs: Vec<String> = (0..400).map(|i| format!("'x{i}{}'", "{a*b,c*d}".repeat(90))).collect();
    let text = format!("[[rule]]\npaths = [{}]", globs.join(","));
    let message = message(&text);
    assert!(
        message.starts_with("concord.toml:1:1: the globs are too many or too complex together: "),
        "{message}"
    );
}

#[test]
fn of_several_mistakes_the_first_in_the_file_is_told() {
    assert!(message("zebra = 1\nalpha = 1").starts_with("concord.toml:1:1: unknown key `zebra`"));
    assert!(message("[[rule]]\nzebra = 1\nalpha = 1").starts_with("concord.toml:2:1: unknown key `zebra`"));
}

#[test]
fn columns_count_characters_and_lines_count_newlines() {
    assert!(message("keep = 1\r\nwait = 'ä'\r\nx = 1").starts_with("concord.toml:3:1: "));
    assert!(message("rule = [{ paths = 'äöü', nope = 1 }]").starts_with("concord.toml:1:26: "));
}
