//! The globs of `paths`: checked one by one, so that a mistake is told where it stands.

use globset::{ErrorKind, Glob, GlobBuilder, GlobSet};

/// Bytes. Globs are compiled by recursion over their braces; this bounds its depth.
pub(super) const GLOB_BYTES_MAX: usize = 1024;

/// Compiles one glob, relative to the project's root; the error says why it cannot work and what to write.
///
/// As in .gitignore, a glob without a slash matches at any depth, and a leading slash ties it to the root.
pub(super) fn compile(written: &str) -> Result<Glob, String> {
    if written.len() > GLOB_BYTES_MAX {
        return Err(format!(
            "it is longer than {GLOB_BYTES_MAX} bytes; split it into several"
        ));
    }
    let anchored = written.strip_prefix('/').unwrap_or(written);
    check_components(anchored)?;
    check_classes(anchored)?;
    let any_depth = format!("**/{written}");
    let glob = GlobBuilder::new(if written.contains('/') { anchored } else { &any_depth })
        .literal_separator(true)
        .build()
        .map_err(|e| why(e.kind()))?;
    // Glob::build does not compile the regex, and a set would not say which of its globs is at fault.
    GlobSet::new([&glob]).map_err(|e| why(e.kind()))?;
    Ok(glob)
}

/// What could never match a path, because paths here have no such component.
fn check_components(glob: &str) -> Result<(), String> {
    if glob.is_empty() {
        return Err("it is empty; every file is \"**\"".to_owned());
    }
    if let Some(rest) = glob.strip_prefix('!') {
        return Err(format!(
            "a ! excludes nothing here; put {rest:?} into a [[rule]] with coordinate = false, below this one (a name that begins with ! is '\\!...')"
        ));
    }
    if glob.starts_with("~/") {
        return Err("paths are relative to the project's root, and ~ is no home there; leave it out".to_owned());
    }
    if let Some(dir) = glob.strip_suffix('/') {
        return Err(format!(
            "rules are for files, not directories; all files below it are {:?}",
            format!("{dir}/**")
        ));
    }
    match glob.split('/').find(|c| matches!(*c, "" | "." | "..")) {
        Some("") => Err("it has two slashes in a row; write one".to_owned()),
        Some(dots) => Err(format!(
            "paths are relative to the project's root and never have \"{dots}\"; leave it out"
        )),
        None => Ok(()),
    }
}

/// Names are bytes, so a class would match one byte of a character of several.
fn check_classes(glob: &str) -> Result<(), String> {
    let mut chars = glob.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '[' => {
                // "[]a]", "[!]a]": a bracket that comes first is a member.
                chars.next_if(|c| matches!(c, '!' | '^'));
                let first = chars.next_if_eq(&']');
                let mut members = first.into_iter().chain(chars.by_ref().take_while(|c| *c != ']'));
                if let Some(c) = members.find(|c| !c.is_ascii()) {
                    return Err(format!(
                        "[...] takes only ASCII, {c:?} is not; write {{a,b}} instead of [ab]"
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn why(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::UnclosedClass => "its [ has no ]; a plain bracket is \\[ (in TOML: '\\[')".to_owned(),
        ErrorKind::InvalidRange(from, to) => format!("the range {from:?} to {to:?} is backwards; swap its ends"),
        ErrorKind::UnopenedAlternates => "its } has no {; a plain brace is \\} (in TOML: '\\}')".to_owned(),
        ErrorKind::UnclosedAlternates => "its { has no }; a plain brace is \\{ (in TOML: '\\{')".to_owned(),
        ErrorKind::DanglingEscape => "it ends in \\, which escapes nothing; leave it out or double it".to_owned(),
        other => format!("{}; write a simpler one", other.to_string().escape_debug()),
    }
}
