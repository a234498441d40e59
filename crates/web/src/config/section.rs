//! Typed access to the maps of a document.

use super::document::{Key, Node, Value};
use super::error::{ConfigFault, Fault};

/// A map with a fixed set of keys.
pub(super) struct Section(Vec<(Key, Node)>);

impl Section {
    /// The entries of `node`; none if it is null. `name` is empty at the top of the document.
    ///
    /// # Errors
    ///
    /// It is not a map, or has a key that is not in `known`, or a key twice.
    pub(super) fn new(node: Node, name: &'static str, known: &[&str]) -> Result<Self, Fault> {
        let entries = node.entries(if name.is_empty() { "the document" } else { name })?;
        match entries.iter().find(|(key, _)| !known.contains(&key.name.as_str())) {
            Some((Key { line, name: key }, _)) => {
                let known = known.iter().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
                Err(ConfigFault::UnknownKey { key: key.clone(), section: name, known }.at(*line))
            }
            None => Ok(Self(entries)),
        }
    }

    /// Removes and returns the value of a key, unless it is null.
    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let index = self.0.iter().position(|(found, _)| found.name == key)?;
        let (_, node) = self.0.swap_remove(index);
        if matches!(node.value, Value::Null) { None } else { Some(node) }
    }
}

impl Node {
    /// The entries of a map with any keys, each of which occurs once. None if it is null.
    pub(super) fn entries(self, name: &str) -> Result<Vec<(Key, Self)>, Fault> {
        let entries = match self.value {
            Value::Map(entries) => entries,
            Value::Null => Vec::new(),
            Value::Scalar(_) | Value::List(_) => {
                return Err(kind(name, "a map (write `key: value` below it)", self.line));
            }
        };
        let mut names: Vec<_> = entries.iter().map(|(key, _)| key).collect();
        names.sort_by(|a, b| (&a.name, a.line).cmp(&(&b.name, b.line)));
        match names.windows(2).find(|pair| pair[0].name == pair[1].name) {
            Some([_, second]) => Err(ConfigFault::DuplicateKey(second.name.clone()).at(second.line)),
            _ => Ok(entries),
        }
    }

    pub(super) fn text(self, key: &str) -> Result<String, Fault> {
        match self.value {
            Value::Scalar(text) => Ok(text),
            _ => Err(kind(key, "a text (write the value behind the colon)", self.line)),
        }
    }

    pub(super) fn boolean(self, key: &str) -> Result<bool, Fault> {
        match &self.value {
            Value::Scalar(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::Scalar(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(kind(key, "a boolean (use `true` or `false`)", self.line)),
        }
    }

    /// The texts of a list, with their lines.
    pub(super) fn texts(self, key: &str) -> Result<Vec<(usize, String)>, Fault> {
        let Value::List(items) = self.value else {
            return Err(kind(key, "a list (write `[a, b]`)", self.line));
        };
        items.into_iter().map(|item| Ok((item.line, item.text(key)?))).collect()
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(self, key: &'static str, choices: &[(&str, T)]) -> Result<T, Fault> {
        let line = self.line;
        choose(key, &self.text(key)?, choices).map_err(|fault| fault.at(line))
    }
}

/// The value of one of several words.
pub(super) fn choose<T: Copy>(
    key: &'static str,
    text: &str,
    choices: &[(&str, T)],
) -> Result<T, ConfigFault> {
    match choices.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let allowed = choices.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ");
            Err(ConfigFault::Value { key, value: text.to_owned(), allowed })
        }
    }
}

fn kind(key: &str, expected: &'static str, line: usize) -> Fault {
    ConfigFault::Kind { key: key.to_owned(), expected }.at(line)
}
