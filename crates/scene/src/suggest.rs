//! "Did you mean": the known name nearest to a misspelt one.

/// Longest name worth comparing; the distance costs the product of both lengths.
const COMPARED_LEN_MAX: usize = 64;

/// The candidate nearest to `found`, if it is near enough to be a likely slip: at most a third of its letters differ.
pub(crate) fn nearest<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if found.len() > COMPARED_LEN_MAX {
        return None;
    }
    let found = found.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&found, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (found.chars().count().max(candidate.chars().count()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The help line for an unknown name: the nearest known one, else all of them.
pub fn did_you_mean<'a>(found: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    if let Some(candidate) = nearest(found, known.clone()) {
        return Some(format!("did you mean `{candidate}`?"));
    }
    let all: Vec<String> = known.into_iter().map(|name| format!("`{name}`")).collect();
    (!all.is_empty()).then(|| format!("expected one of {}", all.join(", ")))
}

/// At most `n` of the known names, the nearest to a misspelt one first.
pub fn nearest_names<'a>(found: &str, known: impl IntoIterator<Item = &'a str>, n: usize) -> Vec<&'a str> {
    // Beyond this length the start of a name has to do.
    let start = |name: &str| name.chars().take(COMPARED_LEN_MAX).collect::<String>().to_lowercase();
    let found = start(found);
    let mut compared: Vec<(usize, &str)> =
        known.into_iter().map(|name| (strsim::damerau_levenshtein(&found, &start(name)), name)).collect();
    compared.sort_by_key(|(distance, _)| *distance);
    compared.into_iter().take(n).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::{did_you_mean, nearest, nearest_names};

    #[test]
    fn the_nearest_names_come_first_however_far_they_are() {
        let known = ["conv1", "layer1.0.conv1", "layer1.0.conv2", "fc"];
        assert_eq!(nearest_names("layer1.0.conv3", known, 2), ["layer1.0.conv1", "layer1.0.conv2"]);
        assert_eq!(nearest_names("Conv", known, 1), ["conv1"]);
        assert_eq!(nearest_names(&"x".repeat(1 << 20), known, 9).len(), 4);
        assert!(nearest_names("x", [], 3).is_empty());
    }

    #[test]
    fn a_slip_finds_its_name_and_an_unrelated_word_finds_none() {
        let known = ["networks", "datasets", "budgets", "seed"];
        assert_eq!(nearest("network", known), Some("networks"));
        assert_eq!(nearest("Budgets", known), Some("budgets"));
        assert_eq!(nearest("sede", known), Some("seed"));
        assert_eq!(nearest("epochs", known), None);
        assert_eq!(nearest(&"s".repeat(1 << 20), known), None);
        assert_eq!(did_you_mean("x9", ["a", "bc"]), Some("expected one of `a`, `bc`".to_owned()));
        assert_eq!(did_you_mean("x9", []), None);
    }
}
