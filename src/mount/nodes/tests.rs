use super::inner::{FORMERS_MAX, NUMBERS_MAX};
use super::*;
use crate::mount::pin::Access;
use fuser::FileType;
use std::path::Path;

fn table() -> NodeTable {
    NodeTable::new(identity(2), Arc::new(DirCache::new(4)))
}

fn identity(ino: u64) -> Identity {
    Identity {
        dev: 7,
        ino,
        private: false,
    }
}

fn name(parent: NodeId, name: &str) -> Name {
    Name::new(parent, OsStr::new(name))
}

fn held() -> Arc<Pin> {
    Arc::new(Pin::new(std::fs::File::open("/").unwrap().into(), Access::Read, None))
}

#[test]
fn a_node_has_its_inodes_number_where_that_is_free() {
    let table = table();
    let file = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    assert_eq!(file, NodeId(100));
    let elsewhere = Identity {
        dev: 8,
        ..identity(100)
    };
    assert!(table.intern(name(ROOT, "b"), elsewhere, FileType::RegularFile).0 >= SYNTHETIC_FIRST);
    assert!(table.intern(name(ROOT, "c"), identity(1), FileType::RegularFile).0 >= SYNTHETIC_FIRST);
    let private = Identity {
        private: true,
        ..identity(100)
    };
    assert!(table.intern(name(ROOT, "d"), private, FileType::RegularFile).0 >= SYNTHETIC_FIRST);
}

#[test]
fn hard_links_are_one_node_with_several_names() {
    let table = table();
    let first = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    assert_eq!(
        first,
        table.intern(name(ROOT, "b"), identity(100), FileType::RegularFile)
    );
    assert_eq!(table.info(first).unwrap().names, [name(ROOT, "a"), name(ROOT, "b")]);
    table.remove_name(first, &name(ROOT, "a"), held(), false);
    assert_eq!(table.path_of(first).unwrap(), Path::new("b"));
    assert!(table.pin(first).is_none());
}

#[test]
fn a_deleted_inodes_number_given_to_a_new_file_makes_another_node() {
    let table = table();
    let old = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    table.remove_name(old, &name(ROOT, "a"), held(), true);
    assert!(table.pin(old).is_some());
    let new = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    assert_ne!(old, new);
    assert_eq!(table.find(identity(100)), Some(new));
    table.forget(old, 1);
    assert!(table.info(old).is_none());
    assert_eq!(table.find(identity(100)), Some(new));
}

#[test]
fn a_directory_stays_while_a_child_is_known_and_goes_with_it() {
    let table = table();
    let dir = table.intern(name(ROOT, "d"), identity(100), FileType::Directory);
    let deeper = table.intern(name(dir, "e"), identity(101), FileType::Directory);
    let file = table.intern(name(deeper, "f"), identity(102), FileType::RegularFile);
    table.forget(dir, 1);
    table.forget(deeper, 1);
    assert_eq!(table.path_of(file).unwrap(), Path::new("d/e/f"));
    table.forget(file, 1);
    assert_eq!(table.len(), 1);
}

#[test]
fn a_renamed_directory_takes_its_children_along() {
    let table = table();
    let dir = table.intern(name(ROOT, "d"), identity(100), FileType::Directory);
    let other = table.intern(name(ROOT, "o"), identity(101), FileType::Directory);
    let file = table.intern(name(dir, "f"), identity(102), FileType::RegularFile);
    table.rename(dir, &name(ROOT, "d"), name(other, "x"));
    assert_eq!(table.path_of(file).unwrap(), Path::new("o/x/f"));
    table.forget(other, 1);
    assert_eq!(table.path_of(file).unwrap(), Path::new("o/x/f"));
}

#[test]
fn forget_drops_a_node_only_when_all_lookups_are_returned() {
    let table = table();
    let file = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    table.forget(file, 1);
    assert!(table.info(file).is_some());
    table.forget(file, 1);
    assert!(table.info(file).is_none());
}

#[test]
fn an_open_node_outlives_its_lookups_until_the_handle_is_closed() {
    let table = table();
    let file = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    let pin = held();
    table.set_open_pin(file, &pin);
    table.forget(file, 1);
    assert!(table.open_pin(file).is_some());
    drop(pin);
    table.handle_closed(file);
    assert!(table.info(file).is_none());
}

#[test]
fn a_rebound_node_is_found_by_its_new_inode_and_a_fresh_one_is_not() {
    let table = table();
    let node = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    let fresh = table.fresh(name(ROOT, "a"), identity(100), FileType::RegularFile);
    assert!(fresh.0 >= SYNTHETIC_FIRST);
    assert_eq!(table.find(identity(100)), Some(node));
    table.rebind(node, identity(200), None);
    assert_eq!(table.find(identity(200)), Some(node));
    assert_eq!(table.find(identity(100)), None);
    table.rebind(fresh, identity(100), None);
    assert_eq!(table.find(identity(100)), Some(fresh));
}

#[test]
fn a_node_that_returns_to_its_inode_does_not_hide_the_one_that_is_found_for_it_meanwhile() {
    let table = table();
    let node = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    table.rebind(node, identity(200), None);
    let meanwhile = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    assert_ne!(meanwhile, node);
    table.rebind(node, identity(100), None);
    assert_eq!(table.find(identity(100)), Some(meanwhile));
    assert!(table.is_detached(node) && !table.is_detached(meanwhile));
}

/// A node of the file `a` on inode `ino`, overtaken.
fn former(table: &NodeTable, ino: u64) -> NodeId {
    let node = table.intern(name(ROOT, "a"), identity(ino), FileType::RegularFile);
    assert_eq!(table.overtake(node, Some(held())), (true, vec![]));
    node
}

#[test]
fn a_former_node_is_remembered_by_its_name_until_that_leads_elsewhere_or_the_kernel_forgets_it() {
    let table = table();
    let [first, second, third] = [100, 200, 300].map(|ino| former(&table, ino));
    let a = name(ROOT, "a");
    assert_eq!(table.formers(&a), [first, second, third]);
    assert_eq!(table.formers(&name(ROOT, "b")), []);
    assert_eq!(table.find(identity(100)), None);
    table.forget(second, 1);
    table.rebind(third, identity(400), None);
    assert_eq!(table.formers(&a), [first]);
    assert_eq!(table.end_formers(&a), [first]);
    assert_eq!(table.formers(&a), []);
}

#[test]
fn an_inode_that_was_just_made_is_nobodys_that_had_its_number() {
    let table = table();
    let gone = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    let own = table.intern(name(ROOT, "b"), identity(200), FileType::RegularFile);
    table.rebind(own, identity(300), None);
    for (ino, had) in [(100, gone), (300, own)] {
        table.number_came_back(identity(ino));
        assert_eq!(table.find(identity(ino)), None);
        let new = table.intern(name(ROOT, "c"), identity(ino), FileType::RegularFile);
        assert_ne!(new, had);
        assert_eq!(table.info(new).unwrap().names, [name(ROOT, "c")]);
        assert_eq!(table.find(identity(ino)), Some(new));
    }
}

#[test]
fn of_too_many_former_nodes_the_oldest_are_none_any_more() {
    let table = table();
    let oldest = former(&table, 100);
    let others: Vec<NodeId> = (1..FORMERS_MAX as u64).map(|ino| former(&table, 100 + ino)).collect();
    let last = table.intern(name(ROOT, "a"), identity(9000), FileType::RegularFile);
    assert_eq!(table.overtake(last, Some(held())), (true, vec![oldest]));
    let kept: Vec<NodeId> = others.into_iter().chain([last]).collect();
    assert_eq!(table.formers(&name(ROOT, "a")), kept);
    assert_eq!([oldest, last].map(|node| table.links(node, 1)), [0, 1]);
}

#[test]
fn a_node_that_only_one_thread_was_given_is_no_former_one_when_another_version_comes() {
    let table = table();
    let own = table.fresh(name(ROOT, "a"), identity(100), FileType::RegularFile);
    assert_eq!(table.overtake(own, Some(held())), (false, vec![]));
    assert_eq!(table.formers(&name(ROOT, "a")), []);
    table.rebind(own, identity(200), None);
    assert_eq!(table.overtake(own, Some(held())), (true, vec![]));
    assert_eq!(table.formers(&name(ROOT, "a")), [own]);
    assert_eq!(table.stand_aside(own), []);
    let beside = table.fresh(name(ROOT, "a"), identity(300), FileType::RegularFile);
    table.stand_aside(beside);
    assert_eq!(table.formers(&name(ROOT, "a")), [own, beside]);
}

#[test]
fn the_link_count_of_a_node_is_that_of_the_file_which_it_is() {
    let table = table();
    let node = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    assert_eq!([1, 2].map(|counted| table.links(node, counted)), [1, 2]);
    table.keep_aside(node, true);
    assert_eq!([1, 2].map(|counted| table.links(node, counted)), [1, 1]);
    assert_eq!([1, 2].map(|counted| table.links_by_name(node, counted)), [1, 1]);
    table.keep_aside(node, false);
    table.overtake(node, Some(held()));
    assert_eq!([0, 1, 2].map(|counted| table.links(node, counted)), [1, 1, 1]);
    table.supersede(node, Some(held()));
    assert_eq!([0, 1, 2].map(|counted| table.links(node, counted)), [0, 0, 0]);
    assert_eq!(table.links_by_name(node, 1), 1);
}

#[test]
fn a_node_is_small_enough_for_hundreds_of_thousands() {
    assert!(std::mem::size_of::<Node>() <= 96, "{}", std::mem::size_of::<Node>());
}

#[test]
fn a_node_that_was_written_in_place_keeps_its_number_when_the_kernel_forgets_it() {
    let table = table();
    let file = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    table.overtake(file, None);
    table.rebind(file, identity(101), None);
    table.forget(file, 1);
    let found = table.intern(name(ROOT, "a"), identity(101), FileType::RegularFile);
    assert_eq!(found, file);
    // Given back unchanged it has the number of its inode, and nothing to keep.
    table.rebind(file, identity(100), None);
    table.forget(file, 1);
    assert_eq!(table.len(), 1);
}

#[test]
fn a_number_is_kept_no_longer_than_its_name_leads_to_the_node() {
    let written = |table: &NodeTable| {
        let file = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
        table.rebind(file, identity(101), None);
        table.forget(file, 1);
        assert_eq!(table.len(), 2);
        file
    };
    let leaves: [fn(&NodeTable, NodeId); 4] = [
        |table, file| table.remove_name(file, &name(ROOT, "a"), held(), true),
        |table, file| table.supersede(file, None),
        |table, file| drop(table.overtake(file, None)),
        // Its inode is gone, and another file has the number.
        |table, _| {
            let other = table.intern(name(ROOT, "b"), identity(102), FileType::RegularFile);
            table.rebind(other, identity(101), None);
            assert_eq!(table.find(identity(101)), Some(other));
            table.remove_name(other, &name(ROOT, "b"), held(), true);
            table.forget(other, 1);
        },
    ];
    for leave in leaves {
        let table = table();
        let file = written(&table);
        leave(&table, file);
        assert_eq!(table.len(), 1);
    }
}

#[test]
fn so_many_numbers_are_kept_and_no_more() {
    let table = table();
    let write = |number: usize| {
        let inode = 10 + 2 * number as u64;
        let file = table.intern(name(ROOT, &number.to_string()), identity(inode), FileType::RegularFile);
        table.rebind(file, identity(inode + 1), None);
        table.forget(file, 1);
        file
    };
    let files: Vec<NodeId> = (0..=NUMBERS_MAX).map(write).collect();
    assert_eq!(table.len(), 1 + NUMBERS_MAX);
    assert!(table.info(files[0]).is_none());
    assert!(table.info(files[1]).is_some());
}

#[test]
fn a_file_that_gets_the_number_of_one_that_departed_has_not_departed() {
    let table = table();
    let (now, file) = (Instant::now(), || {
        table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile)
    });
    let first = file();
    table.will_depart(first, &name(ROOT, "a"), true, now);
    assert_eq!(table.departed_from(first, now), Some(name(ROOT, "a")));
    table.remove_name(first, &name(ROOT, "a"), held(), true);
    assert_eq!(
        table.departed_from(first, now),
        Some(name(ROOT, "a")),
        "somebody may be on the way to it still"
    );
    table.forget(first, 1);
    assert_eq!(table.departed_from(file(), now), None);
    let open = held();
    table.set_open_pin(first, &open);
    table.forget(first, 1);
    table.will_depart(first, &name(ROOT, "a"), true, now);
    assert_eq!(table.departed_from(file(), now), None, "nobody was on the way to it");
}

#[test]
fn a_removed_file_is_held_no_longer_than_who_answered_its_open() {
    let table = table();
    let file = table.intern(name(ROOT, "a"), identity(100), FileType::RegularFile);
    let answering = held();
    table.set_open_pin(file, &answering);
    let victim = held();
    table.remove_name(file, &name(ROOT, "a"), Arc::clone(&victim), true);
    table.handle_closed(file);
    table.forget(file, 1);
    drop(answering);
    assert_eq!(Arc::strong_count(&victim), 2);
    let other = table.intern(name(ROOT, "b"), identity(101), FileType::RegularFile);
    table.forget(other, 1);
    assert_eq!(
        Arc::strong_count(&victim),
        1,
        "the next that the kernel forgets takes it along"
    );
    assert_eq!(table.len(), 1);
}
