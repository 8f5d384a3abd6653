//! Image folders as the command line names them: `images:DIR`, with choices behind commas.

use super::choices::{ImageLabels, OnError};
use super::transform::{ChannelOrder, Interpolation, Resize};
use crate::data::source::{DatasetSource, default_cache, default_test_percent};

/// How the command line takes an image folder.
pub(crate) const USAGE: &str = "images:DIR[,CHOICE=...]";
/// What may follow the folder.
const CHOICES: &str = "labels=none|FILE, test=DIR, resize=N|exact, interpolation=nearest|bilinear|bicubic|lanczos, channels=rgb|bgr, \
                       on_error=skip|stop, cache=on|off";

/// What stands behind `images:`.
///
/// # Errors
/// A choice that is not known, or no folder.
pub(crate) fn parse(rest: Option<&str>) -> Result<DatasetSource, String> {
    let expected = || format!("expected {USAGE}, with the choices {CHOICES}");
    let mut parts = rest.unwrap_or_default().split(',');
    let folder = parts.next().filter(|folder| !folder.is_empty()).ok_or_else(expected)?;
    let mut source = folder_with_defaults(folder);
    let DatasetSource::Images { test, labels, transform, on_error, cache, .. } = &mut source else {
        return Err(expected());
    };
    for part in parts {
        match part.split_once('=') {
            Some(("labels", none)) if none.eq_ignore_ascii_case("none") => *labels = ImageLabels::None,
            Some(("labels", file)) => *labels = ImageLabels::List(file.to_owned()),
            Some(("test", dir)) => *test = Some(dir.to_owned()),
            Some(("resize", "exact")) => transform.resize = Resize::Exact,
            Some(("resize", side)) => {
                let side = side.parse().map_err(|_| format!("resize={side}: expected a number of pixels or exact"))?;
                transform.resize = Resize::Shorter(side);
            }
            Some(("interpolation", "nearest")) => transform.interpolation = Interpolation::Nearest,
            Some(("interpolation", "bilinear")) => transform.interpolation = Interpolation::Bilinear,
            Some(("interpolation", "bicubic")) => transform.interpolation = Interpolation::Bicubic,
            Some(("interpolation", "lanczos")) => transform.interpolation = Interpolation::Lanczos,
            Some(("channels", "rgb")) => transform.channels = ChannelOrder::Rgb,
            Some(("channels", "bgr")) => transform.channels = ChannelOrder::Bgr,
            Some(("on_error", "skip")) => *on_error = OnError::Skip,
            Some(("on_error", "stop")) => *on_error = OnError::Stop,
            Some(("cache", "on")) => *cache = true,
            Some(("cache", "off")) => *cache = false,
            _ => return Err(format!("unknown choice '{part}'; {}", expected())),
        }
    }
    match source.check().first() {
        Some((path, problem)) => Err(format!("{path} {problem}")),
        None => Ok(source),
    }
}

fn folder_with_defaults(dir: &str) -> DatasetSource {
    DatasetSource::Images {
        dir: dir.to_owned(),
        test: None,
        labels: ImageLabels::default(),
        transform: Default::default(),
        on_error: OnError::default(),
        test_percent: default_test_percent(),
        cache: default_cache(),
    }
}
