//! What is kept between processes since it costs time to make: compiled pipelines of the card, error curves, scores of
//! plans.

use std::path::{Path, PathBuf};

use secateur_formats::write_atomic;

/// Larger files are not ours.
const BYTES_MAX: u64 = 256 << 20;
/// Bytes of the hash in front of the content.
const HASH_BYTES: usize = 32;

/// Where they are kept: `$XDG_CACHE_HOME/secateur`, else `~/.cache/secateur`; none without either.
pub(crate) fn folder() -> Option<PathBuf> {
    let path = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path("XDG_CACHE_HOME").or_else(|| Some(path("HOME")?.join(".cache"))).map(|cache| cache.join("secateur"))
}

/// What was written under `name`; none if there is no such file, or one that is damaged.
pub(crate) fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    let file = folder.join(name);
    if std::fs::metadata(&file).ok()?.len() > BYTES_MAX {
        return None;
    }
    let bytes = std::fs::read(&file).ok()?;
    let (hash, content) = bytes.split_at_checked(HASH_BYTES)?;
    (blake3::hash(content).as_bytes()[..] == *hash).then(|| content.to_vec())
}

/// Keeps `content` under `name`. A cache that cannot be written is no failure: the next process makes it again.
pub(crate) fn write(folder: &Path, name: &str, content: &[u8]) {
    if read(folder, name).as_deref() == Some(content) || std::fs::create_dir_all(folder).is_err() {
        return;
    }
    let bytes = [&blake3::hash(content).as_bytes()[..], content].concat();
    let _ = write_atomic(&folder.join(name), &bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        assert_eq!(read(&folder, "key"), None);
        write(&folder, "key", b"compiled");
        assert_eq!(read(&folder, "key").as_deref(), Some(&b"compiled"[..]));
        assert_eq!(read(&folder, "other"), None);
        write(&folder, "key", b"compiled anew");
        assert_eq!(read(&folder, "key").as_deref(), Some(&b"compiled anew"[..]));
        let file = folder.join("key");
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[HASH_BYTES] ^= 1;
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(read(&folder, "key"), None);
        std::fs::write(&file, b"short").unwrap();
        assert_eq!(read(&folder, "key"), None);
    }
}
