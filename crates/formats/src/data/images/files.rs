//! Images that are decoded when they are used, several at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fast_image_resize::Resizer;
use rayon::prelude::*;
use secateur_net::Shape;

use super::cache::{BYTES_MAX as CACHE_BYTES_MAX, CacheKey, DecodedCache};
use super::choices::OnError;
use super::decode::decode_reusing;
use super::listing::PathList;
use super::transform::{Resize, Transform};
use crate::file_bytes::read_regular_file;
use crate::{FileProblem, FormatError};

/// Larger files are no photographs.
const BYTES_MAX: u64 = 512 << 20;
/// Images that are told with their reasons.
const TOLD_MAX: usize = 3;

/// What is known of a split before any image is decoded.
#[derive(Debug)]
pub(crate) struct ImageListing {
    pub(crate) folder: PathBuf,
    pub(crate) paths: PathList,
    pub(crate) transform: Transform,
    pub(crate) on_error: OnError,
    /// Whether decoded images may be kept on disk.
    pub(crate) cache: bool,
    /// Whether labels are the numbers of outputs.
    pub(crate) is_numbered: bool,
    pub(crate) notes: Vec<String>,
}

/// What one thread decodes an image after the other in.
#[derive(Default)]
struct Workspace {
    /// Memory for a decoded image.
    decoded: Vec<u8>,
    /// What a network reads, `[H, W, C]`.
    fitted: Vec<u8>,
    resizer: Resizer,
}

/// The files of one split. Copies share what was found out about them.
#[derive(Clone, Debug)]
pub struct ImageFiles {
    listing: Arc<ImageListing>,
    cache: Option<Arc<DecodedCache>>,
    /// By index, why an image cannot be read.
    unreadable: Arc<Mutex<BTreeMap<usize, String>>>,
}

impl PartialEq for ImageFiles {
    /// Whether both came of one listing.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.listing, &other.listing)
    }
}

impl Eq for ImageFiles {}

impl ImageFiles {
    pub(crate) fn new(listing: ImageListing) -> Self {
        Self { listing: Arc::new(listing), cache: None, unreadable: Arc::default() }
    }

    /// The same files, decoded images being kept in `folder`, if the scene allows it.
    pub(crate) fn cached_in(&self, folder: Option<&Path>) -> Self {
        let folder = folder.filter(|_| self.listing.cache);
        let cache =
            self.cache.clone().or_else(|| folder.map(|folder| Arc::new(DecodedCache::new(folder, CACHE_BYTES_MAX))));
        Self { cache, ..self.clone() }
    }

    /// Number of files, those that cannot be read among them.
    pub(crate) fn len(&self) -> usize {
        self.listing.paths.len()
    }

    pub(crate) fn is_numbered(&self) -> bool {
        self.listing.is_numbered
    }

    /// Every path relative to the folder, in order.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.listing.paths.iter()
    }

    /// How images become what a network reads, as text.
    pub(crate) fn transform(&self) -> String {
        format!("{:?}", self.listing.transform)
    }

    /// Whether images can be made what a network reads of `input`.
    ///
    /// # Errors
    /// Channels that images do not have, or a size to resize to that is below the network's.
    pub(crate) fn check_input(&self, input: Shape) -> Result<(), FormatError> {
        let fail = |problem: String| Err(FormatError::ImageFolder { folder: self.listing.folder.clone(), problem });
        match self.listing.transform.resize {
            _ if input.c != 1 && input.c != 3 => fail(format!(
                "has images of one channel (grey) or three (RGB), the network reads {}; image files feed networks that read \
                 one or three",
                input.c
            )),
            Resize::Shorter(n) if n < input.h.max(input.w) => fail(format!(
                "its images are to be resized to a shorter side of {n}, the network reads {} x {}; say `resize: Shorter(n)` \
                 with at least {}, or leave it out",
                input.h,
                input.w,
                input.h.max(input.w)
            )),
            _ => Ok(()),
        }
    }

    /// Decodes the images at `indices`, makes each what a network reads of `to`, and lets `fill` turn its pixels
    /// `[H, W, C]` into its place in `out`, on the threads of the pool that this is called in. Tells which could be
    /// read; others are left out where the scene says so, and remembered.
    ///
    /// # Errors
    /// The first image that cannot be read, where the scene says to stop.
    pub(crate) fn decode_into(
        &self,
        indices: &[usize],
        to: Shape,
        out: &mut [f32],
        fill: impl Fn(&[u8], &mut [f32]) + Sync,
    ) -> Result<Vec<bool>, FormatError> {
        let places = indices.par_iter().zip(out.par_chunks_exact_mut(to.len().max(1)));
        let decode = places.map_init(Workspace::default, |workspace, (&index, place)| {
            self.decode_one(index, to, workspace).map(|()| fill(&workspace.fitted, place))
        });
        let decoded: Vec<Result<(), FormatError>> = decode.collect();
        for (&index, image) in indices.iter().zip(&decoded) {
            match (image, self.listing.on_error) {
                (Ok(()), _) => {}
                (Err(problem), OnError::Skip) => {
                    self.unreadable().entry(index).or_insert_with(|| problem.to_string());
                }
                (Err(problem), OnError::Stop) => {
                    return Err(FormatError::UnreadableImage { problem: problem.to_string() });
                }
            }
        }
        Ok(decoded.iter().map(Result::is_ok).collect())
    }

    /// Makes the image at `index` what a network reads of `to`, in `workspace.fitted`.
    fn decode_one(&self, index: usize, to: Shape, workspace: &mut Workspace) -> Result<(), FormatError> {
        let Workspace { decoded, fitted, resizer } = workspace;
        let path = self.listing.folder.join(self.listing.paths.get(index));
        let bytes = read_regular_file(&path, BYTES_MAX)?;
        let cache = self.cache.as_ref().map(|cache| (cache, CacheKey::new(&bytes, &self.listing.transform, to)));
        if let Some(pixels) = cache.as_ref().and_then(|(cache, key)| cache.get(key, to.len())) {
            *fitted = pixels;
            return Ok(());
        }
        let image = decode_reusing(std::mem::take(decoded), &bytes).map_err(|problem| problem.at(&path))?;
        let is_fitted = self.listing.transform.apply(&image, to, resizer, fitted);
        is_fitted.map_err(|problem| FileProblem::malformed("resizing", problem).at(&path))?;
        *decoded = image.pixels;
        if let Some((cache, key)) = &cache {
            cache.put(key, fitted);
        }
        Ok(())
    }

    fn unreadable(&self) -> MutexGuard<'_, BTreeMap<usize, String>> {
        self.unreadable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a user should know of what was listed, one sentence each.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.listing.notes.clone()
    }

    /// What went wrong since, one sentence each: images that could not be read, decoded ones that could not be kept.
    pub(crate) fn failures(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let unreadable = self.unreadable();
        if !unreadable.is_empty() {
            let told: Vec<&str> = unreadable.values().take(TOLD_MAX).map(String::as_str).collect();
            let more = if unreadable.len() > TOLD_MAX { "; …" } else { "" };
            notes.push(format!(
                "{} images could not be read and were left out: {}{more}",
                unreadable.len(),
                told.join("; ")
            ));
        }
        notes.extend(self.cache.as_ref().and_then(|cache| cache.failure()));
        notes
    }
}
