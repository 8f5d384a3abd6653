//! Data sets as one network reads them.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use secateur_formats::{Dataset, FormatError, ImageNeeds};

use super::load::LoadedNetwork;
use crate::cache_files;

/// Both splits of a data set.
#[derive(Clone, Debug)]
pub struct ResolvedDataset {
    /// Name in the scene.
    pub name: String,
    /// Training images: reward, calibration and refit images are drawn from these.
    pub train: Arc<Dataset>,
    /// Held-out images, looked at once, at the end.
    pub test: Arc<Dataset>,
    /// Whether their classes are known and to be used.
    pub has_labels: bool,
}

/// Folder of decoded images, beside the compiled pipelines of cards.
pub(super) fn decoded_images() -> Option<PathBuf> {
    cache_files::folder().map(|folder| folder.join("images"))
}

/// `data` for `network`: images in files become what it reads, when they are used.
///
/// # Errors
/// As [`Dataset::for_network`].
pub fn dataset_for<'a>(network: &LoadedNetwork, data: &'a Dataset) -> Result<Cow<'a, Dataset>, FormatError> {
    let graph = network.folded.graph();
    let cache = decoded_images();
    data.for_network(&ImageNeeds { input: graph.input(), outputs: graph.n_classes(), cache: cache.as_deref() })
}

impl ResolvedDataset {
    /// What a user should know of it before it is used, one sentence each; what is true of both splits once.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.train.notes();
        let of_test = self.test.notes().into_iter().filter(|note| !notes.contains(note)).collect::<Vec<_>>();
        notes.extend(of_test);
        notes
    }
}
