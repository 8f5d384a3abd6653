//! A page as a reader's tools see it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use roxmltree::Document;
use scraper::{ElementRef, Html, Selector};
use secateur_report::HtmlReport;

/// A parsed page.
pub struct ReadPage {
    pub report: HtmlReport,
    pub html: Html,
}

impl ReadPage {
    /// The page of these directories; every rule that holds for all pages is checked.
    pub fn of(paths: &[PathBuf]) -> Self {
        let report = HtmlReport::of(paths).unwrap();
        let html = Html::parse_document(&report.html);
        let page = Self { report, html };
        page.check();
        page
    }

    pub fn all(&self, selector: &str) -> Vec<ElementRef<'_>> {
        self.html.select(&Selector::parse(selector).unwrap()).collect()
    }

    /// The words of all elements that are selected.
    pub fn texts(&self, selector: &str) -> Vec<String> {
        self.all(selector).into_iter().map(words).collect()
    }

    /// All words of the page.
    pub fn words(&self) -> String {
        self.texts("body").concat()
    }

    /// Rows of the table with a caption that begins so, each with its head first.
    pub fn table(&self, caption: &str) -> Vec<Vec<String>> {
        let cells = Selector::parse("th, td").unwrap();
        let rows = Selector::parse("tr").unwrap();
        let captions = Selector::parse("caption").unwrap();
        let is_it = |table: &ElementRef<'_>| table.select(&captions).any(|found| words(found).starts_with(caption));
        let table = self.all("table").into_iter().find(is_it).unwrap_or_else(|| panic!("no table '{caption}'"));
        table.select(&rows).map(|row| row.select(&cells).map(words).collect()).collect()
    }

    fn check(&self) {
        assert!(self.html.errors.is_empty(), "{:?}", self.html.errors);
        self.check_is_alone();
        let ids: Vec<&str> = self.all("[id]").iter().filter_map(|element| element.attr("id")).collect();
        let unlike: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unlike.len(), "ids that stand twice: {ids:?}");
        for link in self.all("a[href^='#']") {
            assert!(unlike.contains(&link.attr("href").unwrap()[1..]), "a link to nowhere: {:?}", link.attr("href"));
        }
        for element in self.all("[aria-labelledby]") {
            let names = element.attr("aria-labelledby").unwrap().split(' ');
            names.for_each(|name| assert!(unlike.contains(name), "no name '{name}'"));
        }
        assert_eq!(self.all("h1").len(), 1);
        assert_eq!(self.all("html[lang]").len(), 1);
        assert_eq!(self.all("main").len(), 1);
        let mut before = 1;
        for heading in self.all("h1, h2, h3, h4") {
            let level: u32 = heading.value().name()[1..].parse().unwrap();
            assert!(level <= before + 1, "a heading of level {level} behind one of {before}");
            before = level;
        }
        assert_eq!(self.all("table").len(), self.all("table > caption").len(), "every table has a caption");
        for head in self.all("th") {
            assert!(matches!(head.attr("scope"), Some("row" | "col")), "a head without a scope: {}", head.html());
        }
        // What can be scrolled can be reached by the keyboard.
        assert_eq!(self.all(".scroll").len(), self.all(".scroll[tabindex='0'][role='region'][aria-label]").len());
        self.check_drawings();
    }

    /// No script, and nothing that would be fetched.
    fn check_is_alone(&self) {
        assert!(self.all("script, iframe, object, embed, img, base, form").is_empty());
        for link in self.all("link") {
            assert!(link.attr("href").unwrap().starts_with("data:"), "{}", link.html());
        }
        for element in self.all("*") {
            for (name, value) in element.value().attrs() {
                let outside =
                    matches!(name, "src" | "href" | "xlink:href" | "srcset" | "action") && value.contains("//");
                assert!(!outside && !name.starts_with("on"), "{name}={value}");
            }
        }
        let styles = self.texts("style").concat();
        assert!(!styles.contains("url(") && !styles.contains("@import"));
        assert!(styles.contains("prefers-color-scheme:dark") && styles.contains("@media print"));
    }

    fn check_drawings(&self) {
        assert_eq!(self.all("svg").len(), self.report.drawings.len());
        let names: BTreeSet<&str> = self.report.drawings.iter().map(|drawing| drawing.name.as_str()).collect();
        assert_eq!(names.len(), self.report.drawings.len(), "drawings of one name");
        for drawing in &self.report.drawings {
            let file = drawing.standalone();
            let parsed = Document::parse(&file).unwrap_or_else(|error| panic!("{}: {error}\n{file}", drawing.name));
            let root = parsed.root_element();
            assert_eq!(root.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
            let text = |tag: &str| root.children().find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", tag)));
            for tag in ["title", "desc"] {
                let text = text(tag).and_then(|node| node.text()).unwrap_or_default();
                assert!(text.len() > 5, "{}: <{tag}> is '{text}'", drawing.name);
            }
            assert!(!file.contains("NaN") && !file.contains("inf"), "{file}");
            let size: Vec<f64> = root.attribute("viewBox").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
            for node in root.descendants().filter(|node| node.has_attribute("x") || node.has_attribute("cx")) {
                let x = node.attribute("x").or(node.attribute("cx")).unwrap();
                let x: f64 = x.parse().unwrap();
                assert!((0.0..=size[2]).contains(&x), "{}: something stands at x = {x}", drawing.name);
            }
        }
    }
}

fn words(element: ElementRef<'_>) -> String {
    element.text().collect::<Vec<_>>().join("").split_whitespace().collect::<Vec<_>>().join(" ")
}
