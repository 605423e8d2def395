//! Runs a case on a mount, one step after the other, beside the model, and compares.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use super::ops::{Case, Do, MAPS, NAMES, Name, Op, PROCESSES, SLOTS};
use super::permissions::{BEQUEATHED, Cast, Dir, Protected, User};
use super::puppets::{Answer, Puppet, Seen, Stage, Time, acl_value, look, patience, spell};
use super::world::Stage::Open;
use super::world::{Expected, Kind, World};
use crate::support::{Project, kill};

/// Opens of a hasty case wait this long, others for longer than a case lasts.
const RULES: &str = r#"
[[rule]]
paths = ["**/*.md"]
durability = "fast"
keep = 1000
wait = "10min"

[[rule]]
paths = ["hasty*/**/*.md"]
wait = "20ms"
"#;

/// A mount with processes, for many cases.
pub struct Rig {
    outside: Option<Puppet>,
    puppets: [Option<Puppet>; PROCESSES],
    stage: Stage,
    project: Project,
    cases: usize,
    recovered: usize,
    clock: Clock,
    protected: Protected,
}

/// When the steps of a case were carried out: begin and end, in ns since the epoch. A kernel's timestamps are of a clock that is some ms behind.
#[derive(Default)]
struct Clock(Vec<(i64, i64)>);

impl Clock {
    fn begin(&mut self) -> usize {
        self.0.push((ns(rustix::time::ClockId::RealtimeCoarse), i64::MAX));
        self.0.len() - 1
    }

    fn end(&mut self) {
        self.0.last_mut().expect("it has begun").1 = ns(rustix::time::ClockId::Realtime);
    }

    fn is(&self, wanted: Time, came: Time) -> bool {
        match (wanted, came) {
            (Time::Step(step), Time::Is(at)) => (self.0[step].0..=self.0[step].1).contains(&at),
            (Time::Set(seconds), Time::Is(at)) => at == i64::from(seconds) * 1_000_000_000,
            (Time::Whenever, _) => true,
            _ => false,
        }
    }

    fn is_since(&self, wanted: Time, came: Time) -> bool {
        match (wanted, came) {
            (Time::Step(step), Time::Is(at)) => at >= self.0[step].0,
            _ => true,
        }
    }
}

fn ns(clock: rustix::time::ClockId) -> i64 {
    let now = rustix::time::clock_gettime(clock);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn is_set(sysctl: &str) -> bool {
    std::fs::read_to_string(sysctl).is_ok_and(|value| value.trim() != "0")
}

/// What went wrong in a step.
pub type Wrong = String;

/// A case that went wrong: how, and what was carried out of it.
pub struct Failure {
    pub why: Wrong,
    pub done: Vec<Op>,
}

impl Rig {
    pub fn new() -> Rig {
        let mut project = Project::unmounted(&[("concord.toml", RULES)]);
        project.mount();
        let stage = Stage::new(&project);
        Rig {
            outside: None,
            puppets: Default::default(),
            stage,
            project,
            cases: 0,
            recovered: 0,
            clock: Clock::default(),
            protected: Protected {
                hardlinks: is_set("/proc/sys/fs/protected_hardlinks"),
                regular: is_set("/proc/sys/fs/protected_regular"),
            },
        }
    }

    /// # Errors
    /// What differs from the model, and at which step. The rig is of no more use then.
    pub fn run(&mut self, case: &Case) -> Result<(), Failure> {
        let mut done = Vec::new();
        self.try_run(case, &mut done).map_err(|why| Failure { why, done })
    }

    fn try_run(&mut self, case: &Case, done: &mut Vec<Op>) -> Result<(), Wrong> {
        self.cases += 1;
        let dir = format!("{}{}", if case.hasty { "hasty" } else { "case" }, self.cases);
        for name in NAMES {
            let path = self.project.path(&format!("{dir}/{}", name.path()));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        self.set_scene(&case.cast, &dir);
        let mut world = World::new(case, self.protected);
        self.clock = Clock::default();
        for (number, op) in case.ops.iter().enumerate() {
            let op = &world.aim(op);
            done.push(op.clone());
            let carried_out = self.step(&mut world, op, &dir);
            if !carried_out.map_err(|wrong| format!("step {number}, {op:?}: {wrong}"))? {
                done.pop();
            }
            if world.unknown {
                return self
                    .abandon()
                    .map_err(|wrong| format!("given up after step {number}: {wrong}"));
            }
        }
        self.finish(&mut world, &dir)
            .map_err(|wrong| format!("at the end: {wrong}"))?;
        for process in 0..PROCESSES {
            // The next case's processes are nobody's children.
            if world.processes[process]
                .as_ref()
                .is_some_and(|process| process.parent.is_some())
            {
                self.puppets[process] = None;
            }
        }
        Ok(())
    }

    /// Whose the directories are, and who is to do what.
    fn set_scene(&mut self, cast: &Cast, dir: &str) {
        for name in NAMES {
            let path = self.project.path(&format!("{dir}/{}", name.path()));
            let (path, rights) = (path.parent().unwrap(), cast.dir(name).rights());
            std::os::unix::fs::chown(path, Some(rights.uid), Some(rights.gid)).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(rights.mode)).unwrap();
            if cast.dir(name) == Dir::Bequeathing {
                let (acl, mode) = BEQUEATHED;
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(path, "system.posix_acl_default", &acl_value(acl, mode), flags).unwrap();
            }
        }
        for (puppet, user) in self.puppets.iter_mut().zip(cast.users) {
            if puppet.as_ref().is_some_and(|puppet| puppet.user != user) {
                *puppet = None;
            }
        }
    }

    /// Whether it made sense.
    fn step(&mut self, world: &mut World, op: &Op, dir: &str) -> Result<bool, Wrong> {
        world.now = self.clock.begin();
        let result = self.try_step(world, op, dir);
        self.clock.end();
        result
    }

    fn try_step(&mut self, world: &mut World, op: &Op, dir: &str) -> Result<bool, Wrong> {
        world.settling = false;
        world.released.clear();
        let expected = world.step(op);
        let by = op.0;
        if expected == Expected::Skip {
            return Ok(false);
        }
        if self.puppets[by].is_none() {
            self.puppets[by] = Some(self.stage.spawn(world.cast.users[by]));
        }
        let puppet = self.puppets[by].as_mut().unwrap();
        if op.1 == Do::Kill {
            kill(puppet.pid, rustix::process::Signal::KILL);
        } else {
            puppet.told(&spell(op, dir));
        }
        if world.unknown {
            // What it comes to is not asked.
            return Ok(true);
        }
        match expected {
            Expected::Ends => {
                let gone = self.puppets[by].take().unwrap();
                if !gone.is_gone() {
                    return Err("the process does not go away".to_owned());
                }
            }
            Expected::Waits => self.await_waiting(by)?,
            Expected::Forks(child) => {
                let forked = self.stage.meet(puppet.user);
                let answer = self.hear(by)?;
                if answer != Answer::Number(i64::from(forked.pid)) {
                    return Err(format!("fork(2) says {answer:?}"));
                }
                self.puppets[child] = Some(forked);
            }
            expected => {
                let answer = self.hear(by)?;
                self.agree(&expected, &answer)?;
            }
        }
        for (process, answer) in std::mem::take(&mut world.released) {
            let came = self.hear(process)?;
            self.agree(&Expected::Is(answer), &came)
                .map_err(|wrong| format!("then process {process}: {wrong}"))?;
        }
        if world.settling {
            self.settle(world, dir)?;
        }
        Ok(true)
    }

    /// What is to come is not in the model.
    fn abandon(&mut self) -> Result<(), Wrong> {
        for puppet in self.puppets.iter_mut().filter_map(Option::take) {
            kill(puppet.pid, rustix::process::Signal::KILL);
            if !puppet.is_gone() {
                return Err("a process does not go away".to_owned());
            }
        }
        let start = Instant::now();
        loop {
            let status = self.project.status();
            if ["sessions", "locks"]
                .iter()
                .all(|key| status[key].as_array().is_some_and(Vec::is_empty))
            {
                self.recovered = status["recovered"].as_array().unwrap().len();
                return Ok(());
            }
            if start.elapsed() > patience() {
                return Err(format!("left: {} {}", status["sessions"], status["locks"]));
            }
        }
    }

    fn hear(&mut self, process: usize) -> Result<Answer, Wrong> {
        let puppet = self.puppets[process].as_mut().unwrap();
        puppet
            .hears(patience())
            .ok_or_else(|| format!("process {process} hangs, or is gone"))
    }

    /// Until the daemon has it in its queue.
    fn await_waiting(&mut self, process: usize) -> Result<(), Wrong> {
        let start = Instant::now();
        let puppet = self.puppets[process].as_mut().unwrap();
        loop {
            let status = self.project.status();
            let lines = ["sessions", "locks"]
                .iter()
                .flat_map(|key| status[key].as_array().unwrap());
            let mut waiting = lines.flat_map(|line| line["waiting"].as_array().unwrap());
            if waiting.any(|waiter| waiter["pid"] == puppet.pid) {
                return Ok(());
            }
            if let Some(answer) = puppet.hears(Duration::from_millis(1)) {
                return Err(format!("it answers {answer:?}, and should wait"));
            }
            if start.elapsed() > patience() {
                return Err("it should wait, and the daemon does not know".to_owned());
            }
        }
    }

    /// What nobody is told of, like the end of a killed process's session, takes its time.
    fn settle(&mut self, world: &World, dir: &str) -> Result<(), Wrong> {
        if !world.locked().is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        loop {
            let status = self.project.status();
            let sessions = status["sessions"].as_array().unwrap().len();
            let lines = status["locks"].as_array().unwrap().iter();
            let locks: usize = lines.map(|line| line["held"].as_array().unwrap().len()).sum();
            let open = world.sessions.iter().filter(|session| session.stage == Open).count();
            // Who appends is listed, too.
            let appending = world
                .descriptions
                .iter()
                .filter(|d| matches!(d.kind, Kind::Appender { .. }))
                .count();
            let seen = self.look_from_outside(dir);
            if (open..=open + appending).contains(&sessions)
                && locks == world.locks.held()
                && seen
                    .as_ref()
                    .is_some_and(|seen| self.is(&world.look_from_outside(), seen))
            {
                return Ok(());
            }
            if start.elapsed() > patience() {
                let expected = world.look_from_outside();
                let locked = world.locks.held();
                return Err(format!(
                    "{open} sessions, {locked} locks and {expected:?} expected, {sessions}, {locks} and {seen:?} there"
                ));
            }
        }
    }

    fn look_from_outside(&mut self, dir: &str) -> Option<Answer> {
        let stage = &mut self.stage;
        self.outside
            .get_or_insert_with(|| stage.spawn(User::Root))
            .does(&look(dir))
    }

    /// Everybody closes what he has; then nothing may be left, and each history must be right.
    fn finish(&mut self, world: &mut World, dir: &str) -> Result<(), Wrong> {
        let open = |world: &World| {
            world
                .processes
                .iter()
                .flatten()
                .flat_map(|process| process.slots.iter().flatten())
                .count()
        };
        let mut before = usize::MAX;
        while open(world) > 0 {
            // Nobody got on: they wait for each other, which only a signal ends.
            let stuck = open(world) == before;
            before = open(world);
            for (process, slot) in (0..PROCESSES).flat_map(|process| (0..SLOTS).map(move |slot| (process, slot))) {
                let op = Op(process, if stuck { Do::Kill } else { Do::Close(slot) });
                self.step(world, &op, dir).map_err(|wrong| format!("{op:?}: {wrong}"))?;
                if world.unknown {
                    return self.abandon();
                }
            }
        }
        for (process, map) in (0..PROCESSES).flat_map(|process| (0..MAPS).map(move |map| (process, map))) {
            self.step(world, &Op(process, Do::Unmap(map)), dir)?;
        }
        let seen = self.look_from_outside(dir);
        self.agree(&Expected::Is(world.look_from_outside()), &seen.ok_or("looking hangs")?)?;
        for name in NAMES.into_iter().filter(|name| name.is_coordinated()) {
            self.check_history(world, name, dir)?;
        }
        self.check_store(world)
    }

    fn check_history(&self, world: &World, name: Name, dir: &str) -> Result<(), Wrong> {
        // By whichever name one asks.
        let history = &world.histories[&world.home(name)];
        let digest = |how: &str, data: &[u8]| match how {
            "unlink" => ("unlink".to_owned(), String::new()),
            _ => (how.to_owned(), blake3::hash(data).to_hex().to_string()),
        };
        let expected: Vec<_> = history.versions.iter().map(|(how, data)| digest(how, data)).collect();
        let listed = self.project.history(&format!("{dir}/{}", name.path()));
        let field = |version: &serde_json::Value, key: &str| version[key].as_str().unwrap_or_default().to_owned();
        let mut found: Vec<_> = listed
            .iter()
            .rev()
            .map(|version| (field(version, "how"), field(version, "hash")))
            .collect();
        if history.loose {
            found = found.split_off(found.len().saturating_sub(expected.len()));
        }
        if found == expected {
            return Ok(());
        }
        let shown: Vec<_> = history
            .versions
            .iter()
            .map(|(how, data)| (how, String::from_utf8_lossy(data)))
            .collect();
        let listed: Vec<_> = listed
            .iter()
            .rev()
            .map(|v| (&v["how"], &v["bytes"], &v["command"]))
            .collect();
        Err(format!(
            "the history of {name:?} should end with {shown:?}, and is {listed:?}"
        ))
    }

    fn check_store(&mut self, world: &World) -> Result<(), Wrong> {
        let start = Instant::now();
        let shadows = || {
            let entries = std::fs::read_dir(self.project.path(".concord/shadows")).unwrap();
            entries
                .map(|entry| entry.unwrap().file_name())
                .filter(|name| name != "journal")
                .collect::<Vec<_>>()
        };
        let mut left = shadows();
        while !left.is_empty() && start.elapsed() < patience() {
            left = shadows();
        }
        if !left.is_empty() {
            return Err(format!("nobody owns these shadows: {left:?}"));
        }
        let status = self.project.status();
        for key in ["sessions", "locks"] {
            if status[key].as_array().is_none_or(|left| !left.is_empty()) {
                return Err(format!("{key} are left: {}", status[key]));
            }
        }
        let recovered = status["recovered"].as_array().unwrap();
        let new = &recovered[..recovered.len() - self.recovered];
        self.recovered = recovered.len();
        let content =
            |kept: &serde_json::Value| std::fs::read(self.project.path(kept["kept"].as_str().unwrap())).unwrap();
        let mut found: Vec<Vec<u8>> = new.iter().map(content).collect();
        let mut expected = world.recovered.clone();
        found.sort();
        expected.sort();
        if found != expected {
            return Err(format!(
                "in recovered/ there should be {expected:?}, and there is {found:?}"
            ));
        }
        let log = std::fs::read(self.project.path(".concord/log")).unwrap();
        if String::from_utf8_lossy(&log).contains("panicked") {
            return Err("the daemon panicked".to_owned());
        }
        Ok(())
    }

    /// Takes the mount away in an orderly way.
    pub fn end(mut self) {
        self.puppets = Default::default();
        self.outside = None;
        drop(self.stage);
        self.project.unmount();
    }

    fn agree(&self, expected: &Expected, answer: &Answer) -> Result<(), Wrong> {
        let agrees = match expected {
            Expected::Is(wanted) => self.is(wanted, answer),
            Expected::OneOf(wanted) => wanted.iter().any(|wanted| self.is(wanted, answer)),
            Expected::Any => true,
            Expected::Skip | Expected::Waits | Expected::Forks(_) | Expected::Ends => false,
        };
        if agrees {
            Ok(())
        } else {
            Err(format!(
                "{expected:?} expected, {answer:?} came; steps {:?}",
                self.clock.0
            ))
        }
    }

    fn is(&self, wanted: &Answer, came: &Answer) -> bool {
        match (wanted, came) {
            (Answer::Stat(size, modified), Answer::Stat(came, at)) => size == came && self.clock.is(*modified, *at),
            (Answer::Seen(wanted), Answer::Seen(came)) => {
                wanted.iter().zip(came).all(|both| self.shows(both.0, both.1))
            }
            _ => wanted == came,
        }
    }

    fn shows(&self, wanted: &Seen, came: &Seen) -> bool {
        let Seen::File { modified, changed, .. } = *wanted else {
            return wanted == came;
        };
        let Seen::File {
            modified: at,
            changed: since,
            ..
        } = *came
        else {
            return false;
        };
        let mut timeless = came.clone();
        if let Seen::File {
            modified: at,
            changed: since,
            ..
        } = &mut timeless
        {
            (*at, *since) = (modified, changed);
        }
        *wanted == timeless && self.clock.is(modified, at) && self.clock.is_since(changed, since)
    }
}
