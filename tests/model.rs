//! A reference model of the contract beside a real mount: sequences of what several processes do, made up by proptest, must come to what the model says,
//! step by step; in the end nothing is left, and each history is the model's.
//!
//! `CONCORD_MODEL_CASES` says how many cases; `CONCORD_MODEL_SEED` makes them the same again.

mod support;

#[path = "model/aim.rs"]
mod aim;
#[path = "model/appends.rs"]
mod appends;
#[path = "model/contract.rs"]
mod contract;
#[path = "model/driver.rs"]
mod driver;
#[path = "model/flock.rs"]
mod flock;
#[path = "model/fuzz.rs"]
mod fuzz;
#[path = "model/locks.rs"]
mod locks;
#[path = "model/maps.rs"]
mod maps;
#[path = "model/metadata.rs"]
mod metadata;
#[path = "model/names.rs"]
mod names;
#[path = "model/ops.rs"]
mod ops;
#[path = "model/permissions.rs"]
mod permissions;
#[path = "model/puppets.rs"]
mod puppets;
#[path = "model/queue.rs"]
mod queue;
#[path = "model/regressions.rs"]
mod regressions;
#[path = "model/sharing.rs"]
mod sharing;
#[path = "model/users.rs"]
mod users;
#[path = "model/world.rs"]
mod world;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use driver::Rig;
use ops::{Case, cases};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use support::watchdog;

/// Cases on one mount; what their killed writers leave is listed by each `concord status`.
const CASES_PER_MOUNT: usize = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn the_mount_does_what_the_model_says() {
    watchdog();
    let cases_max = number("CONCORD_MODEL_CASES").unwrap_or(150) as u32;
    // The same each time, unless somebody looks for more: scripts/suites/model.sh takes another one.
    let seed = number("CONCORD_MODEL_SEED").unwrap_or(1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: cases_max,
        // We do it ourselves, with what was carried out.
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Config::default()
    };
    let began = Instant::now();
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let rig: RefCell<Option<(Rig, usize)>> = RefCell::new(None);
    let failed: RefCell<Option<Case>> = RefCell::new(None);
    let length = number("CONCORD_MODEL_LENGTH").unwrap_or(40) as usize;
    let result = runner.run(&cases(length), |case| {
        let mut rig = rig.borrow_mut();
        let (mut mounted, used) = rig.take().unwrap_or_else(|| (Rig::new(), 0));
        mounted.run(&case).map_err(|failure| {
            failed.replace(Some(Case {
                ops: failure.done,
                ..case
            }));
            TestCaseError::fail(failure.why)
        })?;
        if used + 1 < CASES_PER_MOUNT {
            *rig = Some((mounted, used + 1));
        } else {
            mounted.end();
        }
        Ok(())
    });
    if let Some((rig, _)) = rig.take() {
        rig.end();
    }
    match result {
        Ok(()) => eprintln!("{cases_max} cases with seed {seed} in {:?}", began.elapsed()),
        Err(TestError::Fail(why, _)) => {
            let case = failed.take().expect("it failed");
            eprintln!("seed {seed}: {why}\n{}", regressions::paste(&case));
            let (why, case) = shrink(case, why.to_string());
            panic!("seed {seed}: {why}\n{}", regressions::paste(&case));
        }
        Err(TestError::Abort(why)) => panic!("seed {seed}: {why}"),
    }
}

/// How long a case is made shorter at most.
const SHRINK_TIME: Duration = Duration::from_secs(120);

/// The case without the steps that it does not need to go wrong.
fn shrink(mut case: Case, mut why: String) -> (String, Case) {
    puppets::lose_patience();
    let began = Instant::now();
    let mut number = case.ops.len();
    let mut changed = false;
    while number > 0 && began.elapsed() < SHRINK_TIME {
        number -= 1;
        let mut fewer = case.clone();
        fewer.ops.remove(number);
        if let Err(failure) = Rig::new().run(&fewer) {
            (why, case, changed) = (failure.why, fewer, true);
        }
        if number == 0 && std::mem::take(&mut changed) {
            number = case.ops.len();
        }
    }
    (why, case)
}

/// Each of them went wrong once.
#[test]
fn what_went_wrong_once_goes_right() {
    watchdog();
    let mut rig = Rig::new();
    let only = std::env::var("CONCORD_MODEL_ONLY").unwrap_or_default();
    for (name, case) in regressions::all().into_iter().filter(|(name, ..)| name.contains(&only)) {
        if let Err(failure) = rig.run(&case) {
            let done = Case {
                ops: failure.done,
                ..case
            };
            panic!("{name}: {}\n{}", failure.why, regressions::paste(&done));
        }
    }
    rig.end();
}

/// No model: whatever several processes do at once, the daemon lives, nobody hangs, and nothing is left that nobody owns.
#[test]
fn whatever_processes_do_nothing_panics_hangs_or_is_left() {
    watchdog();
    let storms = number("CONCORD_FUZZ_STORMS").unwrap_or(2);
    let first = number("CONCORD_MODEL_SEED").unwrap_or(1);
    for seed in first..first + storms {
        if let Err(wrong) = fuzz::storm(seed, 9, 400) {
            panic!("{wrong}");
        }
    }
}
