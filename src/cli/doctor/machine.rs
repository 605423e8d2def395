//! What the machine gives: FUSE, the kernel's features, rights, limits.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Resource;

use super::{Finding, State};
use crate::os::creds;

/// Below this a busy project runs out of them.
const DESCRIPTORS_MIN: u64 = 4096;
/// How long the kernel may take to send FUSE_INIT after the mount.
const INIT_TIME_MAX: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
/// The kernel refuses a read with a buffer of less than 8 KiB (FUSE_MIN_READ_BUFFER).
const INIT_BUFFER_BYTES: usize = 1024 * 1024;
/// The opcode of FUSE_INIT, and the feature bits that it offers (linux/fuse.h).
const FUSE_INIT: u32 = 26;
const FUSE_INIT_EXT: u64 = 1 << 30;
const FUSE_PASSTHROUGH: u64 = 1 << 37;
const FUSE_HAS_RESEND: u64 = 1 << 39;
/// The kernel that brought both.
const KERNEL_OF_BOTH: (u32, u32) = (6, 9);

/// What the kernel offers to a FUSE server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offer {
    abi: (u32, u32),
    flags: u64,
}

/// Everything about the machine.
pub fn look() -> Vec<Finding> {
    let admin = creds::is_admin();
    let offer = if admin {
        offer().map_err(|error| error.to_string())
    } else {
        Err("only root can ask".into())
    };
    let helper = fusermount3(admin);
    vec![
        fuse(),
        kernel(&offer),
        passthrough(&offer, admin),
        resend(&offer),
        may_mount(admin, helper.state == State::Yes),
        helper,
        descriptors(),
    ]
}

fn fuse() -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Finding::has("fuse", "/dev/fuse can be opened"),
        Err(error) => Finding::lacks(
            "fuse",
            format!("/dev/fuse: {error}"),
            "nothing can be mounted",
            "`modprobe fuse`; in a container start it with --device /dev/fuse; else ask for the right to open it",
        ),
    }
    .essential(true)
}

fn release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn kernel(offer: &Result<Offer, String>) -> Finding {
    match offer {
        Ok(Offer {
            abi: (major, minor), ..
        }) => Finding::has("kernel", format!("Linux {}, FUSE ABI {major}.{minor}", release())),
        Err(why) => Finding::has("kernel", format!("Linux {}, FUSE ABI not asked ({why})", release())),
    }
}

/// Whether the kernel offers a feature: asked where possible, else by its version.
fn offered(offer: &Result<Offer, String>, flag: u64) -> Option<bool> {
    match offer {
        Ok(offer) => Some(offer.flags & flag != 0),
        Err(_) => version(&release()).map(|version| version >= KERNEL_OF_BOTH),
    }
}

fn passthrough(offer: &Result<Offer, String>, admin: bool) -> Finding {
    const COST: &str = "data of ordinary files goes through the daemon and the page cache: correct, but slower";
    let name = "passthrough";
    match (offered(offer, FUSE_PASSTHROUGH), admin) {
        (Some(true), true) => Finding::has(name, "the kernel offers it and you have CAP_SYS_ADMIN"),
        (Some(true), false) => Finding::lacks(name, "the kernel needs CAP_SYS_ADMIN for it", COST, "mount as root"),
        (Some(false), _) => Finding::lacks(name, "the kernel does not offer it", COST, "use Linux 6.9 or later"),
        (None, _) => Finding::unknown(name, "the kernel's version is not understood"),
    }
}

fn resend(offer: &Result<Offer, String>) -> Finding {
    match offered(offer, FUSE_HAS_RESEND) {
        Some(true) => Finding::has("resend", "the kernel can send requests in flight again"),
        Some(false) => Finding::lacks(
            "resend",
            "the kernel cannot send requests in flight again",
            "a daemon that dies cannot be replaced unnoticed",
            "use Linux 6.9 or later",
        ),
        None => Finding::unknown("resend", "the kernel's version is not understood"),
    }
}

fn may_mount(admin: bool, helper: bool) -> Finding {
    match (admin, helper) {
        (true, _) => Finding::has("right to mount", "CAP_SYS_ADMIN"),
        (false, true) => Finding::has("right to mount", "through fusermount3"),
        (false, false) => Finding::lacks(
            "right to mount",
            "neither CAP_SYS_ADMIN nor fusermount3",
            "nothing can be mounted",
            "install fuse3, or mount as root",
        ),
    }
    .essential(true)
}

fn fusermount3(admin: bool) -> Finding {
    const NAME: &str = "fusermount3";
    let cost = if admin {
        "nothing, for root"
    } else {
        "only root can mount"
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found: Option<PathBuf> = std::env::split_paths(&path)
        .map(|dir| dir.join(NAME))
        .find(|file| file.is_file());
    let Some(found) = found else {
        return Finding::lacks(NAME, "not in PATH", cost, "install the package fuse3");
    };
    let setuid = found
        .metadata()
        .is_ok_and(|meta| meta.mode() & 0o4000 != 0 && meta.uid() == 0);
    let shown = found.display();
    if setuid {
        Finding::has(NAME, format!("{shown}, setuid root"))
    } else {
        Finding::lacks(
            NAME,
            format!("{shown} is not setuid root"),
            cost,
            "`chown root` and `chmod u+s` it",
        )
    }
}

fn descriptors() -> Finding {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let shown = |limit: Option<u64>| limit.map_or("unlimited".into(), |limit| limit.to_string());
    let detail = format!(
        "{}, the daemon raises it to {}",
        shown(limit.current),
        shown(limit.maximum)
    );
    if limit.maximum.is_some_and(|maximum| maximum < DESCRIPTORS_MIN) {
        let cost = "programs that together hold more files open than that get ENFILE";
        return Finding::lacks(
            "descriptors",
            detail,
            cost,
            "raise the hard limit: ulimit -Hn, LimitNOFILE= in systemd",
        );
    }
    Finding::has("descriptors", detail)
}

/// Mounts a filesystem that nobody serves, over an empty directory, reads the kernel's first message, and unmounts.
fn offer() -> io::Result<Offer> {
    struct Mounted(PathBuf);
    impl Drop for Mounted {
        fn drop(&mut self) {
            if let Err(errno) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
                log::warn!("unmounting {}: {errno}", self.0.display());
            }
        }
    }
    let scratch = tempfile::Builder::new().prefix("concord-doctor-").tempdir()?;
    let mut device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = CString::new(options).map_err(io::Error::other)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(
        "concord-doctor",
        scratch.path(),
        "fuse",
        flags,
        Some(options.as_c_str()),
    )?;
    let _mounted = Mounted(scratch.path().to_path_buf());
    read_offer(&mut device)
}

fn read_offer(device: &mut File) -> io::Result<Offer> {
    let mut ready = [PollFd::new(device, PollFlags::IN)];
    if poll(&mut ready, Some(&INIT_TIME_MAX))? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel sent no FUSE_INIT"));
    }
    let mut message = vec![0; INIT_BUFFER_BYTES];
    let count = device.read(&mut message)?;
    parse_offer(&message[..count]).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a FUSE_INIT"))
}

/// `fuse_in_header` of 40 bytes with the opcode at 4, then `fuse_init_in`: major, minor, max_readahead, flags, flags2.
fn parse_offer(message: &[u8]) -> Option<Offer> {
    let word = |at: usize| Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?));
    if word(4)? != FUSE_INIT {
        return None;
    }
    let low = u64::from(word(52)?);
    let high = if low & FUSE_INIT_EXT != 0 {
        u64::from(word(56)?)
    } else {
        0
    };
    Some(Offer {
        abi: (word(40)?, word(44)?),
        flags: high << 32 | low,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(opcode: u32, flags: u32, flags2: u32) -> Vec<u8> {
        let mut message = vec![0; 40];
        message[4..8].copy_from_slice(&opcode.to_ne_bytes());
        for word in [7, 45, 0, flags, flags2] {
            message.extend(u32::to_ne_bytes(word));
        }
        message
    }

    #[test]
    fn the_kernels_offer_is_read_from_its_first_message() {
        let offer = parse_offer(&message(FUSE_INIT, 1 << 30, 1 << 5)).unwrap();
        assert_eq!(offer.abi, (7, 45));
        assert_eq!(
            (offer.flags & FUSE_PASSTHROUGH != 0, offer.flags & FUSE_HAS_RESEND != 0),
            (true, false)
        );
        assert_eq!(parse_offer(&message(FUSE_INIT, 1, 1 << 5)).unwrap().flags, 1);
        assert_eq!(parse_offer(&message(3, 0, 0)), None);
        assert_eq!(parse_offer(&message(FUSE_INIT, 0, 0)[..50]), None);
    }

    #[test]
    fn a_kernel_release_gives_its_version() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("6.9"), Some((6, 9)));
        assert_eq!(version("odd"), None);
    }
}
