//! How a command talks to a node that was started with `run --serve`.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::de::DeserializeOwned;

use super::{Exit, say};
use crate::http::{Acted, Action, HealthDocument, NodeSnapshot, SNAPSHOT_SCHEMA, Token, TokenError};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    #[error("no node answers at {address}: {source}")]
    Unreachable { address: SocketAddr, source: minreq::Error },
    #[error("what answers at {address} is no rustkernel node: {source}")]
    Foreign { address: SocketAddr, source: serde_json::Error },
    #[error(
        "the node at {address} speaks version {schema} of its snapshot, and this command {SNAPSHOT_SCHEMA}"
    )]
    Schema { address: SocketAddr, schema: u32 },
    #[error("{address} answers {code}: {message}")]
    Refused { address: SocketAddr, code: u16, message: String },
    #[error(transparent)]
    Token(#[from] TokenFault),
    #[error("{0}")]
    Unknown(String),
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenFault {
    #[error("an action needs the node's token: set {TOKEN_VARIABLE}, or name its file with --token-file")]
    Missing,
    #[error("the token file {file} cannot be read: {source}")]
    File { file: String, source: std::io::Error },
    #[error("the token from {from} is no token: {source}")]
    Text { from: String, source: TokenError },
}

/// Where a token may stand.
pub(super) const TOKEN_VARIABLE: &str = "RUSTKERNEL_TOKEN";

/// The secret from the file, or else from the environment, and whether it would do as a token. `None` where there is neither.
pub(super) fn secret(file: Option<&Path>) -> Result<Option<(String, Token)>, TokenFault> {
    let (text, from) = match file {
        Some(file) => {
            let name = file.display().to_string();
            let text =
                fs::read_to_string(file).map_err(|source| TokenFault::File { file: name.clone(), source })?;
            (text, name)
        }
        None => match env::var(TOKEN_VARIABLE) {
            Ok(text) if !text.is_empty() => (text, TOKEN_VARIABLE.to_owned()),
            Ok(_) | Err(_) => return Ok(None),
        },
    };
    let token = Token::new(&text).map_err(|source| TokenFault::Text { from, source })?;
    Ok(Some((text.trim().to_owned(), token)))
}

impl RemoteError {
    /// Tells it, and ends with the code for it.
    pub(super) fn tell(&self) -> Exit {
        say(format_args!("error: {self}"));
        match self {
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Foreign { .. } | Self::Schema { .. } | Self::Refused { .. } => Exit::Failure,
            Self::Token(_) | Self::Unknown(_) => Exit::Usage,
        }
    }
}

/// The node's state.
pub(super) fn snapshot(address: SocketAddr) -> Result<NodeSnapshot, RemoteError> {
    let answer = Answer::about(address, "v1/snapshot")?;
    if answer.code != 200 {
        return Err(answer.refused());
    }
    let schema = answer.read::<serde_json::Value>()?["schema"].as_u64();
    match schema.and_then(|schema| u32::try_from(schema).ok()) {
        Some(SNAPSHOT_SCHEMA) | None => answer.read(),
        Some(schema) => Err(RemoteError::Schema { address, schema }),
    }
}

/// The node's health, whatever it is.
pub(super) fn health(address: SocketAddr) -> Result<HealthDocument, RemoteError> {
    let answer = Answer::about(address, "health")?;
    if matches!(answer.code, 200 | 503) { answer.read() } else { Err(answer.refused()) }
}

/// Whether a probe of the node holds.
pub(super) fn probe(address: SocketAddr, path: &str) -> Result<bool, RemoteError> {
    let answer = Answer::about(address, path)?;
    match answer.code {
        200 => Ok(true),
        503 => Ok(false),
        _ => Err(answer.refused()),
    }
}

/// Has the node do something.
pub(super) fn act(
    address: SocketAddr,
    token_file: Option<&PathBuf>,
    action: &Action,
) -> Result<Acted, RemoteError> {
    let (secret, _) = secret(token_file.map(PathBuf::as_path))?.ok_or(TokenFault::Missing)?;
    let body = serde_json::to_vec(action).unwrap_or_default();
    let request = minreq::post(format!("http://{address}/v1/actions"))
        .with_header("Authorization", format!("Bearer {secret}"))
        .with_header("Content-Type", "application/json")
        .with_body(body);
    let answer = Answer::to(request.with_timeout(PATIENCE_SECONDS), address)?;
    match (answer.code, answer.read::<Acted>()) {
        (200, acted) => acted,
        (404, Ok(acted)) => Err(RemoteError::Unknown(acted.message)),
        _ => Err(answer.refused()),
    }
}

/// What came back.
struct Answer {
    address: SocketAddr,
    code: u16,
    body: Vec<u8>,
}

impl Answer {
    fn about(address: SocketAddr, path: &str) -> Result<Self, RemoteError> {
        let request = minreq::get(format!("http://{address}/{path}"));
        Self::to(request.with_timeout(QUESTION_SECONDS), address)
    }

    fn to(request: minreq::Request, address: SocketAddr) -> Result<Self, RemoteError> {
        let unreachable = |source| RemoteError::Unreachable { address, source };
        let answer = request.send_lazy().map_err(unreachable)?;
        let code = answer.status_code;
        let mut body = Vec::new();
        answer.take(MAX_BODY_BYTES).read_to_end(&mut body).map_err(|error| unreachable(error.into()))?;
        Ok(Self { address, code, body })
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, RemoteError> {
        let Self { address, .. } = *self;
        serde_json::from_slice(&self.body).map_err(|source| RemoteError::Foreign { address, source })
    }

    /// In the node's words, or in those of whoever is before it.
    fn refused(&self) -> RemoteError {
        let Self { address, code, .. } = *self;
        let said = self.read::<Acted>().map(|acted| acted.message);
        let message = said.unwrap_or_else(|_| String::from_utf8_lossy(&self.body).trim().to_owned());
        RemoteError::Refused { address, code, message }
    }
}

/// A node says itself that it cannot tell after 5 s.
const QUESTION_SECONDS: u64 = 10;
/// A restart and a replay may take their time.
const PATIENCE_SECONDS: u64 = 65;
/// What a tree of a hundred thousand kernels takes.
const MAX_BODY_BYTES: u64 = 256 << 20;
