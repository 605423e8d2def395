//! `concord.toml` and the built-in rules: the policy of a path. Pure.
//!
//! Text becomes `Written` (right keys and types), and that becomes [`Rules`] (right values, compiled globs).
//! Both steps fail with a [`ConfigError`], which names the place and the remedy.

mod builtin;
mod error;
mod globs;
mod values;
mod written;

#[cfg(test)]
mod tests;

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use globset::{Candidate, Glob, GlobSet};
use toml::Spanned;

use error::Fault;
pub use error::{ConfigError, Place, Problem, Remedy};
pub use values::distance;
use written::{Number, Size, Written, WrittenSettings};

/// The configuration's name in the project's root.
pub const FILE_NAME: &str = "concord.toml";
/// The commented `concord.toml` that `concord init` writes. It means what the built-in rules mean.
pub const TEMPLATE: &str = include_str!("template.toml");

/// How long SIGTERM waits for open sessions (contract F5) unless `grace` says otherwise.
const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// The store's folder at the project's root: never coordinated, whatever a rule says.
const STORE_DIR: &[u8] = b".concord";
/// How far a publish waits for the disk (contract F2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Content is on disk before its rename, the rename before close returns 0.
    Full,
    /// Content before the rename; the rename is not awaited.
    Atomic,
    /// Neither is awaited.
    Fast,
}

/// What happens when a process replaces a version that it had not seen (contract W13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStale {
    /// Three-way merge.
    Merge,
    /// ESTALE at close; the shadow is kept.
    Refuse,
    /// Publish, and record it.
    Allow,
}

/// When what an O_APPEND handle writes is seen by others (contract W10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Append {
    /// Each line as soon as it is finished.
    Lines,
    /// All of it at close.
    Close,
}

/// What the rules say about one coordinated path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How long an open for writing waits before EBUSY.
    pub wait: Duration,
    /// A holder that others wait for is discarded after this long.
    pub lease_max: Duration,
    /// Versions kept, the current one not counted.
    pub keep: u32,
    /// Versions older than this go.
    pub max_age: Option<Duration>,
    /// Bytes of kept versions of one file.
    pub max_bytes: Option<u64>,
    /// See [`Durability`].
    pub durability: Durability,
    /// See [`OnStale`].
    pub on_stale: OnStale,
    /// See [`Append`].
    pub append: Append,
}

/// What `concord.toml` does not set.
impl Default for Policy {
    fn default() -> Self {
        Policy {
            wait: Duration::from_secs(5),
            lease_max: Duration::from_secs(5 * 60),
            keep: 20,
            max_age: None,
            max_bytes: None,
            durability: Durability::Full,
            on_stale: OnStale::Allow,
            append: Append::Lines,
        }
    }
}

/// All rules, compiled. Cheap to ask, dear to make: make it once and share it.
#[derive(Debug, Clone)]
pub struct Rules {
    grace: Duration,
    /// The globs of coordinating rules. Most paths match none of them, and asking costs no allocation.
    coordinating: GlobSet,
    /// The globs of all rules, in the rules' order.
    all: GlobSet,
    /// For each glob of `all`, its rule.
    rule_of_glob: Vec<usize>,
    /// For each rule, its policy; `None` excludes.
    policies: Vec<Option<Policy>>,
}

impl Rules {
    /// The rules of a project without a `concord.toml`.
    pub fn builtin() -> Rules {
        // Invariant: the empty text has no mistake and the built-in globs compile; a test calls this.
        Rules::parse("", Path::new("built-in rules")).expect("the built-in rules compile")
    }

    /// Reads the text of a `concord.toml`; `file` is how messages call it.
    ///
    /// The rules of the text come after the built-in ones, unless it says `builtin = false`.
    ///
    /// # Errors
    /// The first mistake found; keys and types of the whole text are checked before values.
    pub fn parse(text: &str, file: &Path) -> Result<Rules, ConfigError> {
        Written::parse(text)
            .and_then(compile)
            .map_err(|fault| fault.locate(text, file))
    }

    /// The policy of a file, `path` being relative to the project's root without a leading `./`; `None`: an ordinary file.
    ///
    /// The last rule that matches decides. The path is taken as bytes and need not exist. Whether it is a regular file is
    /// the caller's to know: a directory named `notes.md` has a policy too, and no use for it.
    pub fn policy(&self, path: &Path) -> Option<&Policy> {
        let bytes = path.as_os_str().as_bytes();
        if bytes
            .strip_prefix(STORE_DIR)
            .is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
        {
            return None;
        }
        let candidate = Candidate::from_bytes(bytes);
        if !self.coordinating.is_match_candidate(&candidate) {
            return None;
        }
        let last = *self.all.matches_candidate(&candidate).last()?;
        self.policies[self.rule_of_glob[last]].as_ref()
    }

    /// How long SIGTERM waits for open sessions before it discards them into `.concord/recovered/` (contract F5).
    pub fn grace(&self) -> Duration {
        self.grace
    }
}

/// Rules in the making: the globs not yet joined.
struct Builder {
    globs: Vec<Glob>,
    rule_of_glob: Vec<usize>,
    policies: Vec<Option<Policy>>,
}

impl Builder {
    fn add(&mut self, globs: impl IntoIterator<Item = Glob>, policy: Option<Policy>) {
        self.globs.extend(globs);
        self.rule_of_glob.resize(self.globs.len(), self.policies.len());
        self.policies.push(policy);
    }

    fn build(self, grace: Duration) -> Result<Rules, globset::Error> {
        let Builder {
            globs,
            rule_of_glob,
            policies,
        } = self;
        let coordinates = |(_, rule): &(&Glob, &usize)| policies[**rule].is_some();
        let coordinating = globs
            .iter()
            .zip(&rule_of_glob)
            .filter(coordinates)
            .map(|(glob, _)| glob);
        Ok(Rules {
            grace,
            coordinating: GlobSet::new(coordinating)?,
            all: GlobSet::new(&globs)?,
            rule_of_glob,
            policies,
        })
    }
}

fn compile(written: Written) -> Result<Rules, Fault> {
    let grace = written
        .grace
        .as_ref()
        .map_or(Ok(GRACE_DEFAULT), |text| judge(text, |t| values::duration("grace", t)))?;
    let defaults = settings(&written.settings, Policy::default())?;
    let mut builder = Builder {
        globs: Vec::new(),
        rule_of_glob: Vec::new(),
        policies: Vec::new(),
    };
    if written.builtin.unwrap_or(true) {
        for (globs, policy) in [
            (builtin::COORDINATED, Some(defaults.clone())),
            (builtin::EXCLUDED, None),
        ] {
            let globs: Result<Vec<_>, _> = globs.iter().map(|glob| compile_glob(glob)).collect();
            builder.add(globs.map_err(|problem| Fault { at: 0, problem })?, policy);
        }
    }
    for rule in &written.rules {
        if rule.paths.is_empty() {
            return Err(Fault::new(rule.span.clone(), Problem::NoPaths));
        }
        let globs: Result<Vec<_>, _> = rule.paths.iter().map(|glob| judge(glob, |g| compile_glob(g))).collect();
        let policy = settings(&rule.settings, defaults.clone())?;
        builder.add(globs?, rule.coordinate.unwrap_or(true).then_some(policy));
    }
    builder.build(grace).map_err(|e| Fault {
        at: 0,
        problem: Problem::TooComplex { why: e.to_string() },
    })
}

fn compile_glob(glob: &str) -> Result<Glob, Problem> {
    globs::compile(glob).map_err(|why| Problem::Glob {
        glob: glob.to_owned(),
        why,
    })
}

/// Adds to a problem with a value where that value stands.
fn judge<T, V>(written: &Spanned<T>, check: impl FnOnce(&T) -> Result<V, Problem>) -> Result<V, Fault> {
    check(written.get_ref()).map_err(|problem| Fault::new(written.span(), problem))
}

/// What is written, over what holds otherwise.
fn settings(written: &WrittenSettings, mut policy: Policy) -> Result<Policy, Fault> {
    if let Some(text) = &written.wait {
        policy.wait = judge(text, |t| values::duration("wait", t))?;
    }
    if let Some(text) = &written.lease_max {
        policy.lease_max = judge(text, |t| values::duration_above_zero("lease_max", t))?;
    }
    if let Some(number) = &written.keep {
        let max = u32::MAX;
        policy.keep = judge(number, |n| {
            n.value
                .and_then(|v| v.try_into().ok())
                .ok_or_else(|| range("keep", n, max.into()))
        })?;
    }
    if let Some(text) = &written.max_age {
        policy.max_age = Some(judge(text, |t| values::duration("max_age", t))?);
    }
    if let Some(size) = &written.max_bytes {
        policy.max_bytes = Some(judge(size, |size| match size {
            Size::Bytes(n) => n.value.ok_or_else(|| range("max_bytes", n, u64::MAX)),
            Size::Text(text) => values::size("max_bytes", text),
        })?);
    }
    if let Some(word) = &written.durability {
        policy.durability = judge(word, |w| durability(w))?;
    }
    if let Some(word) = &written.on_stale {
        policy.on_stale = judge(word, |w| on_stale(w))?;
    }
    if let Some(word) = &written.append {
        policy.append = judge(word, |w| append(w))?;
    }
    Ok(policy)
}

fn range(key: &'static str, number: &Number, max: u64) -> Problem {
    Problem::Number {
        key,
        value: number.text.clone(),
        max,
    }
}

fn durability(word: &str) -> Result<Durability, Problem> {
    match word {
        "full" => Ok(Durability::Full),
        "atomic" => Ok(Durability::Atomic),
        "fast" => Ok(Durability::Fast),
        _ => Err(values::unknown_word("durability", word, &["full", "atomic", "fast"])),
    }
}

fn on_stale(word: &str) -> Result<OnStale, Problem> {
    match word {
        "allow" => Ok(OnStale::Allow),
        "refuse" => Ok(OnStale::Refuse),
        "merge" => Ok(OnStale::Merge),
        _ => Err(values::unknown_word("on_stale", word, &["allow", "refuse", "merge"])),
    }
}

fn append(word: &str) -> Result<Append, Problem> {
    match word {
        "lines" => Ok(Append::Lines),
        "close" => Ok(Append::Close),
        _ => Err(values::unknown_word("append", word, &["lines", "close"])),
    }
}
