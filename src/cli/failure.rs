//! Why a command failed, as people and programs are told: on which path, why, what to do.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::output::one_line;
use crate::control::JsonPath;
use crate::control::lossless::printable;

/// `path: why; hint` in text; the object `error` of the document with `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What it is about; none where no path is to blame.
    pub path: Option<JsonPath>,
    /// What is wrong.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Failure {
    /// Something is wrong with `path`.
    pub fn at(path: impl AsRef<Path>, why: impl Into<String>) -> Self {
        Self {
            path: Some(path.as_ref().into()),
            why: why.into(),
            hint: None,
        }
    }

    /// What to do about it.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Any error of a command. Those of the other rooms are written `why; what to do`, like those of this one.
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.clone();
        }
        let text = one_line(error);
        let (why, hint) = match text.split_once("; ") {
            Some((why, hint)) => (why.to_owned(), Some(hint.to_owned())),
            None => (text, None),
        };
        Self { path: None, why, hint }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}: ", printable(&path.0))?;
        }
        f.write_str(&self.why)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Says on which path an error came up, where the error does not say it itself.
pub trait At<T> {
    /// The same with its path.
    fn at(self, path: &Path) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> anyhow::Result<T> {
        self.map_err(|error| {
            let mut failure = Failure::of(&error.into());
            failure.path.get_or_insert_with(|| path.into());
            failure.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_failure_reads_path_why_hint_and_its_path_is_one_line() {
        let failure = Failure::at("a\nb", "it is odd").hint("mend it");
        assert_eq!(failure.to_string(), "a\\nb: it is odd; mend it");
        assert_eq!(Failure::at("a", "it is odd").to_string(), "a: it is odd");
    }

    #[test]
    fn any_error_becomes_one_and_the_nearest_path_counts() {
        let error: anyhow::Result<()> = Err(anyhow::anyhow!("no room; free some")).context("writing");
        let failure = Failure::of(&error.at(Path::new("/p")).unwrap_err());
        assert_eq!(failure, Failure::at("/p", "writing: no room").hint("free some"));
        let again: anyhow::Result<()> = Err(failure.clone().into());
        let again = again.context("more").at(Path::new("/elsewhere")).unwrap_err();
        assert_eq!(Failure::of(&again), failure);
    }
}
