//! Why a job's configuration is refused.

use std::fmt;
use std::io;

use rustkernel_core::id::InvalidKernelId;

/// Why a job's configuration is refused, and where. Nothing has been started.
#[derive(Debug, thiserror::Error)]
#[error("{place}{fault}")]
pub struct ConfigError {
    /// Where it is.
    pub place: Box<Place>,
    /// What is wrong.
    #[source]
    pub fault: ConfigFault,
}

/// A place in a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: String,
    /// Line and column from 1, columns in characters, where the fault has any.
    pub line_column: Option<(usize, usize)>,
    /// The field, for example `stage[1].settings.damping`, where the fault has one.
    pub field: Option<String>,
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigFault {
    /// The file cannot be read.
    #[error("the file cannot be read: {source}")]
    Read {
        /// What the operating system says.
        #[source]
        source: io::Error,
    },
    /// A variable of the environment sets nothing.
    #[error("{0}")]
    Overlay(#[source] OverlayFault),
    /// The file is longer than any job.
    #[error("the file is longer than {limit_bytes} bytes")]
    TooLong {
        /// Bytes allowed.
        limit_bytes: u64,
    },
    /// The file is no text.
    #[error("byte {offset} is not UTF-8")]
    NotText {
        /// Good bytes before it.
        offset: usize,
    },
    /// A key that is not known here.
    #[error("unknown key `{key}`{}", hint(nearest.as_deref(), known))]
    UnknownKey {
        /// The key.
        key: String,
        /// The known key that is most like it.
        nearest: Option<String>,
        /// All keys that are known here, separated by commas.
        known: String,
    },
    /// No TOML, or a value of the wrong type or out of its range.
    #[error("{message}")]
    Value {
        /// What the parser says.
        message: String,
    },
    /// A value that breaks a rule.
    #[error("{rule}")]
    Rule {
        /// The rule, to be read after the field's name.
        rule: &'static str,
    },
    /// A name that is no kernel name.
    #[error(transparent)]
    Name {
        /// The rule it breaks.
        #[from]
        source: InvalidKernelId,
    },
    /// A name that another stage has.
    #[error("another stage is called `{name}` already; give one of them a `name` of its own")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A kernel that is not built in.
    #[error("there is no kernel `{kernel}`{}", hint(nearest.as_deref(), known))]
    UnknownKernel {
        /// The kernel asked for.
        kernel: String,
        /// The one most like it.
        nearest: Option<String>,
        /// All there are.
        known: String,
    },
    /// A child that is neither a stage nor a supervisor.
    #[error("there is no stage and no supervisor `{child}`{}", hint(nearest.as_deref(), known))]
    UnknownChild {
        /// The name.
        child: String,
        /// The one most like it.
        nearest: Option<String>,
        /// All there are.
        known: String,
    },
    /// A child that is named twice.
    #[error("`{child}` has a supervisor already")]
    ChildTaken {
        /// The child.
        child: String,
    },
    /// A kernel's own settings.
    #[error("{source}")]
    Settings {
        /// What the kernel says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stage that cannot take what the one before it gives.
    #[error("{from} gives `{gives}`, but {to} takes `{takes}`")]
    Types {
        /// Who gives.
        from: String,
        /// What.
        gives: String,
        /// Who takes.
        to: String,
        /// What.
        takes: String,
    },
    /// A kernel that blocks its thread, placed where others have to run.
    #[error("`{kernel}` reads files and blocks its thread: it cannot be placed inline")]
    Blocking {
        /// The kernel.
        kernel: String,
    },
    /// Checkpoints of a kernel that keeps nothing.
    #[error("`{kernel}` cannot be checkpointed: it keeps no state between requests")]
    Stateless {
        /// The kernel.
        kernel: String,
    },
    /// A repeated stage whose kernel does not say when it is done.
    #[error("`{kernel}` cannot be repeated: it does not know when it has converged")]
    Unrepeatable {
        /// The kernel.
        kernel: String,
    },
}

impl Place {
    pub(super) fn file(file: &str) -> Box<Self> {
        Box::new(Self { file: file.to_owned(), ..Self::default() })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
        }
        if let Some((line, column)) = self.line_column {
            write!(f, ":{line}:{column}")?;
        }
        f.write_str(": ")?;
        match &self.field {
            Some(field) => write!(f, "`{field}`: "),
            None => Ok(()),
        }
    }
}

fn hint(nearest: Option<&str>, known: &str) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`? Known are {known}"),
        None => format!("; known are {known}"),
    }
}

/// Why a variable sets nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlayFault {
    /// It names no field.
    #[error("it names no field, as RUSTKERNEL__JOB__DEADLINE does")]
    Name,
    /// There is no such stage.
    #[error("there is no `{0}`: stages are counted from 0, and a variable adds none")]
    Index(String),
    /// Something on the way has no fields.
    #[error("`{0}` is a value, and has no fields")]
    Value(String),
    /// Its text is no text.
    #[error("its value is not UTF-8")]
    Text,
}
