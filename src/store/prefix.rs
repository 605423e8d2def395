//! Versions that are the beginning of a later one, in the same file: history as a length, not a copy (contract W10).

use std::collections::BTreeMap;

use super::record::VersionRecord;

/// The version whose file holds `version`: itself, or one that extends it, and so on. `holds` says which versions have a file in the
/// history; `current` has the live one. `None`: it is not kept.
pub(super) fn host(
    records: &BTreeMap<u64, VersionRecord>,
    holds: impl Fn(u64) -> bool,
    current: Option<u64>,
    version: u64,
) -> Option<u64> {
    let mut at = version;
    loop {
        if holds(at) || current == Some(at) {
            return Some(at);
        }
        // A record extends an earlier one only, so this ends.
        let mut later = records.range(at + 1..);
        at = *later.find(|(_, record)| record.extends == Some(at))?.0;
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::{Kind, Stat};
    use super::super::history::found;
    use super::*;

    fn record(version: u64, extends: Option<u64>) -> (u64, VersionRecord) {
        let stat = Stat {
            kind: Kind::File,
            dev: 1,
            ino: 2,
            size: 3,
            mtime_ns: 4,
            ctime_ns: 5,
            nlink: 1,
            has_set_id: false,
        };
        let record = VersionRecord {
            extends,
            ..found(std::path::Path::new("f"), version, &stat)
        };
        (version, record)
    }

    #[test]
    fn a_version_is_found_in_the_last_that_extends_it() {
        let records = BTreeMap::from([record(1, None), record(2, Some(1)), record(3, None), record(5, Some(2))]);
        let held = |v| v == 5;
        assert_eq!(host(&records, held, None, 1), Some(5));
        assert_eq!(host(&records, held, None, 5), Some(5));
        assert_eq!(host(&records, held, None, 3), None);
        assert_eq!(host(&records, |_| false, Some(5), 2), Some(5));
        assert_eq!(host(&records, |_| false, None, 1), None);
    }
}
