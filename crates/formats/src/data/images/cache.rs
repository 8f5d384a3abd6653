//! Decoded images on disk, so that the next run decodes none of them again. A file is found by the content of the image
//! and all that decides what becomes of it; a changed image is another one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use secateur_net::Shape;

use super::transform::Transform;

/// Changes whenever other pixels would come of the same file.
const VERSION: &str = "secateur images 1";
/// Bytes of the hash behind the pixels.
const HASH_BYTES: usize = 32;

/// Where decoded images are kept.
#[derive(Debug)]
pub(crate) struct DecodedCache {
    folder: PathBuf,
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
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), failure: Mutex::new(None) }
    }

    fn path(&self, key: &CacheKey) -> PathBuf {
        self.folder.join(&key.0[..2]).join(&key.0[2..])
    }

    /// The `n` bytes of pixels kept under `key`; none if there are none, or they are damaged.
    pub(crate) fn get(&self, key: &CacheKey, n: usize) -> Option<Vec<u8>> {
        let mut bytes = fs::read(self.path(key)).ok().filter(|bytes| bytes.len() == n + HASH_BYTES)?;
        let hash = bytes.split_off(n);
        (blake3::hash(&bytes).as_bytes()[..] == hash[..]).then_some(bytes)
    }

    /// Keeps `pixels`. The first refusal of the system (a full disk) is remembered, and none is tried after it.
    pub(crate) fn put(&self, key: &CacheKey, pixels: &[u8]) {
        let mut failure = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if failure.is_some() {
            return;
        }
        drop(failure);
        if let Err(error) = self.write(key, pixels) {
            failure = self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            failure.get_or_insert_with(|| {
                format!(
                    "decoded images are not kept in '{}': {error}; the images are decoded anew each time",
                    self.folder.display()
                )
            });
        }
    }

    /// Under a name of its own first: another process may read the same image. Not synced: what a crash leaves half
    /// written is not believed.
    fn write(&self, key: &CacheKey, pixels: &[u8]) -> std::io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        std::io::Write::write_all(&mut file, &[pixels, blake3::hash(pixels).as_bytes()].concat())?;
        file.persist(path).map(drop).map_err(|error| error.error)
    }

    /// Why images are no longer kept, for the user.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
