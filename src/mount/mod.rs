//! FUSE: decode, nodes, handles, ordinary files, coordinated files, replies. The only place that knows `fuser`.

mod attr;
pub mod coordinated;
mod descriptors;
mod dir;
mod dirs;
mod entry;
mod errno;
mod file;
mod fs;
mod getattr;
mod handles;
mod init;
mod mapped;
mod modes;
pub mod nodes;
pub mod notices;
pub mod pin;
mod route;
mod setattr;
mod tree;
mod unkept;
mod workers;
mod xattr;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use coordinated::{Coordination, RealStore};
use notices::Notices;

use crate::os::mountinfo::{self, MountTable};
use crate::os::namespaces::{self, Elsewhere};
use crate::os::proc;
use crate::os::table::Device;
use crate::rules::Rules;

use rustix::fs::StatVfsMountFlags;
use rustix::mount::UnmountFlags;

/// Where and how to mount.
#[derive(Debug)]
pub struct MountOptions {
    /// The directory to mount over.
    pub mountpoint: PathBuf,
    /// The real tree: `O_PATH | O_DIRECTORY`, opened before anything is mounted over it.
    pub backing: OwnedFd,
    /// Others change the backing tree while it is mounted: the kernel then remembers for one second only, and every directory
    /// that is reached is checked to be the one that was meant.
    pub shared_backing: bool,
    /// Users other than the one who mounts may use the mount; needs root, or `user_allow_other` in fuse.conf(5). The daemon asks for it as root only.
    pub allow_other: bool,
    /// The backing tree's path as mount(8) shall show it.
    pub shown: PathBuf,
    /// Started to tell watchers of publishes; see [`notices`]. Without it they hear of the writes only.
    pub teller: Option<Command>,
}

/// What coordination needs.
pub struct Coordinated {
    /// The owner of `.concord/`.
    pub store: RealStore,
    /// The rules to begin with.
    pub rules: Rules,
    /// Called when `concord.toml` was published.
    pub config_changed: Box<dyn Fn() + Send + Sync>,
}

/// Why mounting, serving or unmounting failed.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The backing descriptor is not a directory that can be used.
    #[error("cannot use the backing directory of {}: {source}; check that it exists and can be read", path.display())]
    Backing {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel or fusermount3 refused.
    #[error("cannot mount over {}: {source}; check that /dev/fuse is there, and fusermount3 unless you are root", path.display())]
    Mount {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection to the kernel broke.
    #[error("serving {} failed: {source}; unmount it and mount again", path.display())]
    Serve {
        /// The mount point.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// umount(2) or fusermount3 refused.
    #[error("cannot unmount {}: {source}; end the programs that use it, or detach it", path.display())]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// What the system said: EBUSY while it is in use.
        source: io::Error,
    },
}

/// A mount that waits to be served.
#[derive(Debug)]
pub struct Mount {
    session: fuser::Session<fs::Fs>,
    coordination: Arc<Coordination>,
    unmounter: Unmounter,
}

/// Unmounts from any thread; [`Mount::run`] then returns.
#[derive(Debug, Clone)]
pub struct Unmounter {
    /// Where it was mounted. A directory above may have been renamed since.
    mountpoint: PathBuf,
    /// Its id, and the device number of its files, as mountinfo says them.
    known: Option<(u64, Device)>,
}

impl Mount {
    /// Mounts. Whoever touches the mount point from now on waits until [`Mount::run`] is called.
    ///
    /// # Errors
    /// [`MountError::Backing`] and [`MountError::Mount`].
    pub fn new(options: MountOptions, coordinated: Coordinated) -> Result<Mount, MountError> {
        let MountOptions {
            mountpoint,
            backing,
            shared_backing,
            allow_other,
            shown,
            teller,
        } = options;
        let wrap = |source: io::Error| MountError::Mount {
            path: mountpoint.clone(),
            source,
        };
        let mountpoint = mountpoint.canonicalize().map_err(wrap)?;
        let descriptors_max = descriptors::raise_limit();
        let stacked = is_overlay(&backing);
        let source = mountinfo::source(proc::own_pid().unwrap_or_default(), &shown);
        let config = config(&backing, allow_other, source);
        let tree = tree::Tree::new(backing, shared_backing, descriptors_max).map_err(|errno| MountError::Backing {
            path: mountpoint.clone(),
            source: errno.into(),
        })?;
        let tree = Arc::new(tree);
        if let Some(program) = teller {
            let of = Arc::downgrade(&tree);
            let known = move |node| of.upgrade().is_some_and(|tree| tree.nodes.identity(node).is_some());
            tree.set_notices(Notices::start(program, known).map_err(wrap)?);
        }
        let Coordinated {
            store,
            rules,
            config_changed,
        } = coordinated;
        let coordination = Coordination::start(Arc::clone(&tree), store, rules, config_changed).map_err(wrap)?;
        let fs = fs::Fs::new(Arc::clone(&tree), Arc::clone(&coordination), stacked);
        let session = fuser::Session::new(fs, &mountpoint, &config).map_err(wrap)?;
        tree.set_notifier(session.notifier());
        tree.mounted();
        let known = MountTable::read().ok().and_then(|mounts| {
            let mount = mounts.at(&mountpoint)?;
            Some((mount.id, mount.device))
        });
        if let Some((_, device)) = known {
            coordination.set_device(device);
        }
        Ok(Mount {
            session,
            coordination,
            unmounter: Unmounter { mountpoint, known },
        })
    }

    /// Serves the mount until it is unmounted.
    ///
    /// # Errors
    /// [`MountError::Serve`].
    pub fn run(self) -> Result<(), MountError> {
        let path = self.unmounter.mountpoint;
        self.session.run().map_err(|source| MountError::Serve { path, source })
    }

    /// The coordination of its shared files: status, restore, rules.
    pub fn coordination(&self) -> Arc<Coordination> {
        Arc::clone(&self.coordination)
    }

    /// What ends [`Mount::run`].
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }
}

impl Unmounter {
    /// Unmounts, umount(2).
    ///
    /// # Errors
    /// [`MountError::Unmount`], with EBUSY while anybody uses the mount.
    pub fn unmount(&self) -> Result<(), MountError> {
        self.call(UnmountFlags::NOFOLLOW, &["-u"])
    }

    /// Takes the mount away from the tree at once, wherever it is bound to in this namespace; it ends when the last program lets go of it (MNT_DETACH).
    ///
    /// # Errors
    /// [`MountError::Unmount`].
    pub fn detach(&self) -> Result<(), MountError> {
        let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH;
        for bound in self.stays().iter().filter(|elsewhere| elsewhere.pid.is_none()) {
            if let Err(error) = unmount(&bound.mountpoint, flags, &["-u", "-z"]) {
                log::warn!("{error}");
            }
        }
        self.call(flags, &["-u", "-z"])
    }

    /// Where its files are to be seen also when it is unmounted, because somebody has bound or copied the mount.
    pub fn stays(&self) -> Vec<Elsewhere> {
        let stays = self.known.map(|(id, device)| namespaces::stays(id, device));
        stays.transpose().ok().flatten().unwrap_or_default()
    }

    /// Where it is mounted now; `None` when it is unmounted.
    fn place(&self) -> Option<PathBuf> {
        match (self.known, MountTable::read()) {
            (Some((id, _)), Ok(mounts)) => {
                let own = mounts.by_id(id).filter(|mount| mount.is_own());
                own.map(|mount| mount.mountpoint.clone())
            }
            _ => Some(self.mountpoint.clone()),
        }
    }

    /// Unmounted already is as good.
    fn call(&self, flags: UnmountFlags, fusermount: &[&str]) -> Result<(), MountError> {
        let Some(path) = self.place() else {
            return Ok(());
        };
        unmount(&path, flags, fusermount)
    }
}

fn unmount(path: &Path, flags: UnmountFlags, fusermount: &[&str]) -> Result<(), MountError> {
    let result = match rustix::mount::unmount(path, flags) {
        Err(rustix::io::Errno::PERM) => run_fusermount(fusermount, path),
        result => result.map_err(io::Error::from),
    };
    let path = path.to_owned();
    result.map_err(|source| MountError::Unmount { path, source })
}

fn run_fusermount(arguments: &[&str], mountpoint: &Path) -> io::Result<()> {
    let output = Command::new("fusermount3")
        .args(arguments)
        .arg("--")
        .arg(mountpoint)
        .output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

fn config(backing: impl AsFd, allow_other: bool, fs_name: String) -> fuser::Config {
    let mut config = fuser::Config::default();
    config.mount_options = vec![
        fuser::MountOption::DefaultPermissions,
        fuser::MountOption::FSName(fs_name),
        // As `Subtype` fuser hands it to fusermount only, and mountinfo of a mount by root would say plain "fuse".
        fuser::MountOption::CUSTOM("subtype=concordfs".to_owned()),
    ];
    config.mount_options.extend(restrictions(backing));
    // With `Owner` the kernel itself refuses other users; fuser's own filter would refuse root too.
    config.acl = if allow_other {
        fuser::SessionACL::All
    } else {
        fuser::SessionACL::Owner
    };
    config.n_threads = Some(std::thread::available_parallelism().map_or(2, |cores| cores.get().max(2)));
    config.clone_fd = true;
    config
}

/// What the backing filesystem's own mount does not let its programs and devices do, this one does not either. Users other than root get nosuid and nodev from
/// fusermount3 in any case.
fn restrictions(backing: impl AsFd) -> Vec<fuser::MountOption> {
    use fuser::MountOption::{Dev, Exec, NoDev, NoExec, NoSuid, Suid};
    let may = rustix::process::geteuid().is_root();
    let Ok(flags) = rustix::fs::fstatvfs(backing).map(|stat| stat.f_flag) else {
        return vec![NoSuid, NoDev];
    };
    let no = |flag| flags.contains(flag);
    vec![
        if may && !no(StatVfsMountFlags::NOSUID) {
            Suid
        } else {
            NoSuid
        },
        if may && !no(StatVfsMountFlags::NODEV) {
            Dev
        } else {
            NoDev
        },
        if no(StatVfsMountFlags::NOEXEC) { NoExec } else { Exec },
    ]
}

/// Whether the backing tree is itself a stacked filesystem, statfs(2).
fn is_overlay(backing: impl AsFd) -> bool {
    const OVERLAYFS_SUPER_MAGIC: i64 = 0x794c_7630;
    rustix::fs::fstatfs(backing).is_ok_and(|stat| stat.f_type == OVERLAYFS_SUPER_MAGIC)
}
