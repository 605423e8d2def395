//! A real mount by the real binary, which goes away with its test, also when the test panics or hangs.
#![allow(dead_code)]

pub mod linked;
pub mod puppet;
pub mod small;
pub mod twin;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No command of a test may take longer. scripts/mutate.sh, whose tests are meant to fail, waits less.
pub fn command_time_max() -> Duration {
    let seconds = std::env::var("CONCORD_TEST_COMMAND_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(60))
}

/// A project in a temporary directory, mounted over itself.
pub struct Project {
    dir: tempfile::TempDir,
    daemon: Option<u32>,
}

impl Project {
    /// A mounted project with these files in it.
    pub fn with(files: &[(&str, &str)]) -> Project {
        let mut project = Project::unmounted(files);
        project.mount();
        project
    }

    /// The same, not mounted yet.
    pub fn unmounted(files: &[(&str, &str)]) -> Project {
        let dir = tempfile::Builder::new().prefix("concord-test-").tempdir().unwrap();
        let project = Project { dir, daemon: None };
        std::fs::create_dir(project.root()).unwrap();
        std::fs::set_permissions(project.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        for (name, content) in files {
            let path = project.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        project
    }

    /// Mounts it; returns the daemon's pid.
    pub fn mount(&mut self) -> u32 {
        self.mount_with(&[])
    }

    /// Mounts it with further arguments.
    pub fn mount_with(&mut self, arguments: &[&str]) -> u32 {
        let mut command = concord(&["mount"]);
        command.args(arguments).arg(self.root());
        let mounted = run(command);
        assert!(mounted.status.success(), "{}", text(&mounted.stderr));
        let beacon = std::fs::read(self.path(".concord/daemon.json")).unwrap();
        let beacon: serde_json::Value = serde_json::from_slice(&beacon).unwrap();
        let pid = beacon["pid"].as_u64().unwrap() as u32;
        self.daemon = Some(pid);
        pid
    }

    /// Unmounts it in an orderly way.
    pub fn unmount(&mut self) {
        let mut command = concord(&["unmount"]);
        command.arg(self.root());
        let unmounted = run(command);
        assert!(unmounted.status.success(), "unmount: {}", text(&unmounted.stderr));
        self.daemon = None;
    }

    /// Kills the daemon with SIGKILL and clears the dead mount, as `concord recover` does; returns what that printed as JSON.
    pub fn crash_and_recover(&mut self) -> serde_json::Value {
        self.kill_daemon();
        let mut command = concord(&["recover", "--json"]);
        command.arg(self.root());
        let recovered = run(command);
        assert!(recovered.status.success(), "{}", text(&recovered.stderr));
        serde_json::from_slice(&recovered.stdout).unwrap()
    }

    /// Kills the daemon with SIGKILL; the mount is dead then.
    pub fn kill_daemon(&mut self) {
        let pid = self.daemon.take().expect("it is mounted");
        kill(pid, rustix::process::Signal::KILL);
        // Its threads are gone when the kernel says so. The name is one that the kernel does not remember.
        let probe = self.path("no-such-name.md");
        let dead = Some(rustix::io::Errno::NOTCONN.raw_os_error());
        eventually("the mount is dead", || {
            std::fs::symlink_metadata(&probe).unwrap_err().raw_os_error() == dead
        });
    }

    /// The project directory: the mount point.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("project")
    }

    /// A path in the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// A directory outside the mount, for what tests note down.
    pub fn outside(&self) -> &Path {
        self.dir.path()
    }

    /// The whole of a file.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// `concord history --json` of a file, newest first.
    pub fn history(&self, name: &str) -> Vec<serde_json::Value> {
        let mut command = concord(&["history", "--json"]);
        command.arg(self.path(name));
        serde_json::from_slice(&run(command).stdout).unwrap()
    }

    /// `concord show FILE@N`.
    pub fn show(&self, name: &str, version: u64) -> Vec<u8> {
        let mut command = concord(&["show"]);
        command.arg(format!("{}@{version}", self.path(name).display()));
        let shown = run(command);
        assert!(shown.status.success(), "{}", text(&shown.stderr));
        shown.stdout
    }

    /// `concord status --json`.
    pub fn status(&self) -> serde_json::Value {
        let mut command = concord(&["status", "--json"]);
        command.arg(self.root());
        serde_json::from_slice(&run(command).stdout).unwrap()
    }

    /// Waits until `status` shows this many open sessions, and as many waiters in all.
    pub fn await_sessions(&self, sessions: usize, waiters: usize) {
        eventually(&format!("{sessions} sessions and {waiters} waiters"), || {
            let status = self.status();
            let open = status["sessions"].as_array().unwrap();
            let waiting: usize = open.iter().map(|s| s["waiting"].as_array().unwrap().len()).sum();
            open.len() == sessions && waiting == waiters
        });
    }

    /// What is in `.concord/recovered/`, by `status`.
    pub fn recovered(&self) -> Vec<serde_json::Value> {
        self.status()["recovered"].as_array().unwrap().clone()
    }

    /// Saves a file, by a child: one that another test forks in this process may hold a file of ours for a moment longer than we do.
    pub fn save(&self, name: &str, content: &str) {
        let mut shell = self.sh("printf %s \"$1\" > \"$2\"");
        shell.args(["sh", content, name]);
        succeed(shell);
    }

    /// A shell script whose working directory is the project.
    pub fn sh(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.root());
        command
    }

    /// A Python program whose working directory is the project.
    pub fn python(&self, program: &str) -> Command {
        let mut command = Command::new("python3");
        command.args(["-c", program]).current_dir(self.root());
        command
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path(".concord/log")).unwrap_or_default();
            eprintln!("--- the daemon's log\n{log}---");
        }
        if let Some(pid) = self.daemon {
            kill(pid, rustix::process::Signal::KILL);
        }
        // Until nothing is mounted there; a test may have mounted twice.
        while rustix::mount::unmount(self.root(), rustix::mount::UnmountFlags::DETACH).is_ok() {}
    }
}

/// A process that ends with its test.
pub struct Running(pub Child);

impl Running {
    /// Starts it with a pipe to its standard input and from its standard output.
    pub fn start(mut command: Command) -> Running {
        Running(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap())
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        kill(self.pid(), signal);
    }

    /// Writes a line to its standard input.
    pub fn say(&mut self, line: &str) {
        let input = self.0.stdin.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
        input.write_all(b"\n").unwrap();
        input.flush().unwrap();
    }

    /// Reads a line from its standard output.
    pub fn hear(&mut self) -> String {
        use std::io::Read;
        let output = self.0.stdout.as_mut().unwrap();
        let mut line = Vec::new();
        let mut byte = [0];
        while output.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Closes its input and waits for its end.
    pub fn finish(mut self) -> std::process::ExitStatus {
        drop(self.0.stdin.take());
        wait(&mut self.0, command_time_max())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary under test.
pub fn concord(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_concord"));
    command.args(arguments);
    command
}

/// Runs a command to its end, which must come in time.
pub fn run(mut command: Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(command_time_max()) {
        Ok(output) => output.unwrap(),
        Err(_) => {
            kill(pid, rustix::process::Signal::KILL);
            panic!("{command:?} took longer than {:?}", command_time_max());
        }
    }
}

/// Runs a command that must succeed; returns its standard output.
pub fn succeed(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = run(command);
    assert!(output.status.success(), "{shown}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// The one line with which a `concord` command refused.
pub fn refused(output: &Output) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.matches('\n').count(), 1, "one line: {said}");
    said
}

/// Waits for a child's end, which must come in time.
pub fn wait(child: &mut Child, at_most: Duration) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(
            start.elapsed() < at_most,
            "process {} did not end in {at_most:?}",
            child.id()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < command_time_max(), "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// `concord VERB... DIR`.
pub fn on(verb: &[&str], dir: &Path) -> Output {
    let mut command = concord(verb);
    command.arg(dir);
    run(command)
}

/// A command that another user than the tests' runs, who may nothing. Needs root.
pub fn as_nobody(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", program]);
    command
}

/// How many mounts there are at a directory.
pub fn mounts_at(dir: &Path) -> usize {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = |line: &&str| line.split(' ').nth(4) == dir.to_str();
    mounts.lines().filter(at).count()
}

/// A process that was no child of ours is gone, or at most a zombie of whoever adopted it.
pub fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

/// The numbers of a history, as they are listed.
pub fn numbers(history: &[serde_json::Value]) -> Vec<u64> {
    let number = |version: &serde_json::Value| version["version"].as_u64().unwrap();
    history.iter().map(number).collect()
}

/// The children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let lists = threads.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).ok());
    let lists = lists.collect::<String>();
    lists.split_whitespace().map(|child| child.parse().unwrap()).collect()
}

/// Sends a signal to a process that this test started.
pub fn kill(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ends this test process when a test hangs: nothing else can end a thread that waits in the kernel for a mount. After ten minutes; scripts/suites/model.sh
/// gives it longer.
pub fn watchdog() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            let seconds = std::env::var("CONCORD_TEST_SECONDS").ok();
            std::thread::sleep(Duration::from_secs(
                seconds.and_then(|text| text.parse().ok()).unwrap_or(600),
            ));
            eprintln!("the tests hang; giving up");
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            // The last first: it may cover others.
            for line in mounts.lines().rev() {
                if let Some(at) = line.split(' ').nth(4).filter(|at| at.contains("concord-test-")) {
                    let _ = rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH);
                }
            }
            std::process::abort();
        });
    });
}

/// A directory in which no name can change, or a file that nobody can change, or that can only be appended to, until it is dropped.
pub struct Immutable<'a>(&'a Path);

impl Immutable<'_> {
    /// Nothing where the filesystem or the user cannot.
    pub fn new(dir: &Path) -> Option<Immutable<'_>> {
        Immutable::by("+i", dir)
    }

    /// The same.
    pub fn append_only(file: &Path) -> Option<Immutable<'_>> {
        Immutable::by("+a", file)
    }

    fn by<'a>(attribute: &str, dir: &'a Path) -> Option<Immutable<'a>> {
        let mut chattr = Command::new("chattr");
        chattr.arg(attribute).arg(dir);
        let output = chattr.output();
        if !output.is_ok_and(|output| output.status.success()) {
            eprintln!("no immutable directories here: not tested");
            return None;
        }
        Some(Immutable(dir))
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-ia").arg(self.0).status();
    }
}
