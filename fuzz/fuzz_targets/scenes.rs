//! Scenes in RON, and edits of them: what follows the last line of dashes is an edit.

#![no_main]

use libfuzzer_sys::fuzz_target;
use secateur::run::scene::{AgentList, Scene, apply_set};

fuzz_target!(|text: &str| {
    let (scene, edit) = text.rsplit_once("\n---\n").unwrap_or((text, "seed=2"));
    if let Err(error) = Scene::parse("scene.ron", scene) {
        drop(error.to_string());
    }
    if let Ok(edited) = apply_set(scene, edit, &AgentList::default()) {
        drop(Scene::parse("scene.ron", &edited));
    }
});
