//! Which build of the program runs.

use std::fs::File;
use std::path::PathBuf;

/// blake3 of the file that this code is of, the program's or a shared library's; none if it cannot be read.
pub(crate) fn build() -> Option<String> {
    // On Linux this is the file that was started, even if another has taken its place since.
    let program = || File::open("/proc/self/exe").or_else(|_| File::open(std::env::current_exe()?)).ok();
    let file = match library() {
        Some(library) => File::open(library).ok()?,
        None => program()?,
    };
    Some(blake3::Hasher::new().update_reader(file).ok()?.finalize().to_hex().to_string())
}

/// The shared library that this code was loaded from, as an interpreter loads it; none in a program, and where the
/// system does not tell.
fn library() -> Option<PathBuf> {
    let here = build as *const () as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let file = maps.lines().find_map(|line| file_mapped_at(line, here))?;
    let program = std::fs::read_link("/proc/self/exe").ok()?;
    (file != program).then_some(file)
}

/// The file of a line of `/proc/self/maps`, `from-to rwxp offset device inode path`, if it is mapped at an address.
fn file_mapped_at(line: &str, address: usize) -> Option<PathBuf> {
    let (from, rest) = line.split_once('-')?;
    let (to, rest) = rest.split_once(' ')?;
    let range = usize::from_str_radix(from, 16).ok()?..usize::from_str_radix(to, 16).ok()?;
    let path = &rest[rest.find('/')?..];
    range.contains(&address).then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_code_was_loaded_from_is_told_by_its_address() {
        let line = "7f00a000-7f00b000 r-xp 00001000 08:01 1234       /usr/lib/of python/_secateur.abi3.so";
        let file = Some(PathBuf::from("/usr/lib/of python/_secateur.abi3.so"));
        assert_eq!((file_mapped_at(line, 0x7f00_a000), file_mapped_at(line, 0x7f00_afff)), (file.clone(), file));
        assert_eq!(
            (file_mapped_at(line, 0x7f00_b000), file_mapped_at("7f00-7f10 rw-p 0 00:00 0", 0x7f05)),
            (None, None)
        );
        // This test is a program.
        assert_eq!(library(), None);
        assert!(build().is_some_and(|hash| hash.len() == 64));
    }
}
