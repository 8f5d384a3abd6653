//! Files as people have them (`cases/files` beside the data sets): what `eval` makes of them.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a failed step fails the test")]

use std::path::PathBuf;
use std::process::{Command, Output};

/// The data sets, and the folder `cases/files` beside them.
fn folders() -> Option<(PathBuf, PathBuf)> {
    if let Some(data) = std::env::var_os("SECATEUR_DATA").map(PathBuf::from) {
        let files = data.join("../cases/files");
        if files.is_dir() {
            return Some((data, files));
        }
    }
    assert!(
        std::env::var_os("SECATEUR_REQUIRE_DATA").is_none(),
        "SECATEUR_DATA must be set, with cases/files beside it"
    );
    eprintln!("SKIPPED: set SECATEUR_DATA to a folder of data sets with cases/files beside it");
    None
}

fn eval(name: &str) -> Option<Output> {
    let (data, files) = folders()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_secateur"));
    command
        .arg("eval")
        .arg(files.join(name))
        .args(["--dataset", "cifar10", "--limit", "1000", "--data-root"])
        .arg(data);
    Some(command.output().unwrap())
}

// torch 2.15, the half-precision weights as f32 (and as f64, where the closest decision is one by 0.0025): 912 of
// 1,000.
#[test]
fn checkpoints_of_resnet20_are_read_and_come_out_as_in_pytorch() {
    for name in ["resnet20_cifar10_best.pth", "multistep.pth", "compiled.pth", "prune_mask.pth"] {
        let Some(output) = eval(name) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(text.lines().last(), Some("top1 0.9120 (912 of 1000)"), "{name}: {text}");
        assert!(name != "prune_mask.pth" || text.contains("masks of torch.nn.utils.prune applied"), "{text}");
        assert!(name != "compiled.pth" || text.contains("'_orig_mod.'"), "{text}");
    }
}

#[test]
fn a_sound_archive_of_unknown_names_is_refused_for_its_names() {
    let Some(output) = eval("a_name_of_21_letters_.pth") else { return };
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("no known architecture") && message.contains("1 parameters: 'w'"), "{message}");
}
