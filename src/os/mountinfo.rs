//! Which directories are mounts of ours: /proc/self/mountinfo, proc_pid_mountinfo(5).

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::table::Device;

/// The type that the mount room gives to its mounts, as the kernel shows it.
pub const FS_TYPE: &[u8] = b"fuse.concordfs";

/// One mount of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcordMount {
    /// Where.
    pub mountpoint: PathBuf,
    /// The device number of its files.
    pub device: Device,
    /// Its source, which the mount room sets to the backing directory's path.
    pub source: PathBuf,
}

/// Our mounts as this process sees them, in the order in which they were made.
pub fn concord_mounts() -> io::Result<Vec<ConcordMount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount of ours that one sees at exactly `path`, which must be free of links: the last one made there.
pub fn mounted_at(path: &Path) -> io::Result<Option<ConcordMount>> {
    Ok(concord_mounts()?
        .into_iter()
        .rev()
        .find(|mount| mount.mountpoint == path))
}

/// What the kernel says of a mount of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Its daemon answers, or at least the kernel believes so.
    Live,
    /// "Transport endpoint is not connected": its daemon has gone.
    Dead,
}

/// Asks the mount at `path`.
pub fn liveness(path: &Path) -> Liveness {
    match rustix::fs::statfs(path) {
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED) => Liveness::Dead,
        _ => Liveness::Live,
    }
}

fn parse(mountinfo: &[u8]) -> Vec<ConcordMount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mountpoint options [fields] - type source options`
fn parse_line(line: &[u8]) -> Option<ConcordMount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = fields.nth(2).and_then(device_of)?;
    let mountpoint = fields.nth(1)?;
    fields.find(|field| *field == b"-")?;
    if fields.next()? != FS_TYPE {
        return None;
    }
    Some(ConcordMount {
        mountpoint: unescape(mountpoint),
        device,
        source: unescape(fields.next()?),
    })
}

/// `major:minor`
fn device_of(field: &[u8]) -> Option<Device> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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
mod tests {
    use super::*;

    #[test]
    fn only_our_mounts_are_found_and_their_names_unescaped() {
        let text = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            40 22 0:50 / /home/a\\040b\\134c\\012\xff rw,nosuid shared:9 master:2 - fuse.concordfs /data\\043x rw,user_id=0\n\
            41 22 0:51 / /other rw - fuse.sshfs host rw\n\
            garbage\n";
        use std::os::unix::ffi::OsStrExt;
        let mountpoint = PathBuf::from(std::ffi::OsStr::from_bytes(b"/home/a b\\c\n\xff"));
        assert_eq!(
            parse(text),
            [ConcordMount {
                mountpoint,
                device: (0, 50),
                source: "/data#x".into()
            }]
        );
    }

    #[test]
    fn a_plain_directory_is_no_mount_of_ours() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(mounted_at(dir.path()).unwrap(), None);
        assert_eq!(liveness(dir.path()), Liveness::Live);
    }
}
