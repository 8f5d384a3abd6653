//! `match`es whose arms name variants of one enum, and their arms that take the rest, read from the text.

use super::tokens::{Token, tokens};

/// Lines of code, one for each `match` over `<enumeration>::…` that has an arm for whatever is not named: that arm's
/// pattern, with the pattern in front of it. An arm with a guard (`_ if …`) does not count, nor does a pattern of which
/// the enum is a part.
pub fn catch_all_arms(text: &str, enumeration: &str) -> Vec<String> {
    let tokens = tokens(text);
    let starts = (0..tokens.len()).filter(|&at| tokens[at] == Token::Word("match".into()));
    let mut found = Vec::new();
    for start in starts {
        let patterns = patterns(&tokens[start + 1..]);
        let names = |pattern: &[Token]| {
            let pattern = pattern.strip_prefix(&[Token::Sign('&')]).unwrap_or(pattern);
            pattern.first() == Some(&Token::Word(enumeration.into())) && pattern.get(1) == Some(&Token::Separator)
        };
        let takes_the_rest = |pattern: &[Token]| matches!(pattern, [Token::Word(name)] if name != "None");
        let is_over_it = patterns.iter().any(|pattern| names(pattern));
        let rest = patterns.iter().position(|pattern| takes_the_rest(pattern)).filter(|_| is_over_it);
        found.extend(rest.map(|at| format!("`{}` behind `{}`", shown(patterns[at]), shown(patterns[at.max(1) - 1]))));
    }
    found
}

/// The patterns of the arms of a `match`, given what follows that word.
fn patterns(rest: &[Token]) -> Vec<&[Token]> {
    let mut out = Vec::new();
    let (mut depth, mut at) = (0_usize, 0);
    // The scrutinee ends at the first brace outside of parentheses.
    while at < rest.len() && !(depth == 0 && rest[at] == Token::Sign('{')) {
        depth = depth_after(depth, &rest[at]);
        at += 1;
    }
    at += 1;
    let mut start = at;
    let mut is_pattern = true;
    depth = 0;
    while at < rest.len() {
        let is_arrow = rest[at] == Token::Sign('=') && rest.get(at + 1) == Some(&Token::Sign('>'));
        match &rest[at] {
            Token::Sign('}') if depth == 0 => break,
            _ if depth == 0 && is_pattern && is_arrow => {
                out.push(&rest[start..at]);
                is_pattern = false;
                at += 1;
            }
            token => {
                depth = depth_after(depth, token);
                let goes_on = match rest.get(at + 1) {
                    Some(Token::Sign(sign)) => matches!(sign, '.' | '?' | ','),
                    Some(Token::Word(word)) => word == "else",
                    Some(Token::Separator) | None => false,
                };
                let closes_block = *token == Token::Sign('}') && !goes_on;
                if depth == 0 && !is_pattern && (*token == Token::Sign(',') || closes_block) {
                    is_pattern = true;
                    start = at + 1;
                }
            }
        }
        at += 1;
    }
    out
}

const fn depth_after(depth: usize, token: &Token) -> usize {
    match token {
        Token::Sign('(' | '[' | '{') => depth + 1,
        Token::Sign(')' | ']' | '}') => depth.saturating_sub(1),
        Token::Word(_) | Token::Sign(_) | Token::Separator => depth,
    }
}

fn shown(pattern: &[Token]) -> String {
    let piece = |token: &Token| match token {
        Token::Word(word) => word.clone(),
        Token::Separator => "::".into(),
        Token::Sign(sign) => sign.to_string(),
    };
    pattern.iter().map(piece).collect()
}

#[test]
fn only_the_arm_for_the_rest_of_an_enum_is_found() {
    let text = "
        fn f(op: &Op) -> u8 { match op { Op::A => 1, Op::B { x } if *x => { 2 } _ => 3 } }
        fn g(op: &Op) -> u8 { match op.of(Some { y: 1 }) { &Op::A => match z { Z::P => 1, _ => 2 }, Op::B { .. } | Op::C(_) => 3 } }
        fn h(op: &Op) -> Op { match op { Op::A => if a { b } else { c }, other => other.clone() } }
        fn i(op: &Op) -> u8 { match (op, 1) { (Op::A, 1) => 1, _ => 2 } }
        fn j(op: Option<Op>) -> u8 { match op { Some(Op::A) => 1, None => 2, _ => 3 } }
        fn k(op: Op) -> u8 { match op { Op::A => 1, _ if late() => 2, Op::B => 3 } }
    ";
    assert_eq!(catch_all_arms(text, "Op"), ["`_` behind `Op::B{x}if*x`", "`other` behind `Op::A`"]);
}
