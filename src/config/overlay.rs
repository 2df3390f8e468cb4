//! Settings from the environment: `RUSTKERNEL__STAGE__1__PLACEMENT=process` sets `stage[1].placement`.
//!
//! Two underscores go from a section to its field, or to the number of a stage, because names have one in them. A name is matched
//! whatever its case. The value is TOML, `3`, `true`, `["a"]`; what is not is a text. Set fields go before the file's; flags go before both.

use std::env;
use std::ffi::OsString;

use toml_edit::{DocumentMut, Item, Table, Value};

use super::document::{Override, quoted};
use super::error::OverlayFault;

/// What the environment sets.
#[derive(Clone, Debug, Default)]
pub struct Overlay(Vec<Setting>);

#[derive(Clone, Debug)]
struct Setting {
    variable: String,
    value: String,
}

const PREFIX: &str = "RUSTKERNEL__";

impl Overlay {
    /// What this process's environment sets, in the order of the variables' names.
    ///
    /// # Errors
    /// The variable whose value is no text.
    pub fn from_env() -> Result<Self, (String, OverlayFault)> {
        Self::of(env::vars_os())
    }

    /// What these variables set, of which each has a name and a value.
    ///
    /// # Errors
    /// The variable whose value or name is no text.
    pub fn of(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, (String, OverlayFault)> {
        let mut settings = Vec::new();
        for (variable, value) in variables {
            if !variable.as_encoded_bytes().starts_with(PREFIX.as_bytes()) {
                continue;
            }
            match (variable.into_string(), value.into_string()) {
                (Ok(variable), Ok(value)) => settings.push(Setting { variable, value }),
                (Ok(variable), Err(_)) => return Err((variable, OverlayFault::Text)),
                (Err(variable), _) => {
                    return Err((variable.to_string_lossy().into_owned(), OverlayFault::Name));
                }
            }
        }
        settings.sort_by(|one, other| one.variable.cmp(&other.variable));
        Ok(Self(settings))
    }

    /// The text with everything set, line by line as it was, and what was set. A text that is no TOML stays as it is: whoever reads it says so.
    pub(super) fn apply(&self, text: &str) -> Result<(String, Vec<Override>), (String, OverlayFault)> {
        let Ok(mut document) = text.parse::<DocumentMut>() else { return Ok((text.to_owned(), Vec::new())) };
        if self.0.is_empty() {
            return Ok((text.to_owned(), Vec::new()));
        }
        let mut overrides = Vec::new();
        for Setting { variable, value } in &self.0 {
            let field = set(document.as_table_mut(), &variable[PREFIX.len()..], value)
                .map_err(|fault| (variable.clone(), fault))?;
            overrides.push(Override { field, variable: variable.clone() });
        }
        Ok((document.to_string(), overrides))
    }
}

/// Sets a field below `table`, and gives back its path.
fn set(table: &mut Table, name: &str, value: &str) -> Result<String, OverlayFault> {
    let mut steps = name.split("__").peekable();
    let (mut path, mut table) = (String::new(), table);
    while let Some(step) = steps.next() {
        if step.is_empty() {
            return Err(OverlayFault::Name);
        }
        let key = known(table, step);
        let dot = if path.is_empty() { "" } else { "." };
        path = format!("{path}{dot}{}", quoted(&key));
        if steps.peek().is_none() {
            let value = value.parse::<Value>().unwrap_or_else(|_| Value::from(value));
            table.insert(&key, Item::Value(value));
            return Ok(path);
        }
        let item = table.entry(&key).or_insert_with(|| {
            let mut section = Table::new();
            section.set_implicit(true);
            Item::Table(section)
        });
        table = match item {
            Item::ArrayOfTables(stages) => {
                let number = steps.next().unwrap_or_default();
                path = format!("{path}[{number}]");
                let stage = number.parse().ok().and_then(|number: usize| stages.get_mut(number));
                let stage = stage.ok_or_else(|| OverlayFault::Index(path.clone()))?;
                if steps.peek().is_none() {
                    return Err(OverlayFault::Name);
                }
                stage
            }
            other @ (Item::None | Item::Value(_) | Item::Table(_)) => {
                // What stands in one line is a section, too.
                if let Item::Value(Value::InlineTable(inline)) = other {
                    *other = Item::Table(inline.clone().into_table());
                }
                other.as_table_mut().ok_or_else(|| OverlayFault::Value(path.clone()))?
            }
        };
    }
    Err(OverlayFault::Name)
}

/// The key that is there, in whatever case, or the one that would be.
fn known(table: &Table, step: &str) -> String {
    let there = table.iter().map(|(key, _)| key).find(|key| key.eq_ignore_ascii_case(step));
    there.map_or_else(|| step.to_ascii_lowercase(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overlay(settings: &[(&str, &str)]) -> Overlay {
        Overlay::of(settings.iter().map(|(name, value)| ((*name).into(), (*value).into()))).unwrap()
    }

    const JOB: &str = "[job]\nname = \"n\" # ours\n\n[[stage]]\nkernel = \"a/b\"\n\n[[stage]]\nkernel = \"a/c\"\nretry = { max_attempts = 3 }\n";

    #[test]
    fn a_variable_sets_a_field_and_leaves_the_rest_as_it_stands() {
        let set = overlay(&[
            ("RUSTKERNEL__JOB__NAME", "other"),
            ("RUSTKERNEL__STAGE__0__CHECKPOINTED", "true"),
            ("RUSTKERNEL__STAGE__1__RETRY__MAX_ATTEMPTS", "5"),
            ("RUSTKERNEL__DOMAIN__RANKS__MAX_DEATHS", "7"),
            ("RUSTKERNEL_TOKEN", "not a setting"),
        ]);
        let (text, overrides) = set.apply(JOB).unwrap();
        let table: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(table["job"]["name"].as_str(), Some("other"));
        assert_eq!(table["stage"][0]["checkpointed"].as_bool(), Some(true));
        assert_eq!(table["stage"][1]["retry"]["max_attempts"].as_integer(), Some(5));
        assert_eq!(table["domain"]["ranks"]["max_deaths"].as_integer(), Some(7));
        let fields: Vec<&str> = overrides.iter().map(|set| set.field.as_str()).collect();
        assert_eq!(
            fields,
            ["domain.ranks.max_deaths", "job.name", "stage[0].checkpointed", "stage[1].retry.max_attempts"]
        );
    }

    #[test]
    fn what_names_nothing_is_an_error_that_names_the_variable() {
        let faults = [
            ("RUSTKERNEL__", OverlayFault::Name),
            ("RUSTKERNEL__STAGE__0", OverlayFault::Name),
            ("RUSTKERNEL__STAGE__2__KERNEL", OverlayFault::Index("stage[2]".into())),
            ("RUSTKERNEL__STAGE__X__KERNEL", OverlayFault::Index("stage[X]".into())),
            ("RUSTKERNEL__JOB__NAME__MORE", OverlayFault::Value("job.name".into())),
        ];
        for (variable, fault) in faults {
            assert_eq!(overlay(&[(variable, "1")]).apply(JOB).unwrap_err(), (variable.to_owned(), fault));
        }
        let broken = overlay(&[("RUSTKERNEL__JOB__NAME", "x")]).apply("[job").unwrap();
        assert_eq!(broken, ("[job".to_owned(), Vec::new()));
    }
}
