//! No input makes this room panic.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use proptest::prelude::*;

use super::{Rules, coordinated};

/// Texts that get past the first few tokens more often than arbitrary ones.
fn near_configs() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "[[rule]]\n",
        "\n",
        "paths = ",
        "wait = ",
        "keep = ",
        "max_bytes = ",
        "grace = ",
        "coordinate = ",
        "on_stale = ",
        "durability = ",
        "builtin = ",
        "max_age = ",
        "lease_max = ",
        "'",
        "\"",
        "[",
        "]",
        "{",
        "}",
        ",",
        "'**/*.md'",
        "'5s'",
        "5",
        "true",
        "0x",
        "-",
        "'64MiB'",
        "'allow'",
        "\\",
        "*",
        "**",
        "/",
        ".",
        "a",
        "ä",
        "#",
        "=",
        "\u{feff}",
        "\0",
    ];
    prop::collection::vec(prop::sample::select(WORDS), 0..24).prop_map(|words| words.concat())
}

fn check_text(text: &str) -> Result<(), TestCaseError> {
    if let Err(e) = Rules::parse(text, Path::new("concord.toml")) {
        let message = e.to_string();
        prop_assert!(!message.contains('\n'), "{message:?}");
        prop_assert!(
            e.line <= text.split('\n').count() && e.column <= text.chars().count() + 1,
            "{message:?}"
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), near in near_configs()) {
        check_text(&text)?;
        check_text(&near)?;
    }

    #[test]
    fn no_string_in_a_value_makes_the_parser_panic(glob in r"([a{}\[\]*?!^,/\\.\-ä\n]|\*\*/|/\*\*){0,12}", any in any::<String>()) {
        for value in [glob, any] {
            let value = toml::Value::String(value);
            for key in ["paths", "wait", "lease_max", "max_age", "max_bytes", "durability", "on_stale", "append"] {
                let paths = if key == "paths" { "" } else { "paths = 'x'\n" };
                check_text(&format!("[[rule]]\n{paths}{key} = {value}"))?;
            }
        }
    }

    #[test]
    fn no_path_makes_the_matcher_panic_and_only_its_ending_and_its_folders_matter(
        path in prop::collection::vec(any::<u8>().prop_filter("NUL ends a name", |b| *b != 0), 0..300),
    ) {
        let rules = Rules::builtin();
        let path = OsString::from_vec(path);
        let _ = rules.policy(Path::new(&path));
        let mut inside = OsString::from("node_modules/");
        inside.push(&path);
        inside.push(".md");
        prop_assert!(!coordinated(&rules, &inside));
        let mut plain = OsString::from("x");
        plain.push(OsString::from_vec(path.into_vec().into_iter().filter(|b| *b != b'/').collect()));
        plain.push(".md");
        prop_assert!(coordinated(&rules, &plain) || plain.to_string_lossy().contains(".sqlite"));
    }
}
