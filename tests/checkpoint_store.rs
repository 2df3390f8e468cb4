//! Stores of checkpoints, and what happens to their files.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustkernel::actors::checkpoint::{Recovered, Vault, conformance};
use rustkernel::actors::{CheckpointStore, MemoryStore, StoreError};
use rustkernel::core::KernelId;
use rustkernel::store::FileStore;

/// A path of its own under the build's folder, removed with all that is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("checkpoint-store-{}-{count}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        // Of an earlier process with the same number.
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn kernel() -> KernelId {
    KernelId::new("graph/pagerank").unwrap()
}

fn file(dir: &Path, sequence: u64) -> PathBuf {
    dir.join("graph@pagerank").join(format!("{sequence:020}.ckpt"))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// What the runtime would restore from, and the numbers of those that it refuses.
fn newest(vault: &Vault) -> (Option<(u64, Vec<u8>)>, Vec<u64>) {
    let (Recovered { found, refused }, next) = vault.load(&kernel(), None).unwrap();
    assert_eq!(next, 3, "no number is used again");
    assert!(refused.iter().all(|refused| !refused.reason.is_empty()), "each is refused by name");
    (found, refused.iter().map(|refused| refused.sequence).collect())
}

#[test]
fn a_store_in_memory_keeps_the_rules() {
    conformance(|| Box::new(MemoryStore::new(16 << 20)));
}

#[test]
fn a_store_in_files_keeps_the_rules() {
    let mut folders = Vec::new();
    conformance(|| {
        let scratch = Scratch::new();
        let store = FileStore::open(&*scratch).unwrap();
        folders.push(scratch);
        Box::new(store)
    });
    for folder in folders {
        let files = names(&folder).into_iter().flat_map(|kernel| names(&folder.join(kernel)));
        let left: Vec<String> = files.filter(|name| !name.ends_with(".ckpt")).collect();
        assert!(left.is_empty(), "left over: {left:?}");
    }
}

#[test]
fn checkpoints_outlive_the_store_that_wrote_them() {
    let scratch = Scratch::new();
    let dir = scratch.join("made").join("with its parents");
    let store = FileStore::open(&dir).unwrap();
    store.put(&kernel(), 7, b"record").unwrap();
    drop(store);
    let store = FileStore::open(&dir).unwrap();
    assert_eq!(store.sequences(&kernel()).unwrap(), [7]);
    assert_eq!(store.get(&kernel(), 7).unwrap(), Some(b"record".to_vec()));
}

#[test]
fn a_file_cut_anywhere_or_with_any_byte_flipped_is_refused_and_the_one_before_is_used() {
    let scratch = Scratch::new();
    let store = Arc::new(FileStore::open(&*scratch).unwrap());
    let vault = Vault::open(store, 3, |_, _, saved| saved.unwrap()).unwrap();
    let (before, last) = (b"the one before".to_vec(), b"the newest".to_vec());
    for (sequence, payload) in [(1, before.clone()), (2, last.clone())] {
        vault.save_with(&kernel(), sequence, || Ok(payload));
        assert!(vault.flush(Duration::from_secs(20)), "it is written");
    }
    assert_eq!(newest(&vault), (Some((2, last)), Vec::new()));
    let path = file(&scratch, 2);
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        fs::write(&path, &whole[..at]).unwrap();
        assert_eq!(newest(&vault), (Some((1, before.clone())), vec![2]), "cut at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 0xff;
        fs::write(&path, &flipped).unwrap();
        assert_eq!(newest(&vault), (Some((1, before.clone())), vec![2]), "flipped at {at}");
    }
}

#[test]
fn what_a_killed_process_left_is_ignored_then_removed_and_nothing_else_is() {
    let scratch = Scratch::new();
    let store = FileStore::open(&*scratch).unwrap();
    store.put(&kernel(), 1, b"record").unwrap();
    let folder = scratch.join("graph@pagerank");
    let (left, foreign) = ("00000000000000000002.0.tmp", ["notes.tmp", "00000000000000000003.ckpt.bak"]);
    fs::write(folder.join(left), b"rec").unwrap();
    for name in foreign {
        fs::write(folder.join(name), b"mine").unwrap();
        fs::write(scratch.join(name), b"mine").unwrap();
    }
    fs::create_dir(scratch.join("other")).unwrap();
    fs::write(scratch.join("other").join(left), b"mine").unwrap();

    assert_eq!(store.sequences(&kernel()).unwrap(), [1]);
    store.put(&kernel(), 2, b"record").unwrap();
    store.remove(&kernel(), 2).unwrap();

    let store = FileStore::open(&*scratch).unwrap();
    assert_eq!(store.sequences(&kernel()).unwrap(), [1]);
    assert_eq!(names(&folder), ["00000000000000000001.ckpt", foreign[1], foreign[0]]);
    assert_eq!(names(&scratch.join("other")), [left]);
    assert_eq!(names(&scratch), [foreign[1], "graph@pagerank", foreign[0], "other"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let scratch = Scratch::new();
    fs::create_dir(&*scratch).unwrap();
    fs::write(scratch.join("file"), b"").unwrap();
    for dir in [scratch.join("file"), scratch.join("file").join("below")] {
        let error = FileStore::open(&dir).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        assert!(error.to_string().contains(&dir.display().to_string()), "{error}");
    }
}

#[test]
fn a_put_that_fails_leaves_the_others_and_no_temporary_file() {
    let scratch = Scratch::new();
    let store = FileStore::open(&*scratch).unwrap();
    store.put(&kernel(), 1, b"record").unwrap();
    // A folder in the file's place: all goes well until the file is to get its name.
    fs::create_dir(file(&scratch, 2)).unwrap();
    assert!(store.put(&kernel(), 2, b"record").is_err());
    assert!(store.get(&kernel(), 2).is_err(), "what cannot be read is not none");
    assert_eq!(store.get(&kernel(), 1).unwrap(), Some(b"record".to_vec()));
    assert_eq!(
        names(&scratch.join("graph@pagerank")),
        ["00000000000000000001.ckpt", "00000000000000000002.ckpt"]
    );
    // And a file in the place of a kernel's folder.
    fs::write(scratch.join("graph@load"), b"").unwrap();
    let blocked = KernelId::new("graph/load").unwrap();
    assert!(store.put(&blocked, 1, b"record").is_err());
    assert!(store.sequences(&blocked).is_err());
    store.put(&kernel(), 3, b"record").unwrap();
}

#[test]
fn a_file_that_is_longer_than_any_record_is_not_read() {
    let scratch = Scratch::new();
    let store = FileStore::open(&*scratch).unwrap();
    store.put(&kernel(), 1, b"record").unwrap();
    File::options().write(true).open(file(&scratch, 1)).unwrap().set_len(1 << 40).unwrap();
    assert!(matches!(store.get(&kernel(), 1), Err(StoreError::Io { .. })));
}

#[cfg(unix)]
#[test]
fn a_folder_that_may_only_be_read_is_a_store_to_restore_from() {
    use std::os::unix::fs::PermissionsExt;

    let scratch = Scratch::new();
    let store = FileStore::open(&*scratch).unwrap();
    store.put(&kernel(), 1, b"record").unwrap();
    let folder = scratch.join("graph@pagerank");
    let allow = |mode| fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
    allow(0o555);
    let store = FileStore::open(&*scratch).unwrap();
    let put = store.put(&kernel(), 2, b"record");
    assert_eq!(store.get(&kernel(), 1).unwrap(), Some(b"record".to_vec()));
    allow(0o755);
    // The superuser may write all the same.
    assert!(matches!(put, Err(StoreError::ReadOnly) | Ok(())), "{put:?}");
}
