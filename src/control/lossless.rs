//! Bytes, paths and times in JSON, without loss. The only place that decides how.
//!
//! Bytes that are UTF-8 are a string; others are `{"bytes": "<lower-case hex>"}`. A file name that is UTF-8 therefore
//! reads as itself, and no name, whatever its bytes, can be taken for another.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes: a string where they are UTF-8, else `{"bytes": hex}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonBytes(pub Vec<u8>);

impl Serialize for JsonBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_bytes(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for JsonBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor).map(JsonBytes)
    }
}

/// A path, encoded as [`JsonBytes`].
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JsonPath(pub PathBuf);

impl<P: Into<PathBuf>> From<P> for JsonPath {
    fn from(path: P) -> Self {
        Self(path.into())
    }
}

impl AsRef<Path> for JsonPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl Serialize for JsonPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_bytes(self.0.as_os_str().as_bytes(), serializer)
    }
}

impl<'de> Deserialize<'de> for JsonPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_any(BytesVisitor)?;
        Ok(Self(PathBuf::from(std::ffi::OsString::from_vec(bytes))))
    }
}

fn serialize_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry("bytes", &to_hex(bytes))?;
            map.end()
        }
    }
}

struct BytesVisitor;

impl<'de> Visitor<'de> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a string, or {\"bytes\": \"<hex>\"}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_vec())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<u8>, A::Error> {
        let Some((key, hex)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::missing_field("bytes"));
        };
        if key != "bytes" {
            return Err(de::Error::unknown_field(&key, &["bytes"]));
        }
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("only the key \"bytes\" may stand here"));
        }
        from_hex(&hex).ok_or_else(|| de::Error::custom("\"bytes\" must be an even number of hex digits"))
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok())
        .collect()
}

/// A path as one line for a terminal: control characters and bytes that are not UTF-8 are escaped (`\n`, `\xff`), so
/// that a hostile name can neither forge a line nor send an escape sequence.
pub fn printable(path: impl AsRef<OsStr>) -> String {
    let mut line = String::new();
    for chunk in path.as_ref().as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => line.push_str("\\\\"),
                c if c.is_control() => line.extend(c.escape_default()),
                c => line.push(c),
            }
        }
        for byte in chunk.invalid() {
            line.push_str(&format!("\\x{byte:02x}"));
        }
    }
    line
}

/// A moment, as RFC 3339 in UTC with nanoseconds. Moments outside 1970-9999 are moved to the nearer end of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JsonTime(pub SystemTime);

/// 9999-12-31T23:59:59Z in seconds since 1970, the last second that RFC 3339 can write.
const LAST_SECOND: u64 = 253_402_300_799;

impl JsonTime {
    /// Now.
    pub fn now() -> Self {
        Self(SystemTime::now())
    }

    fn clamped(self) -> SystemTime {
        let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND);
        self.0.clamp(SystemTime::UNIX_EPOCH, last)
    }

    /// To the second, for people.
    pub fn seconds(self) -> String {
        humantime::format_rfc3339_seconds(self.clamped()).to_string()
    }
}

impl fmt::Display for JsonTime {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        humantime::format_rfc3339_nanos(self.clamped()).fmt(f)
    }
}

impl Serialize for JsonTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JsonTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(JsonTime).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(bytes: &[u8]) -> JsonPath {
        JsonPath(PathBuf::from(OsStr::from_bytes(bytes)))
    }

    #[test]
    fn a_utf8_path_is_a_plain_string() {
        assert_eq!(
            serde_json::to_string(&path("docs/ä \"x\".md".as_bytes())).unwrap(),
            r#""docs/ä \"x\".md""#
        );
    }

    #[test]
    fn another_path_is_an_object_of_hex_bytes() {
        assert_eq!(
            serde_json::to_string(&path(b"a\xff/\n")).unwrap(),
            r#"{"bytes":"61ff2f0a"}"#
        );
    }

    #[test]
    fn every_byte_string_comes_back_as_it_was() {
        proptest::proptest!(|(bytes: Vec<u8>)| {
            let json = serde_json::to_string(&path(&bytes)).unwrap();
            proptest::prop_assert!(!json.contains('\n'));
            proptest::prop_assert_eq!(serde_json::from_str::<JsonPath>(&json).unwrap(), path(&bytes));
        });
    }

    #[test]
    fn what_is_not_a_path_is_an_error_and_not_a_panic() {
        for bad in [
            r#"{"bytes":"6"}"#,
            r#"{"bytes":"é1"}"#,
            r#"{"hex":"61"}"#,
            r#"{"bytes":"61","x":"1"}"#,
            "{}",
            "7",
            "null",
        ] {
            assert!(serde_json::from_str::<JsonPath>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_hostile_name_is_one_harmless_line() {
        assert_eq!(
            printable(OsStr::from_bytes(b"a\nb\x1b[31m\xff\\ \xc3\xa4")),
            "a\\nb\\u{1b}[31m\\xff\\\\ ä"
        );
    }

    #[test]
    fn a_time_keeps_its_nanoseconds() {
        let time = JsonTime(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789));
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, r#""2023-11-14T22:13:20.123456789Z""#);
        assert_eq!(serde_json::from_str::<JsonTime>(&json).unwrap(), time);
    }

    #[test]
    fn a_time_that_rfc_3339_cannot_write_is_moved_to_the_nearest_that_it_can() {
        let early = JsonTime(SystemTime::UNIX_EPOCH - Duration::from_secs(5));
        let late = JsonTime(SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_SECOND + 5));
        assert_eq!(early.seconds(), "1970-01-01T00:00:00Z");
        assert_eq!(late.to_string(), "9999-12-31T23:59:59.000000000Z");
    }
}
