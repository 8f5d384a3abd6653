//! What stands where a file should be and is none: refused without being opened, let alone read.

#![cfg(unix)]

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use secateur_formats::{Split, read_cifar10, read_regular_file, read_weights};

fn check(path: &Path, expected: &str) {
    for message in [read_weights(path).unwrap_err().to_string(), read_regular_file(path, 9).unwrap_err().to_string()] {
        assert!(message.contains(expected) && message.contains(path.to_str().unwrap()), "{message}");
    }
}

#[test]
fn devices_pipes_sockets_and_folders_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let not_regular = "a device, a pipe or a socket";
    check(Path::new("/dev/zero"), not_regular);
    check(Path::new("/dev/null"), not_regular);
    check(dir.path(), "folder");
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    check(&socket, not_regular);
    // A pipe that nobody ever writes to.
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    check(&pipe, not_regular);
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&pipe, &link).unwrap();
    check(&link, not_regular);
    std::fs::create_dir(dir.path().join("cifar-10-batches-bin")).unwrap();
    std::fs::rename(&pipe, dir.path().join("cifar-10-batches-bin/test_batch.bin")).unwrap();
    let message = read_cifar10(dir.path(), Split::Test).unwrap_err().to_string();
    assert!(message.contains(not_regular), "{message}");
}
