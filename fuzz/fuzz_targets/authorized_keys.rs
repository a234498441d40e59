//! Any text as `AUTHORIZED_KEYS`. An error is one printable line about a line of the text; what is accepted allows the names
//! that its patterns describe, read here in the plainest way, and no others.

#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use relay::{AuthorizedKeys, PublicKey};

/// What `@a` and `@b` in the input stand for: few mutations of a key are one.
const KEYS: [(&str, &str); 2] = [
    ("@a", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="),
    ("@b", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="),
];

/// Names that are tried, and words of the text before them: a pattern is tried on each.
const MAX_NAMES: usize = 16;

/// The definition of a pattern: of its first character, and the rest.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // For each suffix of the name, whether the pattern's rest matches it.
    let mut rest = vec![false; name.len() + 1];
    rest[name.len()] = true;
    for &character in pattern.iter().rev() {
        for at in 0..=name.len() {
            let at = if character == b'*' { name.len() - at } else { at };
            rest[at] = match (character, rest.get(at + 1)) {
                (b'*', next) => rest[at] || next.is_some_and(|next| *next),
                (_, next) => next.is_some_and(|next| *next && name[at] == character),
            };
        }
    }
    rest[0]
}

fuzz_target!(|input: &str| {
    let text = KEYS.iter().fold(input.to_owned(), |text, (name, key)| text.replace(name, key));
    let keys = match AuthorizedKeys::parse(&text) {
        Ok(keys) => keys,
        Err((line, error)) => {
            let error = error.to_string();
            assert!(!error.contains(|c: char| !(c.is_ascii_graphic() || c == ' ')), "{error:?}");
            assert!((1..=text.lines().count()).contains(&line), "{line}");
            return;
        }
    };
    let mut expected: HashMap<PublicKey, Vec<&str>> = HashMap::new();
    for line in text.lines() {
        let line = line.split_once('#').map_or(line, |(before, _)| before);
        let mut words = line.split([' ', '\t', ',', '\r']).filter(|word| !word.is_empty());
        if let Some(key) = words.next() {
            expected.insert(key.parse().expect("the line was accepted"), words.collect());
        }
    }
    assert_eq!(keys.len(), expected.len());
    assert_eq!(keys.is_empty(), expected.is_empty());
    let words = text.split([' ', '\t', ',', '\r', '\n']).take(MAX_NAMES);
    let names: Vec<String> = words.flat_map(|word| [word.to_owned(), word.replace('*', "a*a")]).collect();
    for (key, patterns) in &expected {
        let allowed = keys.names(key).expect("the key was accepted");
        for name in &names {
            let expected = patterns.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
            assert_eq!(allowed.allow(name), expected, "{patterns:?} {name:?}");
        }
    }
});
