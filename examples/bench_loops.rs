//! The tight loops of `scripts/bench.sh`: system calls only, so that a ratio is not diluted by an interpreter's own time.
//!
//! `bench_loops LOOP PATH COUNT [SIZE]` prints nanoseconds per operation; `contend` prints one line a writer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const BLOCK: usize = 4096;
const CHUNK: usize = 128 * 1024;

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [name, path, count, rest @ ..] = args.as_slice() else {
        return Err(usage());
    };
    let path = Path::new(path);
    let count: u64 = count.parse().map_err(|_| usage())?;
    let size: u64 = rest.first().map_or(Ok(0), |size| size.parse()).map_err(|_| usage())?;
    match name.as_str() {
        "contend" => return contend(path, count, size),
        "contender" => return contender(path, count, size),
        _ => {}
    }
    let start = Instant::now();
    match name.as_str() {
        "seq-read" => sequential_read(path, size)?,
        "seq-write" => sequential_write(path, size)?,
        "rand-read" => random(path, count, size, false)?,
        "rand-write" => random(path, count, size, true)?,
        "stat" => repeat(count, || fs::symlink_metadata(path).map(drop))?,
        "open-read-close" => repeat(count, || open_read_close(path))?,
        "create-write-unlink" => repeat(count, || create_write_unlink(path))?,
        "save" => repeat(count, || save(path))?,
        "save-direct" => repeat_with(count, |n| save_direct(path, n))?,
        _ => return Err(usage()),
    }
    println!("{}", start.elapsed().as_nanos() / u128::from(count));
    Ok(())
}

fn usage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "usage: bench_loops LOOP PATH COUNT [SIZE]")
}

fn repeat(count: u64, mut operation: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    (0..count).try_for_each(|_| operation())
}

fn repeat_with(count: u64, mut operation: impl FnMut(u64) -> io::Result<()>) -> io::Result<()> {
    (0..count).try_for_each(&mut operation)
}

fn sequential_read(path: &Path, size: u64) -> io::Result<()> {
    let file = File::open(path)?;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        at += file.read_at(&mut buffer, at)? as u64;
    }
    Ok(())
}

fn sequential_write(path: &Path, size: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let buffer = vec![1; CHUNK];
    (0..size / CHUNK as u64).try_for_each(|n| file.write_all_at(&buffer, n * CHUNK as u64))
}

/// 4 KiB at random, aligned places; the same places in every run.
fn random(path: &Path, count: u64, size: u64, write: bool) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(write).open(path)?;
    let mut buffer = vec![2; BLOCK];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    for _ in 0..count {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = state % (size / BLOCK as u64) * BLOCK as u64;
        if write {
            file.write_all_at(&buffer, at)?;
        } else {
            file.read_exact_at(&mut buffer, at)?;
        }
    }
    Ok(())
}

fn open_read_close(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    file.read_at(&mut [0; BLOCK], 0).map(drop)
}

fn create_write_unlink(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(&[3; BLOCK])?;
    drop(file);
    fs::remove_file(path)
}

/// The save as an ordinary program does it.
fn save(path: &Path) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?
        .write_all(&[4; BLOCK])
}

/// What a careful program does itself for a save that is atomic, durable, and keeps the version it replaces.
fn save_direct(path: &Path, number: u64) -> io::Result<()> {
    let shadow = path.with_extension("shadow");
    let kept = path.with_extension(format!("kept-{}", number % 20));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&shadow)?;
    file.write_all(&[4; BLOCK])?;
    file.sync_data()?;
    drop(file);
    if number >= 20 {
        fs::remove_file(&kept)?;
    }
    fs::hard_link(path, &kept)?;
    fs::rename(&shadow, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn now_ns() -> io::Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?;
    Ok(since.as_nanos() as u64)
}

/// `writers` processes save one file for `ms` milliseconds, all from the same moment on.
fn contend(path: &Path, writers: u64, ms: u64) -> io::Result<()> {
    let start_ns = now_ns()? + 300_000_000 + writers * 5_000_000;
    let mut children = Vec::new();
    for _ in 0..writers {
        children.push(
            Command::new(std::env::current_exe()?)
                .arg("contender")
                .arg(path)
                .args([start_ns.to_string(), ms.to_string()])
                .stdout(Stdio::inherit())
                .spawn()?,
        );
    }
    for mut child in children {
        if !child.wait()?.success() {
            return Err(io::Error::other("a writer failed; its error is above"));
        }
    }
    Ok(())
}

/// One of them: prints `saves longest-ns`, where `longest` is its longest save, the wait for the others included.
fn contender(path: &Path, start_ns: u64, ms: u64) -> io::Result<()> {
    std::thread::sleep(Duration::from_nanos(start_ns.saturating_sub(now_ns()?)));
    let end = Instant::now() + Duration::from_millis(ms);
    let (mut saves, mut longest) = (0_u64, Duration::ZERO);
    while Instant::now() < end {
        let began = Instant::now();
        save(path)?;
        longest = longest.max(began.elapsed());
        saves += 1;
    }
    // One write: lines of several writers must not mix.
    io::stdout().write_all(format!("{saves} {}\n", longest.as_nanos()).as_bytes())
}
