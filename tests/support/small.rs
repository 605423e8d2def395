//! Small filesystems. Needs root, to mount them.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use super::{Project, run, succeed, text};

/// A small filesystem, gone with the test. Declared before the project that uses it: so it goes after that.
pub struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    /// Of 1 MiB, mounted on `name` in a directory of its own; nothing without root.
    pub fn on(name: &str) -> Option<Small> {
        Small::of("1m", name)
    }

    pub fn of(size: &str, name: &str) -> Option<Small> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: not tested");
            return None;
        }
        let small = Small {
            dir: tempfile::tempdir().unwrap(),
        };
        let at = small.dir.path().join(name);
        std::fs::create_dir_all(&at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o"]).arg(format!("size={size}"));
        mount.arg("small").arg(&at);
        let mounted = run(mount);
        assert!(mounted.status.success(), "{}", text(&mounted.stderr));
        Some(small)
    }

    /// An ext4 of so many inodes, whose numbers come back at once when they are gone.
    pub fn with_few_inodes(inodes: u32) -> Option<Small> {
        let small = Small::on("small")?;
        rustix::mount::unmount(small.at("small"), rustix::mount::UnmountFlags::DETACH).unwrap();
        let image = small.at("image");
        File::create(&image).unwrap().set_len(8 << 20).unwrap();
        for (program, arguments) in [
            ("mkfs.ext4", &["-q", "-N", &inodes.to_string()][..]),
            ("mount", &["-o", "loop"]),
        ] {
            let mut command = Command::new(program);
            command.args(arguments).arg(&image);
            if program == "mount" {
                command.arg(small.at("small"));
            }
            succeed(command);
        }
        Some(small)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        for name in ["small", "tree/small"] {
            let _ = rustix::mount::unmount(self.at(name), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// A project whose backing tree is on it.
pub fn mounted(small: &Small, tree: &str) -> Project {
    let mut project = Project::unmounted(&[]);
    project.mount_with(&["--backing", small.at(tree).to_str().unwrap()]);
    project
}
