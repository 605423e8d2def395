//! `concord history FILE`.

use std::io::{self, Write};
use std::path::Path;

use super::failure::{At, Failure};
use super::missing;
use super::output::{Answer, Out, columns};
use super::project::{Project, STORE};
use super::rooms::{Rooms, Version};
use crate::control::lossless::printable;

/// As many hex digits of a hash as people compare.
const HASH_DIGITS: usize = 12;

pub fn run(file: &Path, rooms: &dyn Rooms, out: &mut Out) -> anyhow::Result<Answer> {
    let (project, relative) = Project::of_file(file)?;
    let history = project.history(rooms)?;
    let versions = history.versions(&relative).at(&relative)?;
    if out.json {
        out.document(&versions)?;
    } else if !versions.is_empty() {
        list(out, &versions)?;
    }
    let unreadable = history.unreadable(&relative).at(&relative)?;
    if let Some(first) = unreadable.first() {
        let why = format!(
            "the disk fails: of its records {} cannot be read, the first is {}",
            unreadable.len(),
            printable(Path::new(STORE).join(first))
        );
        let hint = "what they tell is missing above; a version without a record is `found`, by nobody";
        out.remark("history", &Failure::at(&relative, why).hint(hint));
        return Ok(Answer::No);
    }
    if versions.is_empty() {
        out.remark("history", &missing::file(&project, &relative, rooms, &*history));
    } else if missing::is_coordinated(&project, &relative, rooms) == Some(false) {
        out.remark("history", &missing::uncoordinated(&relative));
    }
    Ok(if versions.is_empty() { Answer::No } else { Answer::Yes })
}

fn list(out: &mut impl Write, versions: &[Version]) -> io::Result<()> {
    let mut rows = vec![
        [
            "VERSION", "TIME", "BYTES", "HOW", "PID", "COMMAND", "AGENT", "BASED ON", "HASH", "",
        ]
        .map(String::from)
        .to_vec(),
    ];
    rows.extend(versions.iter().map(row));
    columns(out, &[0, 2, 4, 7], &rows)
}

/// What a version has to do with other names.
fn names(version: &Version) -> impl Iterator<Item = String> {
    let name = version.name.as_ref().map(|name| format!("as {}", printable(&name.0)));
    let from = version.came_from.as_ref();
    let from = from.map(|from| format!("was {}@{}", printable(&from.name.0), from.version));
    let to = version.moved_to.as_ref();
    let to = to.map(|to| format!("now {}", printable(&to.0)));
    [name, from, to].into_iter().flatten()
}

fn row(version: &Version) -> Vec<String> {
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_string()
        } else {
            printable(text)
        }
    };
    let pid = if version.pid == 0 {
        String::new()
    } else {
        version.pid.to_string()
    };
    let marks: Vec<_> = [(version.current, "current"), (version.stale, "stale")]
        .into_iter()
        .filter(|(set, _)| *set)
        .map(|(_, mark)| mark.to_owned())
        .chain(names(version))
        .collect();
    vec![
        version.version.to_string(),
        version.time.seconds(),
        version.bytes.to_string(),
        version.how.clone(),
        or_dash(&pid),
        or_dash(&version.command),
        or_dash(version.agent.as_deref().unwrap_or_default()),
        version.based_on.map_or("-".into(), |number| number.to_string()),
        version.hash.chars().take(HASH_DIGITS).collect(),
        marks.join(", "),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeRooms, said};

    #[test]
    fn the_listing_is_one_line_a_version_newest_first() {
        let rooms = FakeRooms::new();
        let (answer, text) = said(false, |out| run(&rooms.file("a.md"), &rooms, out));
        assert_eq!(answer.unwrap(), Answer::Yes);
        assert_eq!(
            text,
            "VERSION  TIME                  BYTES  HOW    PID  COMMAND  AGENT    BASED ON  HASH\n\
             \x20     2  2023-11-14T22:13:20Z      8  close   41  vim      planner         1  abcdef012345  current, stale\n\
             \x20     1  2023-11-14T22:13:20Z      4  found    -  -        -               -  abcdef012345\n"
        );
    }

    #[test]
    fn the_json_begins_with_the_ten_promised_keys() {
        let rooms = FakeRooms::new();
        let (_, text) = said(true, |out| run(&rooms.file("a.md"), &rooms, out));
        let compact: String = text.split_whitespace().collect();
        let first = r#"[{"version":2,"time":"2023-11-14T22:13:20.000000000Z","bytes":8,"hash":"abcdef0123456789","how":"close","pid":41,"command":"vim","agent":"planner","based_on":1,"current":true,"#;
        assert!(compact.starts_with(first), "{compact}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text)
                .unwrap()
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn a_file_without_versions_is_a_no() {
        let rooms = FakeRooms::new();
        for (json, expected) in [(false, ""), (true, "[]\n")] {
            let (answer, text) = said(json, |out| run(&rooms.file("b.md"), &rooms, out));
            assert_eq!((answer.unwrap(), text.as_str()), (Answer::No, expected));
        }
    }
}
