//! Decoded images on disk, so that the next run decodes none of them again. A file is found by the content of the image
//! and all that decides what becomes of it; a changed image is another one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use secateur_net::Shape;

use super::transform::Transform;

/// Changes whenever other pixels would come of the same file.
const VERSION: &str = "secateur images 2";
/// Bytes of the hash behind the pixels.
const HASH_BYTES: usize = 32;

/// Bytes that decoded images take on disk at most, about: 50,000 images of 224 x 224. The oldest make room for new
/// ones.
pub(super) const BYTES_MAX: u64 = 8 << 30;
/// Folders that files are spread over by the first byte of their hash; each has its share of the bound.
const N_FOLDERS: usize = 256;
/// What a file takes on disk is a multiple of this.
const BLOCK_BYTES: u64 = 4096;
/// Share of a full folder that is emptied, one over this.
const EMPTIED: u64 = 8;
/// An image that is used becomes a young one if it is older than this.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where decoded images are kept.
#[derive(Debug)]
pub(crate) struct DecodedCache {
    folder: PathBuf,
    /// Bytes that each of the folders may take.
    share: u64,
    /// Bytes that the files of each folder take, once they were looked at.
    taken: [Mutex<Option<u64>>; N_FOLDERS],
    /// Why no more are kept, once the system refused one.
    failure: Mutex<Option<String>>,
}

/// The name of one decoded image.
pub(crate) struct CacheKey(String);

impl CacheKey {
    /// Of a file's bytes and what is made of them.
    pub(crate) fn new(file: &[u8], transform: &Transform, to: Shape) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{VERSION} {transform:?} {to:?} ").as_bytes());
        Self(hasher.update(file).finalize().to_hex().to_string())
    }
}

impl DecodedCache {
    /// In `folder`, where files may take `most` bytes altogether.
    pub(crate) fn new(folder: &Path, most: u64) -> Self {
        let taken = std::array::from_fn(|_| Mutex::new(None));
        Self { folder: folder.to_owned(), share: most / N_FOLDERS as u64, taken, failure: Mutex::new(None) }
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(&key.0[..2]).join(&key.0[2..])
    }

    /// The `n` bytes of pixels kept under `key`; none if there are none, or they are damaged.
    pub(crate) fn get(&self, key: &CacheKey, n: usize) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut bytes = fs::read(&path).ok().filter(|bytes| bytes.len() == n + HASH_BYTES)?;
        let hash = bytes.split_off(n);
        if blake3::hash(&bytes).as_bytes()[..] != hash[..] {
            return None;
        }
        refresh(&path);
        Some(bytes)
    }

    /// Keeps `pixels`. The first refusal of the system (a full disk) is remembered, and none is tried after it.
    pub(crate) fn put(&self, key: &CacheKey, pixels: &[u8]) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            return;
        }
        drop(failure);
        if let Err(error) = self.write(key, pixels) {
            failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| {
                format!(
                    "decoded images are not kept in '{}': {error}; the images are decoded anew each time: free some space \
                     there, or say `cache: false`",
                    self.folder.display()
                )
            });
        }
    }

    /// Under a name of its own first: another process may read the same image. Not synced: what a crash leaves half
    /// written is not believed.
    fn write(&self, key: &CacheKey, pixels: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        if !self.make_room(key, folder, on_disk((pixels.len() + HASH_BYTES) as u64))? {
            return Ok(());
        }
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        io::Write::write_all(&mut file, &[pixels, blake3::hash(pixels).as_bytes()].concat())?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Counts a file of `n` bytes in its folder, where the oldest make room for it; whether it may be written.
    fn make_room(&self, key: &CacheKey, folder: &Path, n: u64) -> io::Result<bool> {
        let number = usize::from_str_radix(&key.0[..2], 16).unwrap_or(0);
        let mut taken = self.taken[number].lock().unwrap_or_else(PoisonError::into_inner);
        if n > self.share {
            return Ok(false);
        }
        let known = match *taken {
            Some(known) => known,
            None => files_of(folder)?.iter().map(|file| file.n_bytes).sum(),
        };
        let left = if known + n <= self.share { known } else { empty(folder, self.share - n)? };
        *taken = Some(left + n);
        Ok(true)
    }

    /// Why images are no longer kept, for the user.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Bytes that a file of `n` bytes takes on disk.
fn on_disk(n: u64) -> u64 {
    n.next_multiple_of(BLOCK_BYTES)
}

/// A file of the cache.
struct CachedFile {
    modified: SystemTime,
    n_bytes: u64,
    path: PathBuf,
}

fn files_of(folder: &Path) -> io::Result<Vec<CachedFile>> {
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        // Another process may have removed it.
        let Ok(kind) = entry.metadata() else { return Ok(None) };
        let modified = kind.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(kind.is_file().then(|| CachedFile { modified, n_bytes: on_disk(kind.len()), path: entry.path() }))
    };
    fs::read_dir(folder)?.filter_map(|entry| file(entry).transpose()).collect()
}

/// Removes the oldest files of `folder` until the others take at most `most` bytes, and a share of these less, so that
/// this is not done for every file. Tells what is left.
fn empty(folder: &Path, most: u64) -> io::Result<u64> {
    let mut files = files_of(folder)?;
    files.sort_unstable_by(|a, b| (a.modified, &a.path).cmp(&(b.modified, &b.path)));
    let mut left: u64 = files.iter().map(|file| file.n_bytes).sum();
    for file in files {
        if left <= most - most / EMPTIED {
            break;
        }
        match fs::remove_file(&file.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => left -= file.n_bytes,
        }
    }
    Ok(left)
}

/// Makes an old file a young one, since it was used; one that cannot be is no failure.
fn refresh(path: &Path) {
    let now = SystemTime::now();
    let modified = fs::metadata(path).and_then(|kind| kind.modified());
    let is_old = modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|age| age > AGE_MAX));
    if is_old {
        let _ = fs::File::options().write(true).open(path).and_then(|file| file.set_modified(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 600 files of a block each for a bound of 512 blocks, two for each folder.
    #[test]
    fn the_oldest_make_room_within_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let cache = || DecodedCache::new(dir.path(), 2 * BLOCK_BYTES * N_FOLDERS as u64);
        let key = |i: u32| CacheKey::new(&i.to_le_bytes(), &Transform::default(), Shape { c: 1, h: 2, w: 2 });
        let pixels = |i: u32| i.to_le_bytes().to_vec();
        let (first, mut by_folder) = (cache(), std::collections::BTreeMap::<String, Vec<u32>>::new());
        for i in 0..600 {
            // What was there before a process began counts, too.
            if i < 300 {
                first.put(&key(i), &pixels(i))
            } else {
                cache().put(&key(i), &pixels(i))
            }
            by_folder.entry(key(i).0[..2].to_owned()).or_default().push(i);
            let old = SystemTime::now() - Duration::from_secs(7200 - u64::from(i));
            fs::File::options().write(true).open(cache().path(&key(i))).unwrap().set_modified(old).unwrap();
        }
        assert!(first.failure().is_none());
        for of_folder in by_folder.values() {
            let (newest, older) = of_folder.split_last().unwrap();
            assert_eq!(first.get(&key(*newest), 4), Some(pixels(*newest)));
            let n_kept = of_folder.iter().filter(|i| first.get(&key(**i), 4).is_some()).count();
            assert!(n_kept <= 2, "{of_folder:?}");
            assert!(older.iter().rev().skip(1).all(|i| first.get(&key(*i), 4).is_none()), "{of_folder:?}");
        }
        // What a folder's share has no room for is not kept.
        first.put(&key(601), &vec![0; 3 * BLOCK_BYTES as usize]);
        assert!(first.failure().is_none() && !first.path(&key(601)).exists());
    }

    #[test]
    fn what_is_used_does_not_grow_old() {
        let dir = tempfile::tempdir().unwrap();
        let cache = DecodedCache::new(dir.path(), BYTES_MAX);
        let key = CacheKey::new(b"x", &Transform::default(), Shape { c: 1, h: 1, w: 1 });
        cache.put(&key, &[7]);
        let old = SystemTime::now() - 2 * AGE_MAX;
        fs::File::options().write(true).open(cache.path(&key)).unwrap().set_modified(old).unwrap();
        assert_eq!(cache.get(&key, 1), Some(vec![7]));
        let modified = fs::metadata(cache.path(&key)).unwrap().modified().unwrap();
        assert!(modified > old + AGE_MAX);
    }
}
