//! A YAML document as a tree whose nodes know their lines.
//!
//! The format's aliases and tags are rejected: the configuration does not need them, and without aliases a document never
//! expands beyond its own size.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::error::{ConfigFault, Fault};

/// Levels of nesting. The configuration has four.
const MAX_DEPTH: usize = 16;

/// A value in a document.
#[derive(Debug)]
pub(super) struct Node {
    /// The line it begins in, from 1; that of its key, if it has one.
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of an entry of a map.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) line: usize,
    pub(super) name: String,
}

/// Parses a document. An empty one is [`Value::Null`].
pub(super) fn parse(text: &str) -> Result<Node, Fault> {
    let mut events = Events(Parser::new_from_str(text));
    let mut root = Node { line: 1, value: Value::Null };
    let mut documents = 0;
    loop {
        match events.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(_), line) => {
                documents += 1;
                if documents > 1 {
                    return Err(ConfigFault::SecondDocument.at(line));
                }
            }
            (Event::Nothing | Event::StreamStart | Event::DocumentEnd, _) => {}
            (event, line) => root = events.node(event, line, 0)?,
        }
    }
}

struct Events<'a>(Parser<'a, StrInput<'a>>);

impl<'a> Events<'a> {
    /// The next event and its line.
    fn next(&mut self) -> Result<(Event<'a>, usize), Fault> {
        match self.0.next_event() {
            Some(Ok((event, Span { start, .. }))) => Ok((event, start.line())),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, 1)),
        }
    }

    /// The node that begins with `event`.
    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(ConfigFault::Depth.at(line));
        }
        let value = match event {
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(ConfigFault::Tag.at(line));
            }
            Event::Scalar(text, ScalarStyle::Plain, ..)
                if matches!(&*text, "" | "~" | "null" | "Null" | "NULL") =>
            {
                Value::Null
            }
            Event::Scalar(text, ..) => Value::Scalar(text.into_owned()),
            Event::SequenceStart(..) => Value::List(self.list(depth)?),
            Event::MappingStart(..) => Value::Map(self.map(depth)?),
            Event::Alias(_) => return Err(ConfigFault::Alias.at(line)),
            _ => return Err(ConfigFault::Syntax("unexpected end".to_owned()).at(line)),
        };
        Ok(Node { line, value })
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, line) => items.push(self.node(event, line, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Fault> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => return Ok(entries),
                (Event::Scalar(text, ..), line) => Key { line, name: text.into_owned() },
                (_, line) => return Err(ConfigFault::Key.at(line)),
            };
            let (event, line) = self.next()?;
            let node = self.node(event, line, depth + 1)?;
            // A block begins in the line below its key.
            let node = Node { line: key.line, ..node };
            entries.push((key, node));
        }
    }
}

fn syntax(error: &ScanError) -> Fault {
    ConfigFault::Syntax(error.info().to_owned()).at(error.marker().line())
}
