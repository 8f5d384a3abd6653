//! Rust text as words, `::` and single characters, without comments, strings and literals: enough to read module paths
//! from it.

/// A piece of Rust text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A name or keyword; raw names lose their `r#`.
    Word(String),
    /// `::`
    Separator,
    /// Any other character.
    Sign(char),
}

/// The pieces of `text`, in order.
pub fn tokens(text: &str) -> Vec<Token> {
    let text: Vec<char> = text.chars().collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        at += match rest[0] {
            '/' if rest.get(1) == Some(&'/') => rest.iter().take_while(|c| **c != '\n').count(),
            '/' if rest.get(1) == Some(&'*') => block_comment_len(rest),
            '"' => string_len(rest),
            '\'' => quote_len(rest),
            'r' | 'b' | 'c' if raw_string_len(rest).is_some() => raw_string_len(rest).unwrap_or(1),
            'r' if rest.get(1) == Some(&'#') => 2,
            ':' if rest.get(1) == Some(&':') => {
                out.push(Token::Separator);
                2
            }
            c if is_word(c) => {
                let word: String = rest.iter().take_while(|c| is_word(**c)).collect();
                let len = word.chars().count();
                out.push(Token::Word(word));
                len
            }
            c => {
                if !c.is_whitespace() {
                    out.push(Token::Sign(c));
                }
                1
            }
        };
    }
    out
}

fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

/// Block comments nest.
fn block_comment_len(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match (rest[at], rest.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string_len(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A character such as `'a'` or `'\n'`, or the quotation mark of a lifetime.
fn quote_len(rest: &[char]) -> usize {
    match (rest.get(1), rest.get(2)) {
        (Some('\\'), _) => 3 + rest.iter().skip(3).take_while(|c| **c != '\'').count() + 1,
        (Some(_), Some('\'')) => 3,
        _ => 1,
    }
}

/// `r"…"`, `r#"…"#`, `br"…"`: no escapes, and as many `#` behind as in front.
fn raw_string_len(rest: &[char]) -> Option<usize> {
    let prefix = rest.iter().take(2).take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    if rest[prefix - 1] != 'r' {
        return None;
    }
    let n_hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    let start = prefix + n_hashes + 1;
    if rest.get(start - 1) != Some(&'"') {
        return None;
    }
    let ends = |at: &usize| {
        rest[*at] == '"' && rest[*at + 1..].iter().take(n_hashes).filter(|c| **c == '#').count() == n_hashes
    };
    Some((start..rest.len()).find(ends).map_or(rest.len(), |end| end + 1 + n_hashes))
}

#[test]
fn comments_strings_characters_and_lifetimes_leave_no_words() {
    let text = r##"
        // crate::a
        /* crate::b /* crate::c */ crate::d */
        fn f<'a>(x: &'a str) { g("crate::e \" crate::f", 'x', '\'', '{', r#"crate::"g"#, b"crate::h", r"\") }
    "##;
    let words: Vec<String> =
        tokens(text).into_iter().filter_map(|t| if let Token::Word(w) = t { Some(w) } else { None }).collect();
    assert_eq!(words, ["fn", "f", "a", "x", "a", "str", "g", "b"]);
}
