//! What a scene says of a folder of images.

use serde::{Deserialize, Serialize};

/// Where the labels of images come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageLabels {
    /// Every sub-folder is a class, in alphabetical order.
    #[default]
    Folders,
    /// These sub-folders are the classes, in the order of the network's outputs.
    Classes(Vec<String>),
    /// There are none: all images of the folder and its sub-folders are read.
    None,
    /// A text file in the folder, a line `path,label` for each image; numbers are those of the network's outputs, names
    /// are numbered in alphabetical order.
    List(String),
}

/// What becomes of an image that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnError {
    /// It is counted, told, and another one is used in its place.
    #[default]
    Skip,
    /// It ends the run.
    Stop,
}
