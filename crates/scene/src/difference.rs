//! What two scenes differ in, by path.

use crate::locate::LocatedValue;
use crate::ron_error::clip;
use crate::walk::locate;

/// One value that differs between two scenes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path of the value, such as `budgets[1].ratio`.
    pub path: String,
    /// What the first scene has there; empty if nothing.
    pub first: String,
    /// What the second scene has there; empty if nothing.
    pub second: String,
}

/// The first value in which two texts of scenes differ, comments and layout aside; none if they say the same. Both
/// texts should have their defaults spelled out, so that they are alike.
pub fn first_difference(first: &str, second: &str) -> Option<Difference> {
    let texts = (first, second);
    between("", (&locate(first), &locate(second)), texts)
}

fn between(path: &str, nodes: (&LocatedValue, &LocatedValue), texts: (&str, &str)) -> Option<Difference> {
    let (a, b) = (&texts.0[nodes.0.span.clone()], &texts.1[nodes.1.span.clone()]);
    let differ = |path: &str, a: &str, b: &str| Difference { path: path.to_owned(), first: clip(a), second: clip(b) };
    let (Some(one), Some(two)) = (&nodes.0.body, &nodes.1.body) else {
        return (a != b).then(|| differ(path, a, b));
    };
    let head = |text: &str, node: &LocatedValue, start: usize| text[node.span.start..start].to_owned();
    if head(texts.0, nodes.0, one.start) != head(texts.1, nodes.1, two.start) {
        return Some(differ(path, a, b));
    }
    for i in 0..one.entries.len().max(two.entries.len()) {
        let (x, y) = (one.entries.get(i), two.entries.get(i));
        let key = x.or(y).and_then(|entry| entry.key.as_ref());
        let path = match key {
            Some(key) if path.is_empty() => key.name.clone(),
            Some(key) => format!("{path}.{}", key.name),
            None => format!("{path}[{i}]"),
        };
        let text = |entry: Option<&crate::locate::LocatedEntry>, text: &str| {
            entry.map_or_else(String::new, |entry| text[entry.value.span.clone()].to_owned())
        };
        let found = match (x, y) {
            (Some(x), Some(y)) if x.key.as_ref().map(|k| &k.name) == y.key.as_ref().map(|k| &k.name) => {
                between(&path, (&x.value, &y.value), texts)
            }
            _ => Some(differ(&path, &text(x, texts.0), &text(y, texts.1))),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENE: &str = r#"(version: 1, seed: 7, networks: [(name: "n", file: "n")],
        datasets: [(name: "d", source: Cifar10)], budgets: [Macs(ratio: 0.5), Macs(ratio: 0.7)], plugins: {"p": (w: 1)})"#;

    fn difference(edit: (&str, &str)) -> Option<(String, String, String)> {
        let found = first_difference(SCENE, &SCENE.replace(edit.0, edit.1));
        found.map(|d| (d.path, d.first, d.second))
    }

    #[test]
    fn the_value_that_differs_is_named_with_both_sides() {
        let found = |a: &str, b: &str, c: &str| Some((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(difference(("seed: 7", "seed: 7 /* same */")), None);
        assert_eq!(difference(("seed: 7", "seed: 8")), found("seed", "7", "8"));
        assert_eq!(difference(("ratio: 0.7", "ratio: 0.6")), found("budgets[1].ratio", "0.7", "0.6"));
        assert_eq!(difference((", Macs(ratio: 0.7)", "")), found("budgets[1]", "Macs(ratio: 0.7)", ""));
        assert_eq!(difference(("Macs(ratio: 0.7)", "Params(ratio: 0.7)")).unwrap().0, "budgets[1]");
        assert_eq!(difference(("w: 1", "w: 2")).unwrap().0, "plugins.p.w");
    }
}
