//! Where in its text each field of a configuration is.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, ConfigFault, Place};

/// The text of a configuration, for errors that name a line.
#[derive(Clone, Debug)]
pub struct Document {
    name: String,
    /// As it stands in the file: where lines are counted.
    written: String,
    /// With what the environment has set.
    text: String,
    /// What that is, in the order in which it was set.
    overrides: Vec<Override>,
}

/// A field that was set, and by which variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Override {
    pub(super) field: String,
    pub(super) variable: String,
}

impl Document {
    pub(super) fn new(name: &str, written: String, text: String, overrides: Vec<Override>) -> Self {
        Self { name: name.to_owned(), written, text, overrides }
    }

    /// Where a field has its value from: a variable, a line of the file, or nowhere, which is its default.
    pub(crate) fn origin(&self, field: &str) -> Option<String> {
        if let Some(variable) = self.variable(field) {
            return Some(variable.to_owned());
        }
        let span = self.locate_exactly(field)?;
        Some(format!("{}:{}", self.name, self.line_column(span.start).0))
    }

    /// The variable that has set a field, a section around it, or something in it, where the file does not have it.
    fn variable(&self, field: &str) -> Option<&str> {
        let holds = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        // The last one has set it for good.
        let own = self.overrides.iter().rfind(|set| holds(&set.field, field));
        let inside = || {
            let made = self.overrides.iter().rfind(|set| holds(field, &set.field));
            made.filter(|_| self.locate_exactly(field).is_none())
        };
        own.or_else(inside).map(|set| set.variable.as_str())
    }

    /// An error about `field`, for example `stage[1].settings.damping`. The line is that of the field, or of the nearest table around
    /// it that is there.
    #[must_use]
    pub fn at(&self, field: &str, fault: ConfigFault) -> ConfigError {
        let line_column = self.locate(field).map(|span| self.line_column(span.start));
        self.error(line_column, Some(field.to_owned()), fault)
    }

    /// An error of the parser, or of a type that reads what was parsed.
    #[must_use]
    pub fn refused(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span();
        let field = span.as_ref().and_then(|span| self.field_at(span.start));
        if let (Some(section), Some((inner, rule))) = (&field, broken_rule(error.message())) {
            return self.at(&format!("{section}.{inner}"), ConfigFault::Value { message: rule.to_owned() });
        }
        let place = span.map(|span| span.start);
        // The file has other lines than the text that was read, where anything was set.
        let place = if self.overrides.is_empty() {
            place
        } else {
            field.as_deref().and_then(|field| self.locate(field)).map(|span| span.start)
        };
        let line_column = place.map(|start| self.line_column(start));
        let fault = unknown_key(error.message())
            .unwrap_or_else(|| ConfigFault::Value { message: error.message().to_owned() });
        self.error(line_column, field, fault)
    }

    /// The whole text, with what the environment has set.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The table at `field`, with its places in the text.
    pub(crate) fn table(&self, field: &str) -> Option<toml::Spanned<DeTable<'_>>> {
        let document = DeTable::parse(&self.text).ok()?;
        let mut table = document;
        for step in steps(field) {
            let span = table.span();
            let value = take(table.into_inner(), &step)?;
            let DeValue::Table(inner) = value else { return None };
            table = toml::Spanned::new(span, inner);
        }
        Some(table)
    }

    fn error(
        &self,
        line_column: Option<(usize, usize)>,
        field: Option<String>,
        fault: ConfigFault,
    ) -> ConfigError {
        let variable = field.as_deref().and_then(|field| self.variable(field));
        let (file, line_column) = match variable {
            Some(variable) => (variable.to_owned(), None),
            None => (self.name.clone(), line_column),
        };
        ConfigError { place: Box::new(Place { file, line_column, field }), fault }
    }

    /// The place in the file of a field that is there.
    fn locate_exactly(&self, field: &str) -> Option<Range<usize>> {
        let mut steps = steps(field);
        let last = steps.pop()?;
        let document = DeTable::parse(&self.written).ok()?;
        let mut table = document.into_inner();
        for step in &steps {
            let DeValue::Table(inner) = take(table, step)? else { return None };
            table = inner;
        }
        table.get_key_value(last.key.as_str()).map(|(key, _)| key.span())
    }

    /// The place in the file of a field, or of what is there around it.
    fn locate(&self, field: &str) -> Option<Range<usize>> {
        let document = DeTable::parse(&self.written).ok()?;
        let mut table = document.into_inner();
        let mut found = None;
        for step in steps(field) {
            let Some((key, value)) = table.get_key_value(step.key.as_str()) else { break };
            found = Some(key.span());
            let value = match (value.get_ref(), step.index) {
                (DeValue::Array(items), Some(index)) => {
                    let Some(item) = items.get(index) else { break };
                    found = Some(item.span());
                    item.get_ref()
                }
                (value, _) => value,
            };
            let DeValue::Table(inner) = value else { break };
            table = inner.clone();
        }
        found
    }

    /// The path of the innermost key or value that holds `offset`.
    fn field_at(&self, offset: usize) -> Option<String> {
        let document = DeTable::parse(&self.text).ok()?;
        let mut path = Vec::new();
        path_to(document.get_ref(), offset, &mut path);
        (!path.is_empty()).then(|| path.join("."))
    }

    fn line_column(&self, offset: usize) -> (usize, usize) {
        let before = self.written.get(..offset).unwrap_or(&self.written);
        let start_of_line = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before[start_of_line..].chars().count() + 1)
    }
}

struct Step {
    key: String,
    index: Option<usize>,
}

/// The steps of a field's path. A key that is not bare is in quotes, as [`quoted`] puts it.
fn steps(field: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = field.chars().peekable();
    while rest.peek().is_some() {
        let mut key = String::new();
        if rest.next_if_eq(&'"').is_some() {
            while let Some(character) = rest.next().filter(|character| *character != '"') {
                key.extend(if character == '\\' { rest.next() } else { Some(character) });
            }
        }
        while let Some(character) = rest.next_if(|character| !matches!(character, '.' | '[')) {
            key.push(character);
        }
        let index: String = std::iter::from_fn(|| rest.next_if(|character| *character != '.')).collect();
        let index = index.strip_prefix('[').and_then(|index| index.strip_suffix(']'));
        steps.push(Step { key, index: index.and_then(|index| index.parse().ok()) });
        rest.next();
    }
    steps
}

/// A key as it stands in a field's path and in TOML: in quotes unless it is bare.
pub(crate) fn quoted(key: &str) -> String {
    if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')) {
        return key.to_owned();
    }
    format!("\"{}\"", key.replace('\\', "\\\\").replace('"', "\\\""))
}

fn take<'a>(mut table: DeTable<'a>, step: &Step) -> Option<DeValue<'a>> {
    let value = table.remove(step.key.as_str())?.into_inner();
    match (value, step.index) {
        (DeValue::Array(items), Some(index)) => Some(items.get(index)?.get_ref().clone()),
        (value, _) => Some(value),
    }
}

/// Whether `offset` was found in `table`, whose keys then lead to it in `path`.
fn path_to(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) -> bool {
    for (key, value) in table {
        let name = quoted(key.get_ref());
        if key.span().contains(&offset) {
            path.push(name);
            return true;
        }
        let entries: Vec<_> = if let DeValue::Array(items) = value.get_ref() {
            items.iter().enumerate().map(|(index, item)| (format!("{name}[{index}]"), item)).collect()
        } else {
            vec![(name, value)]
        };
        for (name, value) in entries {
            path.push(name);
            let inside = match value.get_ref().as_table() {
                Some(inner) => path_to(inner, offset, path),
                None => false,
            };
            if inside || value.span().contains(&offset) {
                return true;
            }
            path.pop();
        }
    }
    false
}

/// The fault behind serde's message about a key that no field has.
fn unknown_key(message: &str) -> Option<ConfigFault> {
    let rest = message.strip_prefix("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known: Vec<&str> = rest.split('`').skip(1).step_by(2).collect();
    Some(ConfigFault::UnknownKey {
        key: key.to_owned(),
        nearest: nearest(key, known.iter().copied()),
        known: list(&known),
    })
}

/// Field and rule of a section that checks itself, whose error is its type's `InvalidConfig`: its place is the section's.
fn broken_rule(message: &str) -> Option<(&str, &str)> {
    let (field, rule) = message.strip_prefix("invalid configuration: `")?.split_once("` ")?;
    Some((field.rsplit('.').next()?, rule))
}

/// The one of `known` that `given` was most likely meant to be.
pub(crate) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(given, known);
    let best = known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(best) > LEAST_LIKENESS).then(|| best.to_owned())
}

pub(crate) fn list(known: &[&str]) -> String {
    known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Below it, a suggestion is a guess.
const LEAST_LIKENESS: f64 = 0.4;

#[cfg(test)]
mod tests {
    use super::*;

    /// A name with a dot in it was taken for two steps, and the error told the line of another table.
    #[test]
    fn a_field_below_any_name_is_found_at_its_line() {
        for name in ["a", "a.b", "a b", "a[0]", "", "\"", "\\", "\\\"", "a\".\"b", "."] {
            let name = quoted(name);
            let text = format!("[t.first]\nx = [1]\n\n[t.{name}]\nx = [\n  1,\n  2,\n]\n");
            let document = Document::new("file", text.clone(), text.clone(), Vec::new());
            let place = |field: &str| {
                let fault = ConfigFault::Rule { rule: "is wrong" };
                document.at(&format!("t.{name}{field}"), fault).place.line_column
            };
            assert_eq!(
                [".x[1]", ".x", ".y", ""].map(place),
                [(7, 3), (5, 1), (4, 4), (4, 4)].map(Some),
                "{name}"
            );
            let found = document.field_at(text.find('2').unwrap());
            assert_eq!(found.as_deref(), Some(format!("t.{name}.x[1]").as_str()));
        }
    }
}
