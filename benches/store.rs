//! Saves and appends by the store itself, on the filesystem of $TMPDIR: what of a save is the disk's, before FUSE comes to it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use concordfs::rules::{Durability, Policy};
use concordfs::session::SessionId;
use concordfs::store::record::{How, Who};
use concordfs::store::{Place, PublishInfo, RealDisk, Retain, Store};
use criterion::{Criterion, criterion_group, criterion_main};

const NAME: &str = "STATE.md";

struct Project {
    dir: tempfile::TempDir,
    root: Arc<OwnedFd>,
    store: Store<RealDisk>,
}

impl Project {
    fn new() -> Project {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join(NAME), [1; 4096]).expect("a first version");
        let root = RealDisk::open_root(dir.path()).expect("its descriptor");
        let (store, _) = Store::open(RealDisk, root.clone(), 1).expect("a store");
        Project { dir, root, store }
    }

    /// A session of a writer that replaces the whole content, from begin to sweep.
    fn save(&self, session: u64, durability: Durability) {
        let path = Path::new(NAME);
        let current = File::open(self.dir.path().join(NAME)).expect("the current version");
        let who = Who::default();
        let based_on = self.store.version_of(path, &current).expect("its number");
        let shadow = self
            .store
            .begin(SessionId(session), path, Some(&current), who, based_on, session)
            .expect("a shadow");
        shadow.file.write_all_at(&[2; 4096], 0).expect("it is written");
        let place = Place {
            dir: &self.root,
            name: OsStr::new(NAME),
            path,
        };
        let info = PublishInfo {
            how: How::Close,
            in_place: false,
            durability,
            retain: Retain::of(&Policy::default()),
            now: session,
            note: None,
            hash: None,
        };
        self.store.publish(shadow, &place, &info).expect("it is published");
        self.store.sweep();
    }
}

fn saves(c: &mut Criterion) {
    for durability in [Durability::Full, Durability::Atomic, Durability::Fast] {
        let (project, mut session) = (Project::new(), 0);
        c.bench_function(&format!("store: save 4 KiB, {durability:?}"), |b| {
            b.iter(|| {
                session += 1;
                project.save(session, durability);
            });
        });
    }
}

criterion_group!(benches, saves);
criterion_main!(benches);
