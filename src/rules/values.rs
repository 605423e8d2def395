//! Strings of `concord.toml` as values: durations, sizes, words.

use std::time::Duration;

use super::error::{Problem, Remedy};

/// Longer ones are surely mistakes, and adding them to a clock could overflow it.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

const UNITS: [(&str, u64); 9] = [
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

/// "5s", "250ms", "1h 30min": what humantime takes, up to [`DURATION_MAX`].
pub(super) fn duration(key: &'static str, value: &str) -> Result<Duration, Problem> {
    let parsed = humantime::parse_duration(value).map_err(|error| {
        let why = match error {
            humantime::DurationError::Empty => "it is empty".to_owned(),
            humantime::DurationError::NumberExpected(0) => "it does not begin with a number".to_owned(),
            humantime::DurationError::UnknownUnit { unit, .. } if unit.is_empty() => "it has no unit".to_owned(),
            humantime::DurationError::UnknownUnit { unit, .. } => format!("{unit:?} is no unit"),
            other => other.to_string(),
        };
        not_a_duration(key, value, why)
    })?;
    if parsed > DURATION_MAX {
        Err(not_a_duration(key, value, "it is longer than 100 years".to_owned()))
    } else {
        Ok(parsed)
    }
}

fn not_a_duration(key: &'static str, value: &str, why: String) -> Problem {
    Problem::Duration {
        key,
        value: value.to_owned(),
        why,
    }
}

/// As [`duration`], for what makes no sense when it is over at once.
pub(super) fn duration_above_zero(key: &'static str, value: &str) -> Result<Duration, Problem> {
    let parsed = duration(key, value)?;
    if parsed.is_zero() {
        return Err(not_a_duration(key, value, "it must be longer than zero".to_owned()));
    }
    Ok(parsed)
}

/// The error for a word that is not among `known`.
pub(super) fn unknown_word(key: &'static str, word: &str, known: &'static [&'static str]) -> Problem {
    Problem::Choice {
        key,
        value: word.to_owned(),
        remedy: remedy(word, known),
    }
}

/// "64MiB" (1024), "1GB" (1000): a whole number and a unit, in either case; in bytes.
pub(super) fn size(key: &'static str, value: &str) -> Result<u64, Problem> {
    let bad = |why: &str, instead: String| Problem::Size {
        key,
        value: value.to_owned(),
        why: format!("{why}; write {instead}"),
    };
    let any = || {
        let units = "KB, MB, GB, TB (of 1000) or KiB, MiB, GiB, TiB (of 1024)";
        format!("a whole number and a unit, {units}, for example \"64MiB\"; or a number of bytes without quotes")
    };
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    if number.is_empty() {
        return Err(bad("it does not begin with a number", any()));
    }
    let unit = unit.trim_start().to_ascii_lowercase();
    let Some(factor) = factor(&unit) else {
        return Err(match unit.as_str() {
            "" => bad(
                "it has no unit",
                format!("{key} = {number}, without quotes, for bytes, or for example \"{number}MiB\""),
            ),
            "k" | "m" | "g" | "t" => {
                let unit = unit.to_ascii_uppercase();
                bad(
                    "its unit is not told",
                    format!("\"{number}{unit}iB\" (of 1024) or \"{number}{unit}B\" (of 1000)"),
                )
            }
            _ => match in_a_smaller_unit(number, &unit) {
                Some(instead) => bad("its number is no whole one", format!("\"{instead}\"")),
                None => bad("it is no whole number with a unit", any()),
            },
        });
    };
    let number = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    number.ok_or_else(|| {
        bad(
            "it is more than 2^64 bytes",
            "less, or leave the key out for no limit".to_owned(),
        )
    })
}

fn factor(unit: &str) -> Option<u64> {
    UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

/// "1.5gb" as "1500MB": with the largest unit in which it is a whole number. `rest` is what follows the digits before the point.
fn in_a_smaller_unit(whole: &str, rest: &str) -> Option<String> {
    let fraction = rest.strip_prefix(['.', ','])?;
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, unit) = fraction.split_at(digits);
    let unit = unit.trim_start();
    let scale = 10u128.checked_pow(u32::try_from(digits).ok()?)?;
    let number = whole
        .parse::<u128>()
        .ok()?
        .checked_mul(scale)?
        .checked_add(fraction.parse().ok()?)?;
    let bytes = number.checked_mul(factor(unit)?.into())? / scale;
    let binary = unit.ends_with("ib");
    let fits = |(name, factor): &&(&str, u64)| name.ends_with("ib") == binary && bytes.is_multiple_of((*factor).into());
    let (name, factor) = UNITS.iter().rev().find(fits).or(UNITS.first())?;
    let name = match name.strip_suffix("ib") {
        Some(first) => format!("{}iB", first.to_ascii_uppercase()),
        None => name.to_ascii_uppercase(),
    };
    Some(format!("{}{name}", bytes / u128::from(*factor)))
}

/// What to say about a word that is not among `known`.
pub(super) fn remedy(word: &str, known: &'static [&'static str]) -> Remedy {
    let nearest = known.iter().map(|k| (distance(word, k), *k)).min();
    match nearest {
        // Two letters swapped are two edits, a slip of the hand even in a word of four; more is another word.
        Some((d, k)) if d <= (k.len() / 2).min(3) => Remedy::Nearest(k),
        _ => Remedy::OneOf(known),
    }
}

/// Edits between two words (Levenshtein), case ignored; a long `a` is cut, as it is far from any key anyway.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(!ca.eq_ignore_ascii_case(cb));
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_their_unit() {
        for (text, ms) in [
            ("5s", 5_000),
            ("250ms", 250),
            ("5min", 300_000),
            ("1h 30min", 5_400_000),
            ("0s", 0),
        ] {
            assert_eq!(duration("wait", text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_duration_that_would_overflow_a_clock_is_refused() {
        assert_eq!(duration("wait", "36500days"), Ok(Duration::from_secs(36_500 * 86_400)));
        assert!(duration("wait", "101years").is_err());
        assert!(duration("wait", "99999999999999999999s").is_err());
    }

    #[test]
    fn sizes_are_read_in_their_unit() {
        for (text, bytes) in [
            ("64MiB", 64 << 20),
            ("1GB", 1_000_000_000),
            ("1 kib", 1024),
            ("0B", 0),
            ("3TiB", 3 << 40),
            ("2kB", 2000),
        ] {
            assert_eq!(size("max_bytes", text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "",
            "MiB",
            "-1MB",
            "1.5GB",
            "64",
            "64M",
            "64MiBs",
            "18446744073709551615KB",
            "１MB",
        ] {
            assert!(size("max_bytes", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_that_is_nearly_right_is_told_with_what_would_be() {
        let said = |text: &str| size("max_bytes", text).unwrap_err().to_string();
        for (text, right) in [
            ("1.5GB", "write \"1500MB\""),
            ("0,5 MiB", "write \"512KiB\""),
            ("1.25kb", "write \"1250B\""),
            ("1.1KiB", "write \"1126B\""),
            ("64M", "write \"64MiB\" (of 1024) or \"64MB\" (of 1000)"),
            (
                "64",
                "write max_bytes = 64, without quotes, for bytes, or for example \"64MiB\"",
            ),
            ("lots", "write a whole number and a unit"),
            ("1.x", "write a whole number and a unit"),
            ("1_000KB", "write a whole number and a unit"),
        ] {
            assert!(said(text).contains(right), "{text}: {}", said(text));
        }
    }

    #[test]
    fn a_slip_finds_the_nearest_word_and_another_word_finds_all() {
        const KNOWN: &[&str] = &["wait", "keep", "lease_max"];
        assert_eq!(remedy("wiat", KNOWN), Remedy::Nearest("wait"));
        assert_eq!(remedy("timeout", KNOWN), Remedy::OneOf(KNOWN));
        assert_eq!(remedy("waits", KNOWN), Remedy::Nearest("wait"));
        assert_eq!(remedy("Lease-Max", KNOWN), Remedy::Nearest("lease_max"));
        assert_eq!(remedy(&"wait".repeat(100_000), KNOWN), Remedy::OneOf(KNOWN));
    }
}
