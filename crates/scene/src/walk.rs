//! The walker behind [`LocatedValue`]: reads RON text once and keeps spans, no values. It accepts more than RON does;
//! judging is ron's work.

use crate::locate::{Body, Key, LocatedEntry, LocatedValue};

/// Deepest nesting that is followed. ron itself stops at 128 calls, so nothing it accepts is deeper.
const DEPTH_MAX: usize = 130;

/// The value that `text` holds. After a syntax error or too deep nesting: what was read up to there.
pub(crate) fn locate(text: &str) -> LocatedValue {
    let mut walker = Walker { text, at: 0, failed: false };
    walker.skip_attributes();
    walker.value(0)
}

/// The one value of `text`, if the text is that value and nothing else but attributes, blanks and comments.
pub(crate) fn locate_only(text: &str) -> Option<LocatedValue> {
    let mut walker = Walker { text, at: 0, failed: false };
    walker.skip_attributes();
    let node = walker.value(0);
    walker.skip_blank();
    (!walker.failed && walker.at == text.len()).then_some(node)
}

struct Walker<'a> {
    text: &'a str,
    at: usize,
    failed: bool,
}

impl<'a> Walker<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn advance(&mut self, n_bytes: usize) {
        self.at = (self.at + n_bytes).min(self.text.len());
    }

    /// Whitespace and comments. Bytes are enough here: every separator is ASCII but for five that are compared as text.
    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            if rest.starts_with(b"//") {
                let len = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                self.advance(len);
            } else if rest.starts_with(b"/*") {
                self.skip_block_comment();
            } else if let Some(c) =
                self.text.get(self.at..).and_then(|rest| rest.chars().next()).filter(|c| is_blank(*c))
            {
                self.advance(c.len_utf8());
            } else {
                return;
            }
        }
    }

    fn skip_block_comment(&mut self) {
        let mut open = 0usize;
        while self.at < self.text.len() {
            if self.rest().starts_with(b"/*") {
                open += 1;
                self.advance(2);
            } else if self.rest().starts_with(b"*/") {
                open -= 1;
                self.advance(2);
                if open == 0 {
                    return;
                }
            } else {
                self.advance(1);
            }
        }
        self.failed = true;
    }

    /// `#![enable(…)]`, `#![type = "…"]` before the value.
    fn skip_attributes(&mut self) {
        self.skip_blank();
        while self.peek() == Some(b'#') {
            while self.peek().is_some_and(|b| b != b']') {
                if self.peek() == Some(b'"') { self.skip_string() } else { self.advance(1) }
            }
            self.advance(1);
            self.skip_blank();
        }
    }

    fn value(&mut self, depth: usize) -> LocatedValue {
        self.skip_blank();
        let start = self.at;
        self.token();
        let token_end = self.at;
        let named = token_end > start;
        let nameable = !named || matches!(self.text.as_bytes()[start], b'a'..=b'z' | b'A'..=b'Z' | b'_' | 128..);
        self.skip_blank();
        let opens = match self.peek() {
            Some(b'(') => nameable,
            Some(b'[' | b'{') => !named,
            _ => false,
        };
        if !opens {
            self.at = token_end;
            self.failed |= !named;
            return LocatedValue { span: start..token_end, body: None };
        }
        let body = self.body(depth);
        LocatedValue { span: start..self.at, body: Some(body) }
    }

    fn body(&mut self, depth: usize) -> Body {
        let bracket = self.peek().unwrap_or_default();
        let close = match bracket {
            b'(' => b')',
            b'[' => b']',
            _ => b'}',
        };
        self.advance(1);
        let mut body = Body { bracket, start: self.at, entries: Vec::new() };
        self.failed |= depth >= DEPTH_MAX;
        while !self.failed {
            self.skip_blank();
            if self.peek() == Some(close) {
                self.advance(1);
                return body;
            }
            let entry = self.entry(bracket, depth);
            body.entries.push(entry);
            let end = self.at;
            self.skip_blank();
            match self.peek() {
                Some(b',') => self.advance(1),
                Some(b) if b == close => {}
                _ => {
                    self.failed = true;
                    self.at = end;
                }
            }
        }
        body
    }

    fn entry(&mut self, bracket: u8, depth: usize) -> LocatedEntry {
        let mut first = self.value(depth + 1);
        let end = self.at;
        if bracket != b'[' && !self.failed {
            self.skip_blank();
            if self.peek() == Some(b':') {
                self.advance(1);
                let key = Key { name: key_name(&self.text[first.span.clone()]), span: first.span };
                first = self.value(depth + 1);
                return LocatedEntry { key: Some(key), value: first };
            }
        }
        self.at = end;
        LocatedEntry { key: None, value: first }
    }

    /// A number, identifier, string or character; stays in place before a bracket.
    fn token(&mut self) {
        let rest = self.rest();
        match rest {
            [b'"', ..] => self.skip_string(),
            [b'b', b'"', ..] => {
                self.advance(1);
                self.skip_string();
            }
            [b'\'', ..] => self.skip_char(),
            [b'b', b'\'', ..] => {
                self.advance(1);
                self.skip_char();
            }
            [b'r', b'"' | b'#', ..] if self.skip_raw_string(1) => {}
            [b'b', b'r', b'"' | b'#', ..] if self.skip_raw_string(2) => {}
            _ => self.skip_word(),
        }
    }

    fn skip_word(&mut self) {
        let ends = |(at, c): (usize, char)| {
            is_blank(c)
                || matches!(c, '(' | ')' | '[' | ']' | '{' | '}' | ',' | ':' | '"')
                || (c == '/' && matches!(self.rest().get(at + 1), Some(b'/' | b'*')))
        };
        let rest = self.text.get(self.at..).unwrap_or_default();
        let len = rest.char_indices().find(|item| ends(*item)).map_or(rest.len(), |(at, _)| at);
        self.advance(len);
    }

    /// From the opening quote to the closing one.
    fn skip_string(&mut self) {
        self.advance(1);
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => return self.advance(1),
                b'\\' => self.advance(2),
                _ => self.advance(1),
            }
        }
        self.failed = true;
    }

    fn skip_char(&mut self) {
        self.advance(1);
        if self.peek() == Some(b'\\') {
            self.advance(2);
        } else if self.peek() == Some(b'\'') {
            self.advance(1);
        }
        match self.rest().iter().position(|b| *b == b'\'') {
            Some(len) => self.advance(len + 1),
            None => {
                self.failed = true;
                self.at = self.text.len();
            }
        }
    }

    /// `r##"…"##` with its prefix of `n_prefix` letters; false for a raw identifier, which is a word.
    fn skip_raw_string(&mut self, n_prefix: usize) -> bool {
        let rest = &self.rest()[n_prefix..];
        let hashes = rest.iter().take_while(|b| **b == b'#').count();
        if rest.get(hashes) != Some(&b'"') {
            return false;
        }
        let inner = hashes + 1;
        let closes =
            |at: &usize| rest[*at] == b'"' && rest[at + 1..].iter().take_while(|b| **b == b'#').count() >= hashes;
        match (inner..rest.len()).find(closes) {
            Some(at) => self.advance(n_prefix + at + 1 + hashes),
            None => {
                self.failed = true;
                self.at = self.text.len();
            }
        }
        true
    }
}

/// The blanks of RON.
fn is_blank(c: char) -> bool {
    matches!(
        c,
        ' ' | '\t' | '\n' | '\r' | '\x0B' | '\x0C' | '\u{85}' | '\u{200E}' | '\u{200F}' | '\u{2028}' | '\u{2029}'
    )
}

/// A key without its quotes or raw-identifier mark.
fn key_name(text: &str) -> String {
    let unquoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    unquoted.or_else(|| text.strip_prefix("r#")).unwrap_or(text).to_owned()
}
