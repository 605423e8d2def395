//! `concord.toml` as it was written: right keys, right types, nothing judged further.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Fault, Place, Problem, Remedy};
use super::values::remedy;

const TOP_KEYS: &[&str] = &[
    "builtin",
    "grace",
    "wait",
    "lease_max",
    "keep",
    "max_age",
    "max_bytes",
    "durability",
    "on_stale",
    "append",
    "rule",
];
const RULE_KEYS: &[&str] = &[
    "paths",
    "coordinate",
    "wait",
    "lease_max",
    "keep",
    "max_age",
    "max_bytes",
    "durability",
    "on_stale",
    "append",
];

/// The whole file.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub builtin: Option<bool>,
    pub grace: Option<Spanned<String>>,
    /// The top-level ones: the defaults of all rules.
    pub settings: WrittenSettings,
    pub rules: Vec<WrittenRule>,
}

/// One `[[rule]]`.
#[derive(Debug)]
pub(super) struct WrittenRule {
    /// Of its header, for what is wrong with the rule as a whole.
    pub span: Range<usize>,
    pub paths: Vec<Spanned<String>>,
    pub coordinate: Option<bool>,
    pub settings: WrittenSettings,
}

/// The keys that stand in a rule, or at the top level as the default of all rules.
#[derive(Debug, Default)]
pub(super) struct WrittenSettings {
    pub wait: Option<Spanned<String>>,
    pub lease_max: Option<Spanned<String>>,
    pub keep: Option<Spanned<Number>>,
    pub max_age: Option<Spanned<String>>,
    pub max_bytes: Option<Spanned<Size>>,
    pub durability: Option<Spanned<String>>,
    pub on_stale: Option<Spanned<String>>,
    pub append: Option<Spanned<String>>,
}

/// An integer of any length.
#[derive(Debug)]
pub(super) struct Number {
    /// As written, for messages.
    pub text: String,
    /// `None` when negative or beyond `u64`.
    pub value: Option<u64>,
}

/// A size is a number of bytes or a string with a unit.
#[derive(Debug)]
pub(super) enum Size {
    Bytes(Number),
    Text(String),
}

impl Written {
    /// Of several mistakes, the first in the order of the file is reported.
    pub(super) fn parse(text: &str) -> Result<Written, Fault> {
        // The parser gives no place to what is wrong with the text as a whole.
        let table = DeTable::parse(text).map_err(|e| syntax(text, e.span().unwrap_or(0..0), e.message()))?;
        let mut written = Written::default();
        for (key, value) in in_file_order(table.get_ref()) {
            match key.get_ref().as_ref() {
                "builtin" => written.builtin = Some(boolean("builtin", value)?),
                "grace" => written.grace = Some(string("grace", value, DURATION)?),
                "rule" => written.rules = rules(value)?,
                name if written.settings.take(name, value)? => {}
                _ => return Err(unknown(key, Place::Top)),
            }
        }
        Ok(written)
    }
}

fn rules(value: &Spanned<DeValue<'_>>) -> Result<Vec<WrittenRule>, Fault> {
    const EXPECTED: &str = "tables, each below a line [[rule]], with two brackets";
    let array = value
        .get_ref()
        .as_array()
        .ok_or_else(|| wrong_type("rule", value, EXPECTED))?;
    let tables = array.iter().map(|item| match item.get_ref() {
        DeValue::Table(table) => rule(item.span(), table),
        _ => Err(wrong_type("rule", item, EXPECTED)),
    });
    tables.collect()
}

fn rule(span: Range<usize>, table: &DeTable<'_>) -> Result<WrittenRule, Fault> {
    let mut rule = WrittenRule {
        span,
        paths: Vec::new(),
        coordinate: None,
        settings: WrittenSettings::default(),
    };
    for (key, value) in in_file_order(table) {
        match key.get_ref().as_ref() {
            "paths" => rule.paths = paths(value)?,
            "coordinate" => rule.coordinate = Some(boolean("coordinate", value)?),
            name if rule.settings.take(name, value)? => {}
            _ => return Err(unknown(key, Place::Rule)),
        }
    }
    Ok(rule)
}

impl WrittenSettings {
    /// Whether `key` is one of the settings.
    fn take(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<bool, Fault> {
        match key {
            "wait" => self.wait = Some(string("wait", value, DURATION)?),
            "lease_max" => self.lease_max = Some(string("lease_max", value, DURATION)?),
            "max_age" => self.max_age = Some(string("max_age", value, DURATION)?),
            "durability" => self.durability = Some(string("durability", value, "a string such as \"full\"")?),
            "append" => self.append = Some(string("append", value, "a string such as \"lines\"")?),
            "on_stale" => self.on_stale = Some(string("on_stale", value, "a string such as \"allow\"")?),
            "keep" => {
                let number = number(value).ok_or_else(|| wrong_type("keep", value, "a whole number such as 20"))?;
                self.keep = Some(Spanned::new(value.span(), number));
            }
            "max_bytes" => self.max_bytes = Some(Spanned::new(value.span(), size(value)?)),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// What the parser has found, said for those who do not know TOML.
fn syntax(text: &str, span: Range<usize>, what: &str) -> Fault {
    let at = span.start.min(text.len());
    let line = text.as_bytes()[..at]
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |i| i + 1);
    let line = text[line..].lines().next().unwrap_or_default();
    let key = line.split_once('=').map(|(key, _)| key.trim().trim_matches('"'));
    let key = key.filter(|key| !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)));
    if what.starts_with("duplicate key") {
        let written = text.get(span.clone()).unwrap_or_default();
        let key = key.unwrap_or(written).to_owned();
        return Fault::new(span, Problem::Duplicate { key });
    }
    let empty = line.split_once('=').is_some_and(|(_, value)| value.trim().is_empty());
    let says = |words: &[&str]| words.iter().any(|word| what.contains(word));
    let remedy = if says(&["must be quoted", "invalid boolean", "invalid float"]) {
        match empty {
            true => "write a value behind the =",
            false => "a value that is a word stands in quotes, like \"5s\"; only numbers, true and false do not",
        }
    } else if says(&["key with no value"]) {
        "a line is key = value, or [[rule]], or begins with #"
    } else if says(&["unclosed array table", "unclosed table"]) {
        "a rule begins with the line [[rule]]"
    } else if says(&["invalid basic string", "invalid literal string"]) {
        "close the quotes on the same line"
    } else if says(&["escape"]) {
        "between \" a backslash is \\\\; between ' it is itself"
    } else if says(&["unexpected key or value"]) {
        "each key has a line of its own"
    } else {
        ""
    };
    Fault::new(
        span,
        Problem::Syntax {
            key: key.map(str::to_owned),
            what: what.to_owned(),
            remedy,
        },
    )
}

const DURATION: &str = "a string such as \"5s\"";

fn boolean(key: &'static str, value: &Spanned<DeValue<'_>>) -> Result<bool, Fault> {
    value
        .get_ref()
        .as_bool()
        .ok_or_else(|| wrong_type(key, value, "true or false"))
}

fn string(key: &'static str, value: &Spanned<DeValue<'_>>, expected: &'static str) -> Result<Spanned<String>, Fault> {
    let text = value
        .get_ref()
        .as_str()
        .ok_or_else(|| wrong_type(key, value, expected))?;
    Ok(Spanned::new(value.span(), text.to_owned()))
}

fn number(value: &Spanned<DeValue<'_>>) -> Option<Number> {
    let integer = value.get_ref().as_integer()?;
    Some(Number {
        text: integer.to_string(),
        value: u64::from_str_radix(integer.as_str(), integer.radix()).ok(),
    })
}

fn size(value: &Spanned<DeValue<'_>>) -> Result<Size, Fault> {
    match (value.get_ref().as_str(), number(value)) {
        (Some(text), _) => Ok(Size::Text(text.to_owned())),
        (None, Some(number)) => Ok(Size::Bytes(number)),
        (None, None) => Err(wrong_type(
            "max_bytes",
            value,
            "a string such as \"64MiB\" or a number of bytes",
        )),
    }
}

/// One glob or an array of them.
fn paths(value: &Spanned<DeValue<'_>>) -> Result<Vec<Spanned<String>>, Fault> {
    const EXPECTED: &str = "an array of strings such as [\"docs/**/*.md\"]";
    match value.get_ref() {
        DeValue::Array(items) => items.iter().map(|item| string("paths", item, EXPECTED)).collect(),
        _ => Ok(vec![string("paths", value, EXPECTED)?]),
    }
}

/// The table's own order is that of the alphabet.
fn in_file_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn unknown(key: &Spanned<toml::de::DeString<'_>>, place: Place) -> Fault {
    let name = key.get_ref().as_ref();
    let (here, elsewhere, other_place) = match place {
        Place::Top => (TOP_KEYS, RULE_KEYS, Place::Rule),
        Place::Rule => (RULE_KEYS, TOP_KEYS, Place::Top),
    };
    let remedy = if elsewhere.contains(&name) {
        Remedy::Belongs(other_place)
    } else {
        remedy(name, here)
    };
    Fault::new(
        key.span(),
        Problem::UnknownKey {
            key: name.to_owned(),
            place,
            remedy,
        },
    )
}

fn wrong_type(key: &'static str, value: &Spanned<DeValue<'_>>, expected: &'static str) -> Fault {
    let found = match value.get_ref() {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    Fault::new(value.span(), Problem::WrongType { key, found, expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_key_is_taken() {
        // A listed key gets past `unknown`: it is taken, or its value is of the wrong type.
        for (key, header) in TOP_KEYS
            .iter()
            .map(|k| (k, ""))
            .chain(RULE_KEYS.iter().map(|k| (k, "[[rule]]\n")))
        {
            let text = format!("{header}{key} = 1979-05-27");
            let fault = Written::parse(&text).expect_err("no key takes a date");
            assert!(
                matches!(fault.problem, Problem::WrongType { .. }),
                "{key}: {:?}",
                fault.problem
            );
        }
    }
}
