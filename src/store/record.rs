//! What is written down about a version, a session and about what was recovered; docs/FORMAT.md shows the files.
//!
//! What is read back is never used as it is: the `Raw…` types are what serde saw, the others what passed validation.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::Stat;

/// Longest record file read or written, in bytes.
pub const RECORD_BYTES_MAX: u64 = 64 * 1024;
/// Longest text taken over from outside (a command, an agent name, a note), in bytes; the rest is cut off.
pub const TEXT_BYTES_MAX: usize = 4096;

/// Who wrote (contract H2).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Thread group id, 0 when unknown.
    pub pid: u32,
    /// Command name (`comm`), empty when unknown.
    pub command: String,
    /// The agent the process belongs to, where it can be told.
    pub agent: Option<String>,
    /// The caller's user id.
    pub uid: u32,
}

/// How a version came to be (contract H2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// It was there before concordfs first replaced it, or was changed while nothing was mounted.
    Found,
    /// A session's last close.
    Close,
    /// rename(2) over the name, or onto a free one.
    Rename,
    /// link(2) onto the name.
    Link,
    /// RENAME_EXCHANGE.
    Exchange,
    /// truncate(2) by path.
    Truncate,
    /// `concord restore`.
    Restore,
    /// Written by a descriptor that outlived its session's publish.
    Late,
    /// An O_APPEND handle's whole lines.
    Append,
    /// A stale write, merged with the version it had not seen.
    Merge,
    /// unlink(2), or a rename(2) that took the name away: a tombstone, no content.
    Unlink,
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            How::Found => "found",
            How::Close => "close",
            How::Rename => "rename",
            How::Link => "link",
            How::Exchange => "exchange",
            How::Truncate => "truncate",
            How::Restore => "restore",
            How::Late => "late",
            How::Append => "append",
            How::Merge => "merge",
            How::Unlink => "unlink",
        })
    }
}

/// Which file on the backing filesystem holds a content. Two stats of one unchanged file are the same identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Device number; written down for people, never compared: it may change at a reboot.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Modification time, ns since the epoch.
    pub mtime: i64,
}

impl Identity {
    /// Of the file that `stat` describes.
    pub fn of(stat: &Stat) -> Identity {
        Identity {
            dev: stat.dev,
            ino: stat.ino,
            size: stat.size,
            mtime: stat.mtime_ns,
        }
    }

    /// Whether `stat` is of the same file, unchanged since.
    pub fn is(&self, stat: &Stat) -> bool {
        self.ino == stat.ino && self.size == stat.size && self.mtime == stat.mtime_ns
    }
}

/// The record of one version, validated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionRecord {
    /// 1, 2, 3 … per path; never used twice.
    pub version: u64,
    /// Path relative to the project, see [`encode_path`].
    pub path: String,
    /// When this content was published, ns since the epoch.
    pub time: u64,
    /// Size of the content.
    pub bytes: u64,
    /// blake3 of the content, 64 hex digits; `None` until somebody computed it.
    pub hash: Option<String>,
    /// How it came.
    pub how: How,
    /// Who wrote it.
    pub who: Who,
    /// The version that the writer had seen.
    pub based_on: Option<u64>,
    /// The version that was current when this one was published.
    pub replaced: Option<u64>,
    /// The writer had seen another version than the one it replaced (contract W13).
    pub stale: bool,
    /// The file that held the content when the record was written.
    pub identity: Option<Identity>,
    /// The version that this one's content begins with, in the same file: lines were appended to it in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extends: Option<u64>,
    /// Lines were still being appended when the record was written: the file is longer, and `bytes` is not settled.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub growing: bool,
    /// The name that its file had before, and what it was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub came_from: Option<CameFrom>,
    /// Of a tombstone: the coordinated name that the file was given (see [`encode_path`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<String>,
    /// For people.
    pub note: Option<String>,
}

/// Where a file was before it was given its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CameFrom {
    /// Its path then, see [`encode_path`].
    pub path: String,
    /// The version that it was.
    pub version: u64,
    /// The new name was free: its history goes on with that of the old one. Else the file replaced another, whose history stays.
    pub continues: bool,
    /// What is added to the numbers under the old name: the new one has used them for other files.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub shift: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl VersionRecord {
    /// Whether `stat` is, by all we know of it, of the file that holds this content.
    pub fn is_held_by(&self, stat: &Stat) -> bool {
        let Some(identity) = &self.identity else { return false };
        let grown = self.growing && identity.ino == stat.ino && identity.size <= stat.size;
        // Appended contents are not hashed, so nothing else tells a changed file from one with new times.
        let unhashed = self.how == How::Append && self.hash.is_none();
        let touched = unhashed && identity.ino == stat.ino && identity.size == stat.size;
        identity.is(stat) || grown || touched
    }

    /// What its file was before. Where the history continues, none of its numbers is used for anything else.
    pub fn come_from(&mut self, from: CameFrom) {
        if from.continues {
            self.version = self.version.max(from.version + from.shift + 1);
        }
        self.came_from = Some(from);
    }

    /// Whether it is no version of its own, but the one that its file was when it came here with its directory, to be gone on from.
    pub fn is_arrival(&self) -> bool {
        let is_same = |from: &CameFrom| from.continues && from.version.saturating_add(from.shift) == self.version;
        self.came_from.as_ref().is_some_and(is_same)
    }

    /// Says that the name went away; there is no content.
    pub fn is_tombstone(&self) -> bool {
        self.how == How::Unlink
    }
}

/// A version record as it lies on disk: anything at all.
#[derive(Deserialize)]
struct RawVersionRecord {
    version: u64,
    path: String,
    time: u64,
    bytes: u64,
    hash: Option<String>,
    how: How,
    #[serde(default)]
    who: Who,
    based_on: Option<u64>,
    replaced: Option<u64>,
    #[serde(default)]
    stale: bool,
    identity: Option<Identity>,
    extends: Option<u64>,
    #[serde(default)]
    growing: bool,
    came_from: Option<CameFrom>,
    moved_to: Option<String>,
    note: Option<String>,
}

/// Why a record was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BadRecord {
    /// The second line is not the checksum of the first.
    #[error("its checksum does not match: it is truncated or damaged")]
    Checksum,
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("it is not a record: {0}")]
    Json(#[from] serde_json::Error),
    /// A field's value makes no sense here.
    #[error("its field `{0}` makes no sense")]
    Field(&'static str),
}

/// The bytes of a record file: one line of JSON, one line with its checksum.
pub fn seal<T: Serialize>(record: &T) -> Result<Vec<u8>, BadRecord> {
    let mut bytes = serde_json::to_vec(record)?;
    let sum = blake3::hash(&bytes).to_hex();
    bytes.extend_from_slice(b"\n\"");
    bytes.extend_from_slice(sum.as_bytes());
    bytes.extend_from_slice(b"\"\n");
    Ok(bytes)
}

/// The JSON of a record file, when its checksum is right.
pub(super) fn unseal(bytes: &[u8]) -> Result<&[u8], BadRecord> {
    let end = bytes.iter().position(|&b| b == b'\n').ok_or(BadRecord::Checksum)?;
    let (json, rest) = bytes.split_at(end);
    let expected = format!("\n\"{}\"\n", blake3::hash(json).to_hex());
    if rest == expected.as_bytes() {
        Ok(json)
    } else {
        Err(BadRecord::Checksum)
    }
}

impl VersionRecord {
    /// Reads a record file. The version and the path in it are not compared with anything: the caller does.
    pub fn parse(bytes: &[u8]) -> Result<VersionRecord, BadRecord> {
        let raw: RawVersionRecord = serde_json::from_slice(unseal(bytes)?)?;
        let version = raw.version;
        if version == 0 {
            return Err(BadRecord::Field("version"));
        }
        if decode_path(&raw.path).is_none() {
            return Err(BadRecord::Field("path"));
        }
        if raw
            .hash
            .as_ref()
            .is_some_and(|h| h.len() != 64 || !h.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Err(BadRecord::Field("hash"));
        }
        if raw.replaced.is_some_and(|r| r >= version) {
            return Err(BadRecord::Field("replaced"));
        }
        if raw.extends.is_some_and(|e| e >= version) {
            return Err(BadRecord::Field("extends"));
        }
        let continues = |from: &CameFrom| from.continues && from.version.saturating_add(from.shift) > version;
        if raw
            .came_from
            .as_ref()
            .is_some_and(|from| decode_path(&from.path).is_none() || continues(from))
        {
            return Err(BadRecord::Field("came_from"));
        }
        if raw.moved_to.as_ref().is_some_and(|to| decode_path(to).is_none()) {
            return Err(BadRecord::Field("moved_to"));
        }
        Ok(VersionRecord {
            version,
            path: raw.path,
            time: raw.time,
            bytes: raw.bytes,
            hash: raw.hash,
            how: raw.how,
            who: clip_who(raw.who),
            based_on: raw.based_on,
            replaced: raw.replaced,
            stale: raw.stale,
            identity: raw.identity,
            extends: raw.extends,
            growing: raw.growing,
            came_from: raw.came_from,
            moved_to: raw.moved_to,
            note: raw.note.map(clip),
        })
    }
}

/// What the journal says about a session: one line of JSON each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalLine {
    /// The session.
    pub id: u64,
    /// Path of its file, see [`encode_path`].
    pub path: String,
    /// Who began it.
    pub who: Who,
    /// The version that it started from.
    pub based_on: Option<u64>,
    /// When it began, ns since the epoch.
    pub time: u64,
}

/// What a thing in `recovered/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecoveredKind {
    /// What a session had staged and did not publish.
    Staged,
    /// The same, where the writer was told so: publishing it failed.
    Refused,
    /// Something in the store that concordfs cannot have written like that.
    Garbage,
}

/// The record of one thing in `recovered/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveredRecord {
    /// What it is.
    pub kind: RecoveredKind,
    /// Path of the file it was meant for (see [`encode_path`]); for garbage, where in the store it lay.
    pub path: Option<String>,
    /// When it was put aside, ns since the epoch.
    pub time: u64,
    /// Its size.
    pub bytes: u64,
    /// Why it is here, for people.
    pub reason: String,
    /// Who wrote it, where that is known.
    pub who: Option<Who>,
    /// The version it started from.
    pub based_on: Option<u64>,
}

impl RecoveredRecord {
    /// Reads a record file in `recovered/`.
    pub fn parse(bytes: &[u8]) -> Result<RecoveredRecord, BadRecord> {
        let raw: RecoveredRecord = serde_json::from_slice(unseal(bytes)?)?;
        Ok(RecoveredRecord {
            reason: clip(raw.reason),
            who: raw.who.map(clip_who),
            ..raw
        })
    }
}

/// `text`, cut to [`TEXT_BYTES_MAX`].
pub fn clip(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX)
            .rev()
            .find(|&i| text.is_char_boundary(i))
            .unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// `who` with bounded texts.
pub fn clip_who(who: Who) -> Who {
    Who {
        command: clip(who.command),
        agent: who.agent.map(clip),
        ..who
    }
}

/// A path as text that is readable where it can be and loses nothing: `%`, control characters and whatever is not
/// UTF-8 become `%XX`.
pub fn encode_path(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '%' || c.is_control() {
                let mut buffer = [0; 4];
                c.encode_utf8(&mut buffer)
                    .bytes()
                    .for_each(|b| text.push_str(&format!("%{b:02X}")));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|b| text.push_str(&format!("%{b:02X}")));
    }
    text
}

/// The path that [`encode_path`] wrote. `None` when the text is not one, or when it is not a plain relative path.
pub fn decode_path(text: &str) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let hex = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    let path = PathBuf::from(OsString::from_vec(bytes));
    is_plain_relative(&path).then_some(path)
}

/// Whether `path` stays below the directory it is relative to, and is not empty.
pub fn is_plain_relative(path: &Path) -> bool {
    let bytes = path.as_os_str().as_bytes();
    !bytes.is_empty() && !bytes.contains(&0) && path.components().all(|c| matches!(c, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> VersionRecord {
        VersionRecord {
            version: 7,
            path: "a/b".into(),
            time: 5,
            bytes: 3,
            hash: None,
            how: How::Close,
            who: Who::default(),
            based_on: Some(6),
            replaced: Some(6),
            stale: false,
            identity: Some(Identity {
                dev: 1,
                ino: 2,
                size: 3,
                mtime: -4,
            }),
            extends: None,
            growing: false,
            came_from: None,
            moved_to: None,
            note: None,
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let bytes = seal(&sample()).unwrap();
        assert_eq!(VersionRecord::parse(&bytes).unwrap(), sample());
    }

    #[test]
    fn every_truncation_and_every_flipped_bit_is_noticed() {
        let bytes = seal(&sample()).unwrap();
        for len in 0..bytes.len() {
            assert!(VersionRecord::parse(&bytes[..len]).is_err(), "cut to {len}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(VersionRecord::parse(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_path_out_of_the_project_is_refused() {
        for text in ["", "/etc/passwd", "../x", "a/../../x", "%00", "a%2", "a%GG", "%2Fetc"] {
            assert_eq!(decode_path(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_path_survives_its_text(bytes in proptest::collection::vec(1u8..=255, 1..64)) {
            let path = PathBuf::from(OsString::from_vec(bytes));
            let text = encode_path(&path);
            prop_assert!(!text.contains('\n'));
            if is_plain_relative(&path) {
                prop_assert_eq!(decode_path(&text).unwrap().into_os_string(), path.into_os_string());
            }
        }
    }
}
