//! Checkpoints in files.
//!
//! ```text
//! dir/graph@pagerank/00000000000000000007.ckpt     one folder a kernel, one file a checkpoint
//! dir/graph@pagerank/00000000000000000008.5.tmp    being written, or left over from a killed process
//! ```
//!
//! A kernel's folder is its id with `/` as `@`, `.` as `=`, and a capital letter as `+` and the small one. None of the three occurs in an
//! id, so two ids never share a folder, on file systems that ignore case neither, and no name is hidden, reserved or `..`.
//!
//! A checkpoint is written to a temporary file in that folder, synced, renamed to its name, and the folder is synced. Whoever reads it,
//! after a power failure too, sees all of it or the one before.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rustkernel_actors::{CheckpointStore, StoreError};
use rustkernel_core::{KernelId, codec};

/// The longest record that is kept: the longest frame, and room for what is around it.
const MAX_RECORD_BYTES: u64 = codec::MAX_BODY_BYTES as u64 + (64 << 10);

/// A number of 20 digits holds every `u64`.
const DIGITS: usize = 20;

/// A store in a folder of the file system. Records of more than 1 GiB and 64 KiB are refused.
///
/// One process at a time may use a folder: opening it removes what looks like the left-overs of a killed process. A second one that is
/// opened makes puts of the first one fail at worst; it damages nothing that is stored.
///
/// ```no_run
/// use rustkernel::store::FileStore;
///
/// let store = FileStore::open("checkpoints")?;
/// # Ok::<(), rustkernel::actors::StoreError>(())
/// ```
#[derive(Debug)]
pub struct FileStore {
    dir: PathBuf,
    /// Held while a folder is made, so that nobody relies on one that is not yet synced.
    making: Mutex<()>,
    /// The number of the next temporary file. It starts anywhere, so that another store of this folder takes other names.
    next_temporary: AtomicU64,
}

impl FileStore {
    /// Opens the store in `dir`, which is made if need be, with its parents. Temporary files that a killed process left are removed,
    /// unless they cannot be; they are never taken for checkpoints. Other files stay as they are.
    ///
    /// # Errors
    /// [`StoreError`] if the folder cannot be made or listed. One that may only be read can be opened.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let dir = dir.into();
        let making = |error| StoreError::writing(format!("make the folder {}", dir.display()), error);
        make_folder(&dir).map_err(making)?;
        // A process that was killed may have made folders and not synced them.
        match sync_folder(&dir).map_err(making) {
            Ok(()) | Err(StoreError::ReadOnly) => {}
            Err(error) => return Err(error),
        }
        let listing = |error| StoreError::reading(format!("list the folder {}", dir.display()), error);
        remove_left_overs(&dir).map_err(listing)?;
        let next_temporary = AtomicU64::new(RandomState::new().build_hasher().finish());
        Ok(Self { dir, making: Mutex::new(()), next_temporary })
    }

    fn folder(&self, kernel: &KernelId) -> PathBuf {
        self.dir.join(folder_name(kernel))
    }

    fn file(&self, kernel: &KernelId, sequence: u64) -> PathBuf {
        self.folder(kernel).join(format!("{sequence:0DIGITS$}.ckpt"))
    }

    fn make_folder_of(&self, kernel: &KernelId) -> io::Result<PathBuf> {
        let folder = self.folder(kernel);
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        make_folder(&folder)?;
        Ok(folder)
    }

    /// A new file beside the one that it will become.
    fn make_temporary(&self, folder: &Path, sequence: u64) -> io::Result<(Temporary, File)> {
        loop {
            let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
            let path = folder.join(format!("{sequence:0DIGITS$}.{number}.tmp"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((Temporary { path, is_renamed: false }, file)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&self, kernel: &KernelId, sequence: u64, record: &[u8]) -> io::Result<()> {
        if record.len() as u64 > MAX_RECORD_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let folder = self.make_folder_of(kernel)?;
        let (temporary, mut file) = self.make_temporary(&folder, sequence)?;
        file.write_all(record)?;
        file.sync_all()?;
        drop(file);
        temporary.rename(&self.file(kernel, sequence))?;
        sync_folder(&folder)
    }
}

impl CheckpointStore for FileStore {
    fn put(&self, kernel: &KernelId, sequence: u64, record: &[u8]) -> Result<(), StoreError> {
        self.write(kernel, sequence, record).map_err(|error| {
            StoreError::writing(format!("write {}", self.file(kernel, sequence).display()), error)
        })
    }

    fn sequences(&self, kernel: &KernelId) -> Result<Vec<u64>, StoreError> {
        let folder = self.folder(kernel);
        let names = file_names(&folder)
            .map_err(|error| StoreError::reading(format!("list {}", folder.display()), error))?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| sequence_of(name)).collect();
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        Ok(sequences)
    }

    fn get(&self, kernel: &KernelId, sequence: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.file(kernel, sequence);
        match read(&path) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::reading(format!("read {}", path.display()), error)),
        }
    }

    fn remove(&self, kernel: &KernelId, sequence: u64) -> Result<(), StoreError> {
        let path = self.file(kernel, sequence);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::writing(format!("remove {}", path.display()), error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// A file that is removed unless it was renamed.
struct Temporary {
    path: PathBuf,
    is_renamed: bool,
}

impl Temporary {
    fn rename(mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_renamed {
            // If it stays it is ignored, and removed when the store is next opened.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn folder_name(kernel: &KernelId) -> String {
    let mut name = String::with_capacity(kernel.as_str().len());
    for character in kernel.as_str().chars() {
        match character {
            '/' => name.push('@'),
            '.' => name.push('='),
            'A'..='Z' => name.extend(['+', character.to_ascii_lowercase()]),
            _ => name.push(character),
        }
    }
    name
}

/// The number of a checkpoint's file; `None` for any other file.
fn sequence_of(name: &str) -> Option<u64> {
    number(name.strip_suffix(".ckpt")?)
}

/// Whether this store gives such names to files that it has not finished.
fn is_temporary(name: &str) -> bool {
    let parts = name.strip_suffix(".tmp").and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(sequence, n)| number(sequence).is_some() && is_digits(n))
}

fn number(digits: &str) -> Option<u64> {
    if digits.len() == DIGITS && is_digits(digits) { digits.parse().ok() } else { None }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The names in a folder; none if there is no such folder. One that is not Unicode is not ours.
fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

/// Goes into the folders of kernels only: what else lies there may be forbidden, and is not ours.
fn remove_left_overs(dir: &Path) -> io::Result<()> {
    let kernels = file_names(dir)?.into_iter().filter(|name| name.contains('@'));
    for folder in kernels.map(|name| dir.join(name)).filter(|folder| folder.is_dir()) {
        for name in file_names(&folder)?.iter().filter(|name| is_temporary(name)) {
            drop(Temporary { path: folder.join(name), is_renamed: false });
        }
    }
    Ok(())
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length > MAX_RECORD_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut record = Vec::new();
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::FileTooLarge)?;
    record.try_reserve_exact(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // Files are replaced, not written to; one that grows nevertheless is damaged, and its record will be refused.
    file.take(MAX_RECORD_BYTES).read_to_end(&mut record)?;
    Ok(record)
}

/// Makes a folder and its parents, each of them synced into the one above it.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(io::ErrorKind::NotFound.into()),
    };
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => {}
        made => made?,
    }
    sync_folder(parent)
}

/// Makes the names in a folder durable, where the system can.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        // A folder cannot be opened like a file.
        return Ok(());
    }
    match File::open(folder)?.sync_all() {
        // Some network file systems have no such call for folders; there is nothing more that could be done.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The id of a folder's name, read back.
    fn id_of(name: &str) -> String {
        let mut characters = name.chars();
        let mut id = String::new();
        while let Some(character) = characters.next() {
            id.push(match character {
                '@' => '/',
                '=' => '.',
                '+' => characters.next().unwrap().to_ascii_uppercase(),
                _ => character,
            });
        }
        id
    }

    proptest! {
        #[test]
        fn a_folders_name_is_safe_and_says_which_kernel_it_is(
            id in "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}/[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}"
        ) {
            let name = folder_name(&KernelId::new(&id).unwrap());
            prop_assert_eq!(id_of(&name), id);
            let is_safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "@=+_-".contains(c);
            prop_assert!(name.chars().all(is_safe), "{}", name);
            prop_assert!(name.len() <= 255, "{}", name.len());
        }

        #[test]
        fn a_files_name_says_its_number(sequence: u64, n: u64) {
            prop_assert_eq!(sequence_of(&format!("{sequence:020}.ckpt")), Some(sequence));
            let temporary = format!("{sequence:020}.{n}.tmp");
            prop_assert!(is_temporary(&temporary));
        }
    }

    #[test]
    fn other_files_are_neither_checkpoints_nor_left_over() {
        let foreign = [
            "1.ckpt",
            "+0000000000000000001.ckpt",
            "99999999999999999999.ckpt",
            "00000000000000000001.ckpt.bak",
            "00000000000000000001.0.tmp",
            "notes.tmp",
            "00000000000000000001..tmp",
            ".ckpt",
        ];
        assert_eq!(foreign.map(sequence_of), [None; 8]);
        assert_eq!(foreign.iter().filter(|name| is_temporary(name)).count(), 1);
    }
}
