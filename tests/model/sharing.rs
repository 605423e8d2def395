//! How cases are made up in which several users share files.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::ops::{Case, Do, Name, Op, PROCESSES, W, linked_step, locked_step, name, orphaned_step, step};
use super::permissions::{Acl, Cast, Dir, TEAM, User, Whose};

/// Not all of the processes are root's, and neither are the directories and files.
pub fn cases_of_users(length: usize) -> impl Strategy<Value = Case> {
    let user = || prop_oneof![4 => Just(User::Ann), 4 => Just(User::Bob), 1 => Just(User::Root)];
    let dir = || {
        prop_oneof![
            3 => Just(Dir::Everybodys),
            2 => Just(Dir::Sticky),
            1 => Just(Dir::Roots),
            1 => Just(Dir::Anns),
            2 => Just(Dir::Bequeathing),
        ]
    };
    let cast = ([user(), user(), user()], [dir(), dir(), dir()]).prop_map(|([a, b, c], dirs)| Cast {
        users: [User::Root, a, b, c],
        dirs,
    });
    let begin = (owner(), mode(), option::weighted(0.4, (acl(), classes()))).prop_map(|((uid, gid), mode, acl)| {
        let mut begin = vec![
            Op(0, Do::Open(0, Name::A, W.creat())),
            Op(0, Do::Write(0, 1)),
            Op(0, Do::Close(0)),
            Op(0, Do::Chown(Name::A, uid, gid)),
            Op(0, Do::Chmod(Name::A, mode)),
        ];
        begin.extend(acl.map(|(acl, classes)| Op(0, Do::Acl(Name::A, acl, classes))));
        begin
    });
    let steps = |step: fn() -> BoxedStrategy<Do>| {
        let mixed = prop_oneof![10 => step(), 1 => rights_step()];
        // Root gets everywhere.
        let by = prop_oneof![1 => Just(0), 4 => 1..PROCESSES];
        vec((by, mixed).prop_map(|(by, what)| Op(by, what)), 2..length)
    };
    let ops = prop_oneof![
        3 => steps(|| step().boxed()),
        1 => steps(|| locked_step().boxed()),
        1 => steps(|| orphaned_step().boxed()),
        1 => steps(|| linked_step().boxed())
    ];
    (any::<bool>(), cast, begin, ops).prop_map(|(hasty, cast, begin, ops)| Case {
        hasty,
        cast,
        ops: [begin, ops].concat(),
    })
}

/// Of files.
fn owner() -> impl Strategy<Value = (u32, u32)> {
    let (ann, bob) = (User::Ann.uid(), User::Bob.uid());
    prop_oneof![
        Just((0, 0)),
        Just((0, TEAM)),
        Just((ann, ann)),
        Just((ann, TEAM)),
        Just((bob, bob)),
    ]
}

fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![
        2 => Just(0o644),
        2 => Just(0o664),
        4 => Just(0o666),
        1 => Just(0o600),
        1 => Just(0o640),
        1 => Just(0o066),
        4 => set_id(),
    ]
}

fn acl() -> impl Strategy<Value = Acl> {
    let whose = prop_oneof![
        2 => Just(Whose::User(User::Ann.uid())),
        2 => Just(Whose::User(User::Bob.uid())),
        1 => Just(Whose::Group(TEAM)),
        1 => Just(Whose::Group(User::Bob.gid())),
    ];
    let class = || prop_oneof![3 => Just(6), 1 => Just(4), 1 => Just(2), 1 => Just(0)];
    (whose, class(), class()).prop_map(|(whose, named, group)| Acl { whose, named, group })
}

/// Of owner, mask and others.
fn classes() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(0o660), 2 => Just(0o664), 1 => Just(0o640), 1 => Just(0o604), 1 => Just(0o666)]
}

/// With and without execute permission for the group.
pub fn set_id() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0o4766), Just(0o2666), Just(0o2776), Just(0o6666), Just(0o6777)]
}

/// What a file is, and whose, changes.
fn rights_step() -> impl Strategy<Value = Do> {
    prop_oneof![
        3 => (name(), owner()).prop_map(|(n, (uid, gid))| Do::Chown(n, uid, gid)),
        3 => (name(), mode()).prop_map(|(n, m)| Do::Chmod(n, m)),
        4 => (name(), acl(), classes()).prop_map(|(n, acl, mode)| Do::Acl(n, acl, mode)),
        1 => name().prop_map(Do::NoAcl),
        2 => name().prop_map(Do::Touch),
        1 => (name(), 1u32..9).prop_map(|(n, at)| Do::Utime(n, at)),
    ]
}
