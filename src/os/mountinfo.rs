//! Which directories are mounts, and which of them ours: /proc/self/mountinfo, proc_pid_mountinfo(5). Asks nothing of the mounts.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::proc;
use super::table::Device;

/// The type that the mount room gives to its mounts, as the kernel shows it.
pub const FS_TYPE: &[u8] = b"fuse.concordfs";
/// How the source of a mount of ours begins, as that of an automount(8) does; then come the daemon's pid, [`SOURCE_MIDDLE`], and what it shows.
const SOURCE_BEGIN: &str = "concordfs(pid";
const SOURCE_MIDDLE: &str = "):";

/// One mount of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcordMount {
    /// Of the mount, as in the lines `mnt_id:` of /proc/PID/fdinfo.
    pub id: u64,
    /// Where.
    pub mountpoint: PathBuf,
    /// The device number of its files.
    pub device: Device,
    /// What of it one sees there, relative to its root: nothing, or a directory's path where that was bound elsewhere.
    pub below: PathBuf,
    /// The backing directory's path.
    pub backing: PathBuf,
    /// The daemon's pid in its own pid namespace. Mounts by earlier versions do not say it.
    pub daemon: Option<u32>,
    /// Who mounted it.
    pub user: Option<u32>,
    /// With which group.
    pub group: Option<u32>,
}

impl ConcordMount {
    /// Whether it is the same mount, found again: when it has gone, another may have its number.
    pub fn is(&self, other: &ConcordMount) -> bool {
        (self.id, self.daemon) == (other.id, other.daemon)
    }

    /// Whether this process serves it. Its id and its device number alone do not tell: when it is gone, the next mount gets them.
    pub fn is_own(&self) -> bool {
        self.daemon == Some(proc::own_pid().unwrap_or_default())
    }
}

/// The source of a mount of `backing` by the daemon `pid`.
pub fn source(pid: u32, backing: &Path) -> String {
    format!("{SOURCE_BEGIN}{pid}{SOURCE_MIDDLE}{}", backing.to_string_lossy())
}

/// All mounts that this process sees.
#[derive(Debug, Clone, Default)]
pub struct MountTable(Vec<Line>);

#[derive(Debug, Clone)]
struct Line {
    id: u64,
    parent: u64,
    device: Device,
    /// What of its filesystem one sees there.
    below: PathBuf,
    mountpoint: PathBuf,
    /// The group of mounts whose mounts and unmounts are its own too, mount_namespaces(7).
    shared: Option<u64>,
    /// The group whose mounts and unmounts come to it.
    master: Option<u64>,
    ours: Option<ConcordMount>,
}

impl MountTable {
    /// As they are now.
    pub fn read() -> io::Result<Self> {
        let text = std::fs::read("/proc/self/mountinfo")
            .map_err(|error| io::Error::new(error.kind(), format!("reading /proc/self/mountinfo: {error}")))?;
        Ok(Self::parse(&text))
    }

    /// As they are now for the process `pid`, which may be in another mount namespace.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self::parse(&std::fs::read(format!("/proc/{pid}/mountinfo"))?))
    }

    fn parse(text: &[u8]) -> Self {
        Self(text.split(|byte| *byte == b'\n').filter_map(parse_line).collect())
    }

    /// The mount of ours that one sees at exactly `path`, which must be free of links.
    pub fn at(&self, path: &Path) -> Option<&ConcordMount> {
        self.containing(path).filter(|mount| mount.mountpoint == path)
    }

    /// The mount of ours that `path`, which must be free of links, lies in; none when another filesystem is mounted in between.
    pub fn containing(&self, path: &Path) -> Option<&ConcordMount> {
        self.line_of(path)?.ours.as_ref()
    }

    /// The mount of ours with this id, wherever it is by now.
    pub fn by_id(&self, id: u64) -> Option<&ConcordMount> {
        self.0
            .iter()
            .find_map(|line| line.ours.as_ref().filter(|mount| mount.id == id))
    }

    /// Where in `tables`, of which this is the first, the filesystem `device` stays when its mount `id` is unmounted: the number of the table and the mount. What an
    /// unmount here is passed on to goes along (mount_namespaces(7), "MS_SHARED and MS_SLAVE").
    pub fn stays<'a>(&self, id: u64, device: Device, tables: &'a [MountTable]) -> Vec<(usize, &'a ConcordMount)> {
        let here = self.line(id).and_then(|line| Some((self.line(line.parent)?, line)));
        let place = here.map(|(parent, line)| (parent.device, parent.inside(line)));
        let mut groups: Vec<u64> = here.and_then(|(parent, _)| parent.shared).into_iter().collect();
        let receives =
            |line: &Line, groups: &[u64]| [line.shared, line.master].iter().flatten().any(|g| groups.contains(g));
        let all = || tables.iter().flat_map(|table| &table.0);
        while let Some(further) = all()
            .filter(|line| receives(line, &groups))
            .find_map(|line| line.shared.filter(|group| !groups.contains(group)))
        {
            groups.push(further);
        }
        let goes_along = |table: &MountTable, line: &Line| {
            let on = table.line(line.parent);
            on.is_some_and(|on| receives(on, &groups) && Some((on.device, on.inside(line))) == place)
        };
        let of_table = |(number, table): (usize, &'a MountTable)| {
            let others = table.0.iter().filter(|line| line.id != id && line.device == device);
            let stays = others.filter(|line| !goes_along(table, line));
            stays
                .filter_map(|line| Some((number, line.ours.as_ref()?)))
                .collect::<Vec<_>>()
        };
        tables.iter().enumerate().flat_map(of_table).collect()
    }

    /// What is mounted in the mount with this id, by whomever: where, and whether it is one of ours.
    pub fn within(&self, id: u64) -> impl Iterator<Item = (&Path, bool)> {
        let inner = self.0.iter().filter(move |line| line.parent == id && line.id != id);
        inner.map(|line| (line.mountpoint.as_path(), line.ours.is_some()))
    }

    fn line(&self, id: u64) -> Option<&Line> {
        self.0.iter().find(|line| line.id == id)
    }

    /// Whether something is mounted at exactly `path`.
    pub fn is_mountpoint(&self, path: &Path) -> bool {
        self.0.iter().any(|line| line.mountpoint == path)
    }

    /// The mounts of ours that one can reach.
    pub fn concord(&self) -> impl Iterator<Item = &ConcordMount> {
        let reached = |line: &&Line| self.line_of(&line.mountpoint).is_some_and(|top| top.id == line.id);
        self.0.iter().filter(reached).filter_map(|line| line.ours.as_ref())
    }

    /// The mount that a walk along `path` ends in. Of those on one mount it meets the one with the shortest path first.
    fn line_of(&self, path: &Path) -> Option<&Line> {
        let nearest = |wanted: &dyn Fn(&Line) -> bool| {
            let on_the_way = self
                .0
                .iter()
                .filter(|line| path.starts_with(&line.mountpoint) && wanted(line));
            on_the_way.min_by_key(|line| line.mountpoint.as_os_str().len())
        };
        let known = |id: u64| self.0.iter().any(|line| line.id == id);
        let mut at = nearest(&|line| line.parent == line.id || !known(line.parent))?;
        // As deep as the table is long, should it be no tree.
        for _ in 0..self.0.len() {
            let here = at.id;
            match nearest(&|line| line.parent == here && line.id != here) {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(at)
    }

    /// Whether both paths lie in one mount, mounts of ours left aside: which filesystem it was before.
    pub fn in_one_filesystem(&self, a: &Path, b: &Path) -> bool {
        let ours = |id: u64| self.0.iter().find(|line| line.id == id && line.ours.is_some());
        let without = |line: &Line| {
            let mut line = line.clone();
            // What was mounted on one of ours is as if on what that is mounted on.
            while let Some(below) = ours(line.parent) {
                line.parent = below.parent;
            }
            line
        };
        let others = Self(self.0.iter().filter(|line| line.ours.is_none()).map(without).collect());
        others.line_of(a).map(|line| line.id) == others.line_of(b).map(|line| line.id)
    }
}

impl Line {
    /// Where on this mount's filesystem another one is mounted.
    fn inside(&self, other: &Line) -> PathBuf {
        let relative = other.mountpoint.strip_prefix(&self.mountpoint);
        self.below.join(relative.unwrap_or(&other.mountpoint))
    }
}

/// `36 35 98:0 /root /mountpoint options [fields] - type source options`
fn parse_line(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = fields.next().and_then(device_of)?;
    let below = unescape(fields.next()?);
    let mountpoint = unescape(fields.next()?);
    let (mut shared, mut master) = (None, None);
    for field in fields.by_ref().take_while(|field| *field != b"-") {
        shared = field.strip_prefix(b"shared:").and_then(number).or(shared);
        master = field.strip_prefix(b"master:").and_then(number).or(master);
    }
    let kind = fields.next()?;
    let source = unescape(fields.next()?);
    let (daemon, backing) = parse_source(&source);
    let options = fields.next().unwrap_or_default();
    let ours = (kind == FS_TYPE).then(|| ConcordMount {
        id,
        mountpoint: mountpoint.clone(),
        device,
        below: below.strip_prefix("/").unwrap_or(&below).to_owned(),
        backing,
        daemon,
        user: option(options, b"user_id="),
        group: option(options, b"group_id="),
    });
    Some(Line {
        id,
        parent,
        device,
        below,
        mountpoint,
        shared,
        master,
        ours,
    })
}

/// `major:minor`
fn device_of(field: &[u8]) -> Option<Device> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn option(options: &[u8], name: &[u8]) -> Option<u32> {
    let value = options
        .split(|byte| *byte == b',')
        .find_map(|option| option.strip_prefix(name))?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn parse_source(source: &Path) -> (Option<u32>, PathBuf) {
    let parsed = || {
        let rest = source.as_os_str().as_bytes().strip_prefix(SOURCE_BEGIN.as_bytes())?;
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let pid = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
        let backing = rest[digits..].strip_prefix(SOURCE_MIDDLE.as_bytes())?;
        Some((Some(pid), OsString::from_vec(backing.to_vec()).into()))
    };
    parsed().unwrap_or_else(|| (None, source.to_owned()))
}

/// Blanks, tabs, newlines, backslashes and (in sources) `#` stand as `\ooo`.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        if let Some(digits) = octal {
            bytes.push(
                digits
                    .iter()
                    .fold(0u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')),
            );
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A table of `(id, parent, mountpoint, backing)`; without a backing it is not ours.
    pub fn table(lines: &[(u64, u64, &str, &str)]) -> MountTable {
        let mut text = String::new();
        for (id, parent, mountpoint, backing) in lines {
            let tail = match *backing {
                "" => "ext4 /dev/root rw".to_owned(),
                backing => format!(
                    "fuse.concordfs {} rw,user_id=7",
                    source(1000 + *id as u32, Path::new(backing))
                ),
            };
            text.push_str(&format!("{id} {parent} 8:1 / {mountpoint} rw - {tail}\n"));
        }
        MountTable::parse(text.as_bytes())
    }

    #[test]
    fn a_mount_of_ours_is_read_and_its_names_unescaped() {
        let text = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            40 22 0:50 / /home/a\\040b\\134c\\012\xff rw,nosuid shared:9 master:2 - fuse.concordfs concordfs(pid77):/data\\043x rw,user_id=5,group_id=6\n\
            41 22 0:51 / /other rw - fuse.sshfs host rw\n\
            42 22 0:50 /docs /bound rw - fuse.concordfs /old rw\n\
            garbage\n";
        let table = MountTable::parse(text);
        let mountpoint = PathBuf::from(std::ffi::OsStr::from_bytes(b"/home/a b\\c\n\xff"));
        let first = ConcordMount {
            id: 40,
            mountpoint: mountpoint.clone(),
            device: (0, 50),
            below: "".into(),
            backing: "/data#x".into(),
            daemon: Some(77),
            user: Some(5),
            group: Some(6),
        };
        let bound = ConcordMount {
            id: 42,
            mountpoint: "/bound".into(),
            device: (0, 50),
            below: "docs".into(),
            backing: "/old".into(),
            daemon: None,
            user: None,
            group: None,
        };
        assert_eq!(table.concord().collect::<Vec<_>>(), [&first, &bound]);
        assert_eq!(table.at(&mountpoint), Some(&first));
        assert_eq!(table.at(&mountpoint.join("x")), None);
        assert_eq!(table.containing(&mountpoint.join("x")), Some(&first));
        assert_eq!(table.containing(Path::new("/other/x")), None);
    }

    #[test]
    fn a_path_lies_in_the_mount_that_a_walk_along_it_ends_in() {
        // Twice over /p; /p/usb was mounted on the first of the two, and nobody reaches it any more; /p/disk is on the second.
        let table = table(&[
            (1, 0, "/", ""),
            (2, 1, "/p", "/p"),
            (3, 2, "/p/usb", "/usb"),
            (4, 2, "/p", "/q"),
            (5, 4, "/p/disk", ""),
        ]);
        let id = |path: &str| table.containing(Path::new(path)).map(|mount| mount.id);
        assert_eq!(id("/p"), Some(4));
        assert_eq!(id("/p/usb/x"), Some(4));
        assert_eq!(id("/p/disk/x"), None);
        assert_eq!(id("/px"), None);
        assert_eq!(table.within(4).collect::<Vec<_>>(), [(Path::new("/p/disk"), false)]);
        assert!(
            table
                .within(2)
                .eq([(Path::new("/p/usb"), true), (Path::new("/p"), true)])
        );
        assert_eq!(table.concord().map(|mount| mount.id).collect::<Vec<_>>(), [4]);
        assert!(table.in_one_filesystem(Path::new("/p"), Path::new("/x")));
    }

    #[test]
    fn a_mount_that_another_daemon_serves_is_not_own_whatever_its_numbers() {
        let of = |pid: u32| {
            MountTable::parse(format!("2 1 0:50 / /p rw - fuse.concordfs concordfs(pid{pid}):/p rw").as_bytes())
        };
        let own = std::process::id();
        assert!(of(own).by_id(2).unwrap().is_own());
        assert!(!of(own + 1).by_id(2).unwrap().is_own());
    }

    #[test]
    fn what_an_unmount_is_passed_on_to_does_not_stay() {
        let of = |lines: &[&str]| MountTable::parse(lines.join("\n").as_bytes());
        let ours = "fuse.concordfs concordfs(pid7):/p rw";
        let here = of(&[
            "1 0 8:1 / / rw shared:5 - ext4 d rw",
            &format!("2 1 0:50 / /p rw shared:9 - {ours}"),
            &format!("3 1 0:50 / /bound rw shared:9 - {ours}"),
            &format!("4 1 0:51 / /other rw - {ours}"),
        ]);
        // A private namespace; one that is passed all on to, and one below that; one that shows a directory of the same filesystem.
        let private = of(&["11 0 8:1 / / rw - ext4 d rw", &format!("12 11 0:50 / /p rw - {ours}")]);
        let slave = of(&[
            "21 0 8:1 / / rw shared:6 master:5 - ext4 d rw",
            &format!("22 21 0:50 / /p rw master:9 - {ours}"),
        ]);
        let below = of(&[
            "31 0 8:1 / / rw master:6 - ext4 d rw",
            &format!("32 31 0:50 / /p rw master:9 - {ours}"),
        ]);
        let part = of(&[
            "41 0 0:9 / / rw - tmpfs d rw",
            "42 41 8:1 /srv /srv rw master:5 - ext4 d rw",
            &format!("43 41 0:50 / /p rw - {ours}"),
        ]);
        let tables = [here.clone(), private, slave, below, part];
        let ids = |table: &MountTable, id| -> Vec<(usize, u64)> {
            let device = if id == 4 { (0, 51) } else { (0, 50) };
            table
                .stays(id, device, &tables)
                .into_iter()
                .map(|(number, mount)| (number, mount.id))
                .collect()
        };
        assert_eq!(ids(&here, 2), [(0, 3), (1, 12), (4, 43)]);
        assert_eq!(ids(&here, 4), []);
        // It is unmounted already.
        assert_eq!(ids(&here, 99), [(0, 2), (0, 3), (1, 12), (2, 22), (3, 32), (4, 43)]);
        // Where nothing is passed on, all stay.
        let alone = of(&["1 0 8:1 / / rw - ext4 d rw", &format!("2 1 0:50 / /p rw - {ours}")]);
        let tables = [alone.clone(), tables[2].clone()];
        let stays = alone.stays(2, (0, 50), &tables);
        assert_eq!(stays.iter().map(|(_, mount)| mount.id).collect::<Vec<_>>(), [22]);
    }

    #[test]
    fn a_source_says_who_and_what() {
        let of = |text: &str| parse_source(Path::new(text));
        assert_eq!(of(&source(12, Path::new("/a b"))), (Some(12), "/a b".into()));
        for old in ["/srv/p", "concordfs(pidx):/p", "concordfs(pid1", "ordinary-test"] {
            assert_eq!(of(old), (None, old.into()));
        }
    }
}
