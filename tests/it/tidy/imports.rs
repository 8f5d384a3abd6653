//! Which file of a crate imports which, read from its text.
//!
//! What counts as an import: every path of `use` and of code that begins with `crate`, `super`, `self` or the name of a
//! module below. A path leads to the file that defines its item: `pub use` is followed, and neither `mod x;` nor `pub
//! use` makes an arrow of its own, since a page that only lists what is below it needs nothing of it. Left out:
//! `#[cfg(test)]` items and files, macros by example, and names that a glob import brings (such a glob leads to the
//! file of the module that it names).

use std::collections::{BTreeMap, BTreeSet};

use super::tokens::{Token, tokens};

/// Names of modules from the crate's root down; the root itself is empty.
type ModulePath = Vec<String>;

/// Files of one crate, and what each imports of the others. Names are relative to the folder `src`.
#[derive(Debug)]
pub struct ImportGraph {
    arrows: BTreeMap<String, BTreeSet<String>>,
}

/// What a module says about others.
#[derive(Debug, Default)]
struct Module {
    file: String,
    /// Paths that it needs, from the root.
    paths: BTreeSet<ModulePath>,
    /// Names that `pub use` offers here, with the path behind each.
    offers: BTreeMap<String, ModulePath>,
}

impl ImportGraph {
    /// Reads `files` (name relative to `src`, text).
    pub fn new(files: &BTreeMap<String, String>) -> Self {
        let mut modules = BTreeMap::new();
        let names: BTreeSet<ModulePath> = files.keys().map(|file| module_of(file)).collect();
        let mut tests = BTreeSet::new();
        for (file, text) in files {
            let mut reader = Reader { file, names: &names, modules: &mut modules, tests: &mut tests };
            reader.read_file(text);
        }
        modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for module in modules.values() {
            let to = module.paths.iter().filter_map(|path| file_behind(&modules, path)).filter(|to| *to != module.file);
            arrows.entry(module.file.clone()).or_default().extend(to);
        }
        Self { arrows }
    }

    /// All arrows, as (importing file, imported file).
    pub fn arrows(&self) -> impl Iterator<Item = (&str, &str)> {
        self.arrows.iter().flat_map(|(from, to)| to.iter().map(|to| (from.as_str(), to.as_str())))
    }

    /// Sets of two or more files each of which reaches all others of the set by imports, largest first.
    pub fn circles(&self) -> Vec<BTreeSet<&str>> {
        let reached: BTreeMap<&str, BTreeSet<&str>> =
            self.arrows.keys().map(|file| (file.as_str(), self.reached(file))).collect();
        let circle = |file: &str| -> BTreeSet<&str> {
            reached[file].iter().copied().filter(|other| reached.get(other).is_some_and(|r| r.contains(file))).collect()
        };
        let circles: BTreeSet<BTreeSet<&str>> =
            self.arrows.keys().map(|file| circle(file)).filter(|circle| circle.len() > 1).collect();
        let mut circles: Vec<_> = circles.into_iter().collect();
        circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
        circles
    }

    /// Files that `file` needs, directly or through others.
    fn reached(&self, file: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open: Vec<&str> = vec![file];
        while let Some(from) = open.pop() {
            for to in self.arrows.get(from).into_iter().flatten() {
                if reached.insert(to.as_str()) {
                    open.push(to);
                }
            }
        }
        reached
    }
}

/// `a/b.rs` and `a/b/mod.rs` are `a::b`; `lib.rs` is the root. `main.rs` is a root of its own, kept apart from the
/// library's by its name.
fn module_of(file: &str) -> ModulePath {
    let mut parts: ModulePath = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "mod" || (last == "lib" && parts.len() == 1)) {
        parts.pop();
    }
    parts
}

/// File that defines the item behind `path`, `pub use` followed; `None` for the root alone.
fn file_behind(modules: &BTreeMap<ModulePath, Module>, path: &[String]) -> Option<String> {
    let mut path = path.to_vec();
    // As many steps as there can be different `pub use` of one name.
    for _ in 0..=modules.len() {
        let n = (0..=path.len()).rev().find(|&n| modules.contains_key(&path[..n]))?;
        let module = &modules[&path[..n]];
        match path.get(n).and_then(|name| module.offers.get(name)) {
            Some(behind) => path = [behind, &path[n + 1..]].concat(),
            None => return Some(module.file.clone()),
        }
    }
    None
}

/// Reads one file into the modules that it defines: its own and those inline.
struct Reader<'a> {
    file: &'a str,
    names: &'a BTreeSet<ModulePath>,
    modules: &'a mut BTreeMap<ModulePath, Module>,
    /// Modules that exist only in tests.
    tests: &'a mut BTreeSet<ModulePath>,
}

impl Reader<'_> {
    fn read_file(&mut self, text: &str) {
        let tokens = tokens(text);
        let root = module_of(self.file);
        self.module(&root);
        // Inline modules that are open, each with the number of braces around it.
        let mut open: Vec<(ModulePath, usize)> = vec![(root, 0)];
        let (mut depth, mut at) = (0_usize, 0);
        while at < tokens.len() {
            let module = open.last().expect("the file's own module stays open").0.clone();
            let rest = &tokens[at..];
            at += match &rest[0] {
                Token::Sign('#') if is_test_only(rest) => self.skip_item(&module, rest),
                Token::Sign('{') => {
                    depth += 1;
                    1
                }
                Token::Sign('}') => {
                    depth = depth.saturating_sub(1);
                    if open.len() > 1 && open.last().is_some_and(|inline| inline.1 == depth) {
                        open.pop();
                    }
                    1
                }
                Token::Word(word) if word == "mod" => {
                    if let [_, Token::Word(name), Token::Sign('{'), ..] = rest {
                        let inline = [module, vec![name.clone()]].concat();
                        self.module(&inline);
                        open.push((inline, depth));
                    }
                    2
                }
                Token::Word(word) if word == "use" => self.read_use(&module, &tokens[..at], rest),
                Token::Word(_) => self.read_path(&module, rest),
                Token::Separator | Token::Sign(_) => 1,
            };
        }
    }

    fn module(&mut self, path: &[String]) -> &mut Module {
        let module = self.modules.entry(path.to_vec()).or_default();
        module.file = self.file.to_owned();
        module
    }

    /// A path in code. Returns how many pieces it takes.
    fn read_path(&mut self, module: &[String], rest: &[Token]) -> usize {
        let mut names = Vec::new();
        let mut at = 0;
        while let Some(Token::Word(name)) = rest.get(at) {
            names.push(name.clone());
            at += 1;
            if rest.get(at) != Some(&Token::Separator) {
                break;
            }
            at += 1;
        }
        if names.len() > 1 {
            self.need(module, &names);
        }
        at
    }

    fn need(&mut self, module: &[String], names: &[String]) {
        if let Some(path) = self.path_from_root(module, names) {
            self.module(module).paths.insert(path);
        }
    }

    /// `names` as seen from `module`, from the root on; `None` when they lead to another crate or are no path of
    /// modules.
    fn path_from_root(&self, module: &[String], names: &[String]) -> Option<ModulePath> {
        let mut base = module.to_vec();
        let mut names = names;
        match names.first()?.as_str() {
            "crate" => {
                base.clear();
                names = &names[1..];
            }
            "self" | "super" => {
                while let Some(name) = names.first().filter(|name| ["self", "super"].contains(&name.as_str())) {
                    if name == "super" {
                        base.pop()?;
                    }
                    names = &names[1..];
                }
            }
            first => {
                let below = [module, &[first.to_owned()]].concat();
                if !self.names.contains(&below) && !self.modules.contains_key(&below) {
                    return None;
                }
            }
        }
        Some([base, names.to_vec()].concat())
    }

    /// `use a::{b, c::d as e};` Returns how many pieces it takes.
    fn read_use(&mut self, module: &[String], before: &[Token], rest: &[Token]) -> usize {
        let len = rest.iter().take_while(|t| **t != Token::Sign(';')).count();
        // `impl Trait + use<'a>` is no import.
        if rest.get(1) == Some(&Token::Sign('<')) {
            return 1;
        }
        let is_offer = is_public(before);
        let mut leaves = Vec::new();
        use_leaves(&rest[1..len], &[], &mut leaves);
        for (names, alias) in leaves {
            let Some(path) = self.path_from_root(module, &names) else { continue };
            let module = self.module(module);
            if is_offer {
                module.offers.insert(alias, path);
            } else {
                module.paths.insert(path);
            }
        }
        len + 1
    }

    /// An item under `#[cfg(test)]`. Returns how many pieces it takes.
    fn skip_item(&mut self, module: &[String], rest: &[Token]) -> usize {
        let name_at = rest.iter().position(|t| *t == Token::Word("mod".into())).unwrap_or(rest.len());
        let mut depth = 0_usize;
        for (at, token) in rest.iter().enumerate() {
            match token {
                Token::Sign('{') => depth += 1,
                Token::Sign('}') => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = *token == Token::Sign(';') || *token == Token::Sign('}');
            if depth == 0 && ends {
                if let Some(Token::Word(name)) = rest.get(name_at + 1).filter(|_| name_at < at) {
                    self.tests.insert([module, std::slice::from_ref(name)].concat());
                }
                return at + 1;
            }
        }
        rest.len()
    }
}

/// `#[cfg(test)]`, also `#[cfg(all(test, …))]`.
fn is_test_only(rest: &[Token]) -> bool {
    let word = |at: usize, expected: &str| matches!(rest.get(at), Some(Token::Word(word)) if word == expected);
    word(2, "cfg") && (word(4, "test") || (word(4, "all") && word(6, "test")))
}

/// Whether `pub` or `pub(…)` stands right before.
fn is_public(before: &[Token]) -> bool {
    let public = Token::Word("pub".into());
    match before {
        [.., last] if *last == public => true,
        [.., Token::Sign(')')] => {
            let open = before.iter().rposition(|t| *t == Token::Sign('('));
            open.is_some_and(|open| open > 0 && before[open - 1] == public)
        }
        _ => false,
    }
}

/// Full paths that a tree of `use` names, each with the name that it gets here; a glob is the path of its module.
fn use_leaves(tree: &[Token], base: &[String], leaves: &mut Vec<(ModulePath, String)>) {
    let mut path = base.to_vec();
    let mut alias = None;
    let mut at = 0;
    while at < tree.len() {
        match &tree[at] {
            Token::Sign('{') => {
                split_at_commas(group(&tree[at..])).into_iter().for_each(|part| use_leaves(part, &path, leaves));
                return;
            }
            Token::Word(word) if word == "as" => {
                alias = tree.get(at + 1);
                break;
            }
            // `a::{self}` is `a`.
            Token::Word(word) if word == "self" && !path.is_empty() => {}
            Token::Word(word) => path.push(word.clone()),
            Token::Sign(_) | Token::Separator => {}
        }
        at += 1;
    }
    let name = match alias {
        Some(Token::Word(name)) => Some(name),
        _ => path.last(),
    };
    if let Some(name) = name.cloned() {
        leaves.push((path, name));
    }
}

/// What stands between the brace at the start and the one that closes it.
fn group(tree: &[Token]) -> &[Token] {
    let mut depth = 0_usize;
    for (at, token) in tree.iter().enumerate() {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &tree[1..at];
        }
    }
    tree
}

fn split_at_commas(tree: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0_i32;
    tree.split(|token| {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            _ => {}
        }
        depth == 0 && *token == Token::Sign(',')
    })
    .filter(|part| !part.is_empty())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(files: &[(&str, &str)]) -> ImportGraph {
        ImportGraph::new(&files.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect())
    }

    fn arrows(files: &[(&str, &str)]) -> Vec<(String, String)> {
        graph(files).arrows().map(|(from, to)| (from.to_owned(), to.to_owned())).collect()
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn a_planted_circle_is_found_and_what_only_hangs_on_it_is_not_in_it() {
        let graph = graph(&[
            ("lib.rs", "mod a; mod b; mod c; mod d; mod e;"),
            ("a.rs", "use crate::b::B;"),
            ("b.rs", "fn f() { super::c::g() }"),
            ("c.rs", "use crate::{d::{D as Other, E}, e};"),
            ("d.rs", "use crate::a;"),
            ("e.rs", "pub struct E;"),
        ]);
        assert_eq!(graph.circles(), [BTreeSet::from(["a.rs", "b.rs", "c.rs", "d.rs"])]);
    }

    #[test]
    fn a_name_of_the_crates_front_page_leads_to_the_file_that_defines_it() {
        let files = [
            ("lib.rs", "mod a; mod floor; pub use floor::Thing; pub(crate) use floor::deep::Renamed as Name;"),
            ("a.rs", "use crate::{Name, Thing};"),
            ("floor/mod.rs", "pub mod deep; pub use self::deep::Thing;"),
            ("floor/deep.rs", "pub struct Thing; pub struct Renamed;"),
        ];
        assert_eq!(arrows(&files), [pair("a.rs", "floor/deep.rs")]);
    }

    #[test]
    fn inline_modules_and_paths_without_use_are_seen() {
        let files = [
            ("lib.rs", "mod a; mod b; fn f() { b::g() }"),
            ("a.rs", "mod x86 { use super::Lanes; use super::super::b::B; } fn h() -> crate::b::C {}"),
            ("b.rs", "mod inner { pub fn f() { super::super::a::h(); } }"),
        ];
        assert_eq!(arrows(&files), [pair("a.rs", "b.rs"), pair("b.rs", "a.rs"), pair("lib.rs", "b.rs")]);
    }

    #[test]
    fn tests_comments_strings_and_other_crates_make_no_arrow() {
        let files = [
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod made; #[cfg(test)] mod tests { use crate::a::A; }"),
            (
                "a.rs",
                "//! [`crate::b::B`]\nuse std::fmt; fn f() { other::b::g(\"crate::b\") } #[cfg(test)] use crate::b;",
            ),
            ("b.rs", "#[cfg(test)]\nmod tests { use crate::a::A; fn f() { if x { y } } } struct B;"),
            ("made.rs", "use crate::b::B;"),
            ("a/tests.rs", "use crate::b::B;"),
        ];
        let from_tests = pair("a/tests.rs", "b.rs");
        assert_eq!(arrows(&files), [from_tests], "a file that no `mod` under cfg(test) names counts");
        let declared = [("a.rs", "#[cfg(test)]\nmod tests;"), files[2], ("a/tests.rs", "use crate::b::B;")];
        assert!(arrows(&declared).is_empty());
    }
}
