//! Power cuts: after the kill, only what was synced is there, and some sectors of what was not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mailbell::standin::Fault;

use super::{check, round, rounds, standin};

/// The layer between the gateway and its files.
fn layer(folder: &Path) -> PathBuf {
    let layer = folder.join("powercut.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/crash/powercut.c");
    let built = Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&layer, &source])
        .arg("-ldl")
        .status();
    assert!(built.unwrap().success(), "cc");
    layer
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // What had no name on the disk is lost with its content.
        if !file.file_name().to_string_lossy().ends_with(".hidden") {
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_250_survives_a_power_cut() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let layer = layer(folder.path());
    let standin = standin().await;
    let mut disk = folder.path().join("disk-0");
    fs::create_dir(&disk).unwrap();
    let mut accepted = Vec::new();
    for number in 1..=rounds() {
        let seen = folder.path().join(format!("seen-{number}"));
        let next = folder.path().join(format!("disk-{number}"));
        copy_folder(&disk, &seen);
        copy_folder(&disk, &next);
        let environment = [
            ("LD_PRELOAD", layer.display().to_string()),
            ("POWERCUT_FROM", seen.display().to_string()),
            ("POWERCUT_TO", next.display().to_string()),
            ("POWERCUT_SEED", chance.u32(..).to_string()),
        ];
        let faults = [Fault::LostAnswer, Fault::Status(500)];
        standin.fail_next((0..chance.usize(..2)).map(|index| faults[index]));
        let lifetime = Duration::from_millis(chance.u64(1..250));
        let store = format!("sqlite:{}", seen.join("spool.db").display());
        accepted.extend(round(number, &store, &standin.url(), lifetime, &environment).await);
        fs::remove_dir_all(&seen).unwrap();
        fs::remove_dir_all(&disk).unwrap();
        disk = next;
    }
    assert!(
        accepted.len() > rounds(),
        "hardly accepts: {}",
        accepted.len()
    );
    println!("{} mails accepted", accepted.len());
    let last = folder.path().join("last");
    copy_folder(&disk, &last);
    let store = format!("sqlite:{}", last.join("spool.db").display());
    check(seed, &store, &standin, &accepted).await;
}
