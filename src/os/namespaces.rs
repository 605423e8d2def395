//! Where a mount of ours is to be seen beside its own place: bound elsewhere, or copied into other mount namespaces (mount_namespaces(7)). Asks nothing of the mounts.

use std::collections::HashSet;
use std::path::PathBuf;

use super::mountinfo::MountTable;
use super::table::Device;

/// One more place of a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Where, as seen in its namespace.
    pub mountpoint: PathBuf,
    /// A process of that namespace, if it is another one.
    pub pid: Option<u32>,
}

/// Where the filesystem `device` of this process stays when its mount `id` is unmounted, or has been. Namespaces without a process that this user may look at are not seen.
pub fn stays(id: u64, device: Device) -> std::io::Result<Vec<Elsewhere>> {
    let own = MountTable::read()?;
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut seen: HashSet<PathBuf> = namespace("self").into_iter().collect();
    let (mut tables, mut pids) = (vec![own.clone()], vec![None]);
    for entry in std::fs::read_dir("/proc")?.flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            && let Some(namespace) = namespace(&pid.to_string())
            && !seen.contains(&namespace)
            // It may be ending; another may be in the same.
            && let Ok(table) = MountTable::of(pid)
        {
            seen.insert(namespace);
            tables.push(table);
            pids.push(Some(pid));
        }
    }
    let stays = own.stays(id, device, &tables).into_iter();
    let elsewhere = stays
        .filter(|(_, mount)| mount.is_own())
        .map(|(number, mount)| Elsewhere {
            mountpoint: mount.mountpoint.clone(),
            pid: pids[number],
        });
    Ok(elsewhere.collect())
}
