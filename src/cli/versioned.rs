//! `FILE@N` on the command line.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// A file, and one of its versions or the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versioned {
    /// As it was given.
    pub file: PathBuf,
    /// From 1; none is what the file holds now.
    pub version: Option<u64>,
}

/// Takes `FILE@N` and `FILE`. The last `@` that only digits follow begins the version, so that every other `@` belongs
/// to the name.
pub fn parse(argument: OsString) -> Result<Versioned, String> {
    let bytes = argument.as_bytes();
    let split = bytes.iter().rposition(|byte| *byte == b'@');
    let Some(at) = split.filter(|at| bytes.len() > at + 1 && bytes[at + 1..].iter().all(u8::is_ascii_digit)) else {
        return if bytes.is_empty() {
            Err("a file is missing".into())
        } else {
            Ok(plain(argument))
        };
    };
    if at == 0 {
        return Err("a file is missing before the @".into());
    }
    let digits = String::from_utf8_lossy(&bytes[at + 1..]);
    match digits.parse::<u64>() {
        Ok(0) => Err("versions are numbered from 1".into()),
        Ok(version) => Ok(Versioned {
            file: OsStr::from_bytes(&bytes[..at]).into(),
            version: Some(version),
        }),
        Err(_) => Err(format!("{digits} is too large for a version")),
    }
}

/// Takes `FILE@N` only.
pub fn parse_with_version(argument: OsString) -> Result<Versioned, String> {
    let versioned = parse(argument)?;
    if versioned.version.is_none() {
        return Err("write FILE@N, N being a number from `concord history FILE`".into());
    }
    Ok(versioned)
}

fn plain(argument: OsString) -> Versioned {
    Versioned {
        file: OsString::from_vec(argument.into_vec()).into(),
        version: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(String, Option<u64>), String> {
        parse(text.into()).map(|v| (v.file.to_string_lossy().into_owned(), v.version))
    }

    #[test]
    fn the_last_at_before_digits_begins_the_version() {
        assert_eq!(parsed("a.md@3"), Ok(("a.md".into(), Some(3))));
        assert_eq!(parsed("/x@2/a@1.md@12"), Ok(("/x@2/a@1.md".into(), Some(12))));
        assert_eq!(parsed("a@2@3"), Ok(("a@2".into(), Some(3))));
    }

    #[test]
    fn every_other_at_belongs_to_the_name() {
        for name in ["a.md", "a@", "a@b", "@a/b", "a@-1", "a@+1", "a@1.md", "a@ 1"] {
            assert_eq!(parsed(name), Ok((name.into(), None)));
            assert!(parse_with_version(name.into()).is_err(), "{name}");
        }
    }

    #[test]
    fn a_version_that_cannot_be_is_an_error() {
        for bad in ["a@0", "a@99999999999999999999", "@3", ""] {
            assert!(parsed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_is_bytes() {
        let versioned = parse(OsString::from_vec(b"\xff\xfe@7".to_vec())).unwrap();
        assert_eq!(
            (versioned.file.as_os_str().as_bytes(), versioned.version),
            (&b"\xff\xfe"[..], Some(7))
        );
    }
}
