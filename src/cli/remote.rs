//! How a command talks to a node that was started with `run --serve`.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde::de::DeserializeOwned;

use super::{Exit, say};
use crate::http::{Acted, Action, NodeSnapshot, SNAPSHOT_SCHEMA, Token, TokenError};

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
    #[error("the node at {address} answers {code}: {message}")]
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
    let request = minreq::get(format!("http://{address}/v1/snapshot"));
    let (code, body) = send(address, request)?;
    let schema = serde_json::from_slice::<serde_json::Value>(&body)
        .map_err(|source| RemoteError::Foreign { address, source })?["schema"]
        .as_u64();
    match schema.and_then(|schema| u32::try_from(schema).ok()) {
        Some(SNAPSHOT_SCHEMA) | None => {}
        Some(schema) => return Err(RemoteError::Schema { address, schema }),
    }
    if code != 200 {
        return Err(RemoteError::Refused { address, code, message: String::from_utf8_lossy(&body).into() });
    }
    read(address, &body)
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
    let (code, body) = send(address, request)?;
    let acted: Acted = read(address, &body)?;
    match code {
        200 => Ok(acted),
        404 => Err(RemoteError::Unknown(acted.message)),
        code => Err(RemoteError::Refused { address, code, message: acted.message }),
    }
}

fn send(address: SocketAddr, request: minreq::Request) -> Result<(u16, Vec<u8>), RemoteError> {
    let unreachable = |source| RemoteError::Unreachable { address, source };
    let answer = request.with_timeout(PATIENCE_SECONDS).send_lazy().map_err(unreachable)?;
    let code = answer.status_code;
    let mut body = Vec::new();
    answer.take(MAX_BODY_BYTES).read_to_end(&mut body).map_err(|error| unreachable(error.into()))?;
    Ok((code, body))
}

fn read<T: DeserializeOwned>(address: SocketAddr, body: &[u8]) -> Result<T, RemoteError> {
    serde_json::from_slice(body).map_err(|source| RemoteError::Foreign { address, source })
}

/// A replay may take its time.
const PATIENCE_SECONDS: u64 = 65;
/// What a tree of a hundred thousand kernels takes.
const MAX_BODY_BYTES: u64 = 256 << 20;
