//! Who may know whom (docs/ARCHITECTURE.md, "Rooms"): reads the sources, because Rust's modules do not hold anybody to that.

use std::path::{Path, PathBuf};

/// A file longer than this is two files.
const LINES_MAX: usize = 700;

/// Each room and what it may use of the others: a whole room, or one item of it.
const ROOMS: [(&str, &[&str]); 8] = [
    ("rules", &[]),
    ("session", &[]),
    ("content", &[]),
    ("os", &[]),
    ("store", &["os", "content", "rules", "session::SessionId"]),
    ("mount", &["rules", "session", "content", "os", "store"]),
    ("control", &["os"]),
    (
        "cli",
        &["rules", "session", "content", "os", "store", "mount", "control"],
    ),
];

/// A crate (or keyword) that belongs to one room.
const KEPT_TO: [(&str, &str); 3] = [("fuser", "mount"), ("anyhow", "cli"), ("unsafe", "os")];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Mark(char),
}

/// The words and marks of a source text, without comments, strings, characters and lifetimes.
fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let rest = &chars[at..];
        at += match rest {
            ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
            ['/', '*', ..] => block_comment(rest),
            ['"', ..] => string(rest),
            ['r' | 'b', ..] if raw_hashes(rest).is_some() => raw_string(rest, raw_hashes(rest).unwrap()),
            ['b', '"', ..] => 1 + string(&rest[1..]),
            ['\'', '\\', ..] => 3 + rest[3..].iter().position(|c| *c == '\'').unwrap_or(0),
            ['\'', _, '\'', ..] => 3,
            ['\'', ..] => 1 + word(&rest[1..]),
            [c, ..] if c.is_alphabetic() || *c == '_' => {
                let length = word(rest);
                found.push(Token::Word(rest[..length].iter().collect()));
                length
            }
            [c, ..] if c.is_ascii_digit() => word(rest),
            [c, ..] => {
                if !c.is_whitespace() {
                    found.push(Token::Mark(*c));
                }
                1
            }
            [] => 1,
        };
    }
    found
}

fn word(text: &[char]) -> usize {
    text.iter()
        .position(|c| !c.is_alphanumeric() && *c != '_')
        .unwrap_or(text.len())
}

fn string(text: &[char]) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != '"' {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// For the start of a raw string, how many `#` it has.
fn raw_hashes(text: &[char]) -> Option<usize> {
    let start = if text.starts_with(&['b', 'r']) {
        2
    } else if text[0] == 'r' {
        1
    } else {
        return None;
    };
    let hashes = text[start..].iter().take_while(|c| **c == '#').count();
    (text.get(start + hashes) == Some(&'"')).then_some(hashes)
}

fn raw_string(text: &[char], hashes: usize) -> usize {
    let open = text.iter().position(|c| *c == '"').unwrap_or(0);
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let inside = &text[open + 1..];
    let close = inside.windows(end.len()).position(|window| window == end);
    open + 1 + close.unwrap_or(inside.len()) + end.len()
}

fn block_comment(text: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at + 1 < text.len() {
        match (text[at], text[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The paths that a use tree after `prefix` names: `{a, b::c}` after `x` gives `x::a`, `x::b::c`. Moves `at` behind it.
fn tree(tokens: &[Token], at: &mut usize, prefix: &str, found: &mut Vec<String>) {
    let joined = |name: &str| match prefix {
        "" => name.to_owned(),
        _ => format!("{prefix}::{name}"),
    };
    match tokens.get(*at) {
        Some(Token::Mark('{')) => {
            *at += 1;
            while *at < tokens.len() && tokens[*at] != Token::Mark('}') {
                let before = *at;
                tree(tokens, at, prefix, found);
                // Behind `as name` and the comma.
                while !matches!(tokens.get(*at), None | Some(Token::Mark(',' | '}'))) {
                    *at += 1;
                }
                if tokens.get(*at) == Some(&Token::Mark(',')) || *at == before {
                    *at += 1;
                }
            }
            *at += 1;
        }
        Some(Token::Word(name)) => {
            let path = joined(name);
            *at += 1;
            if is_path_mark(tokens, *at) {
                *at += 2;
                tree(tokens, at, &path, found);
            } else {
                found.push(path);
            }
        }
        _ => found.push(prefix.to_owned()),
    }
}

fn is_path_mark(tokens: &[Token], at: usize) -> bool {
    tokens.get(at..at + 2) == Some(&[Token::Mark(':'), Token::Mark(':')])
}

/// All paths from the crate's root that a file names, `super::super::…` included. `depth` is how deep its module lies.
fn own_paths(tokens: &[Token], depth: usize) -> Vec<String> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let mut ups = 0;
        let mut next = at;
        while tokens[next..].first() == Some(&Token::Word("super".to_owned())) && is_path_mark(tokens, next + 1) {
            (ups, next) = (ups + 1, next + 3);
        }
        let from_root = tokens[at] == Token::Word("crate".to_owned()) && is_path_mark(tokens, at + 1);
        if from_root {
            next = at + 3;
        }
        if from_root || (ups > 0 && ups >= depth) {
            tree(tokens, &mut next, "", &mut found);
        }
        at = next.max(at + 1);
    }
    found
}

/// Whether a file says `name::`, `use name`, or, of the keyword, `unsafe`.
fn names(tokens: &[Token], name: &str) -> bool {
    (0..tokens.len()).any(|at| {
        let within = at >= 2 && is_path_mark(tokens, at - 2);
        let used = at >= 1 && tokens[at - 1] == Token::Word("use".to_owned());
        tokens[at] == Token::Word(name.to_owned())
            && !within
            && (name == "unsafe" || used || is_path_mark(tokens, at + 1))
    })
}

/// What is wrong with a file, by its path below src/.
fn faults(path: &Path, source: &str) -> Vec<String> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let mut faults = Vec::new();
    let lines = source.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{lines} lines, more than {LINES_MAX}"));
    }
    if parts.len() == 1 && matches!(parts[0], "lib.rs" | "main.rs") {
        return faults;
    }
    let room = parts[0].trim_end_matches(".rs");
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        faults.push(format!("{room} is a room that docs/ARCHITECTURE.md does not know"));
        return faults;
    };
    let tokens = tokens(source);
    let depth = parts.len() - usize::from(parts.last() == Some(&"mod.rs"));
    for used in own_paths(&tokens, depth) {
        let first = used.split("::").next().unwrap_or_default();
        let known = ROOMS.iter().any(|(name, _)| *name == first);
        let may = |entry: &&str| used == **entry || used.starts_with(&format!("{entry}::"));
        if known && first != room && !allowed.iter().any(may) {
            faults.push(format!("{room} may not use crate::{used}"));
        }
    }
    for (name, home) in KEPT_TO {
        if room != home && names(&tokens, name) {
            faults.push(format!("`{name}` belongs to {home}/ only"));
        }
    }
    faults
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_room_uses_only_what_the_table_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 50, "only {} sources found", files.len());
    let mut all = Vec::new();
    for file in files {
        let path = file.strip_prefix(&src).unwrap();
        let found = faults(path, &std::fs::read_to_string(&file).unwrap());
        all.extend(
            found
                .into_iter()
                .map(|fault| format!("src/{}: {fault}", path.display())),
        );
    }
    all.sort();
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn a_forbidden_use_is_found_in_every_form() {
    let wrong = [
        ("rules/mod.rs", "use crate::store::Store;"),
        ("rules/mod.rs", "use crate::{\n  os,\n};"),
        ("rules/a.rs", "use super::super::mount::tree;"),
        ("rules/mod.rs", "use super::{os::proc as p};"),
        ("store/a.rs", "use crate::session::{SessionId, Queue};"),
        ("store/a.rs", "fn f() { crate::mount::run(b'\\'') }"),
        ("mount/a/b.rs", "fn f<'a>() -> crate::control::Status<'a> {}"),
        ("control/a.rs", "use crate::mount::Mount;"),
        ("cli/a.rs", "fn f() { fuser::mount2() }"),
        ("cli/a.rs", "use fuser as f;"),
        ("mount/a.rs", "fn f() -> anyhow::Result<()> { let a = \"\\\"\"; }"),
        ("store/a.rs", "const A: &str = r#\"\"\"#; fn f() { unsafe { g() } }"),
        ("new/a.rs", ""),
    ];
    for (path, source) in wrong {
        assert_eq!(faults(Path::new(path), source).len(), 1, "{path}: {source}");
    }
    let long = "\n".repeat(LINES_MAX + 1);
    assert_eq!(faults(Path::new("lib.rs"), &long).len(), 1);
}

#[test]
fn what_is_allowed_or_no_code_is_not_complained_of() {
    let right = [
        (
            "store/a.rs",
            "use crate::session::SessionId; use crate::store::Store; use super::mount;",
        ),
        (
            "rules/mod.rs",
            "//! [`crate::store`] /* unsafe */\nconst A: &str = \"crate::store::A unsafe\";",
        ),
        (
            "session/a.rs",
            "/* /* fuser:: */ anyhow:: */ // unsafe\nconst A: &[u8] = br##\"unsafe\"# fuser::\"##;",
        ),
        ("os/a.rs", "fn f() { unsafe { g('\"') } }"),
        ("mount/fs.rs", "use fuser::Session; use crate::os::proc;"),
        (
            "cli/a.rs",
            "use anyhow::Context; use crate::mount::{Mount, tree::Tree};",
        ),
        ("session/tests/a.rs", "use super::super::Queue; #![forbid(unsafe_code)]"),
    ];
    for (path, source) in right {
        assert_eq!(
            faults(Path::new(path), source),
            Vec::<String>::new(),
            "{path}: {source}"
        );
    }
}
