//! How a command talks to a node that was started with `run --serve`.

use std::io::Read;
use std::path::Path;
use std::time::Duration;
use std::{env, fs, io};

use serde::de::DeserializeOwned;
use tokio_rustls::rustls;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, http};

use super::args::{ActArgs, AskArgs};
use super::{Exit, say};
use crate::http::{
    Acted, Action, Failure, FailureList, HealthDocument, LetterList, NodeSnapshot, SNAPSHOT_SCHEMA, Token,
    TokenError,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    #[error("no node answers at {address}: {why}")]
    Unreachable { address: String, why: String },
    #[error("the node at {address} is not trusted: {why}{}", if *is_unknown { "; name whom to trust with --tls-ca" } else { "" })]
    Distrusted { address: String, why: String, is_unknown: bool },
    #[error("what answers at {address} is no rustkernel node: {source}")]
    Foreign { address: String, source: serde_json::Error },
    #[error(
        "the node at {address} speaks version {schema} of its snapshot, and this command {SNAPSHOT_SCHEMA}"
    )]
    Schema { address: String, schema: u32 },
    #[error("{address} answers {code}: {message}")]
    Refused { address: String, code: u16, message: String },
    #[error(transparent)]
    Token(#[from] TokenFault),
    #[error("the certificates in {file} cannot be read: {source}")]
    Authorities { file: String, source: ureq::Error },
    #[error("there is no certificate in {file}")]
    NoAuthorities { file: String },
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
            let read = || {
                let mut text = String::new();
                fs::File::open(file)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
                Ok(text)
            };
            let text = read().map_err(|source| TokenFault::File { file: name.clone(), source })?;
            (text, name)
        }
        None => match env::var(TOKEN_VARIABLE) {
            Ok(text) if !text.is_empty() => (text, TOKEN_VARIABLE.to_owned()),
            Ok(_) | Err(env::VarError::NotPresent) => return Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                let from = TOKEN_VARIABLE.to_owned();
                return Err(TokenFault::Text { from, source: TokenError::Character });
            }
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
            Self::Distrusted { .. } | Self::Foreign { .. } | Self::Schema { .. } | Self::Refused { .. } => {
                Exit::Failure
            }
            Self::Token(_) | Self::Authorities { .. } | Self::NoAuthorities { .. } | Self::Unknown(_) => {
                Exit::Usage
            }
        }
    }
}

/// The node's state.
pub(super) fn snapshot(node: &AskArgs) -> Result<NodeSnapshot, RemoteError> {
    Answer::about(node, "v1/snapshot")?.of_schema(node)
}

/// The failures that are kept, of one child or of all.
pub(super) fn failures(node: &AskArgs, of: Option<&str>) -> Result<Vec<Failure>, RemoteError> {
    let asked = client(node, QUESTION)?.get(node.addr.url("v1/failures"));
    let asked = of.into_iter().fold(asked, |asked, name| asked.query("of", name));
    let answer = Answer::read_from(node, asked.call())?;
    answer.of_schema::<FailureList>(node).map(|list| list.failures)
}

/// The dead letters that are kept.
pub(super) fn dead_letters(node: &AskArgs) -> Result<LetterList, RemoteError> {
    Answer::about(node, "v1/dead-letters")?.of_schema(node)
}

/// The node's health, whatever it is.
pub(super) fn health(node: &AskArgs) -> Result<HealthDocument, RemoteError> {
    let answer = Answer::about(node, "health")?;
    if matches!(answer.code, 200 | 503) { answer.read() } else { Err(answer.refused()) }
}

/// Whether a probe of the node holds.
pub(super) fn probe(node: &AskArgs, path: &str) -> Result<bool, RemoteError> {
    let answer = Answer::about(node, path)?;
    match answer.code {
        200 => Ok(true),
        503 => Ok(false),
        _ => Err(answer.refused()),
    }
}

/// Has the node do something.
pub(super) fn act(args: &ActArgs, action: &Action) -> Result<Acted, RemoteError> {
    let (secret, _) = secret(args.token_file.as_deref())?.ok_or(TokenFault::Missing)?;
    let body = serde_json::to_vec(action).unwrap_or_default();
    let request = client(&args.ask, PATIENCE)?
        .post(args.ask.addr.url("v1/actions"))
        .header("Authorization", format!("Bearer {secret}"))
        .header("Content-Type", "application/json");
    let answer = Answer::read_from(&args.ask, request.send(body))?;
    match (answer.code, answer.read::<Acted>()) {
        (200, acted) => acted,
        (404, Ok(acted)) => Err(RemoteError::Unknown(acted.message)),
        _ => Err(answer.refused()),
    }
}

/// What came back.
struct Answer {
    address: String,
    code: u16,
    body: Vec<u8>,
}

impl Answer {
    fn about(node: &AskArgs, path: &str) -> Result<Self, RemoteError> {
        Self::read_from(node, client(node, QUESTION)?.get(node.addr.url(path)).call())
    }

    fn read_from(
        node: &AskArgs,
        answer: Result<http::Response<Body>, ureq::Error>,
    ) -> Result<Self, RemoteError> {
        let address = node.addr.to_string();
        let unreachable = |error| {
            let address = address.clone();
            let (why, fault) = if let ureq::Error::Io(error) = &error {
                (error.to_string(), distrust(error))
            } else {
                (error.to_string(), None)
            };
            match fault {
                Some(fault) => {
                    let is_unknown = *fault == rustls::CertificateError::UnknownIssuer;
                    RemoteError::Distrusted { address, why, is_unknown }
                }
                None => RemoteError::Unreachable { address, why },
            }
        };
        let mut answer = answer.map_err(unreachable)?;
        let body =
            answer.body_mut().with_config().limit(MAX_BODY_BYTES).read_to_vec().map_err(unreachable)?;
        Ok(Self { code: answer.status().as_u16(), body, address })
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, RemoteError> {
        let foreign = |source| RemoteError::Foreign { address: self.address.clone(), source };
        serde_json::from_slice(&self.body).map_err(foreign)
    }

    /// A document of the shape that this command knows.
    fn of_schema<T: DeserializeOwned>(&self, node: &AskArgs) -> Result<T, RemoteError> {
        if self.code != 200 {
            return Err(self.refused());
        }
        let schema = self.read::<serde_json::Value>()?["schema"].as_u64();
        match schema.and_then(|schema| u32::try_from(schema).ok()) {
            Some(SNAPSHOT_SCHEMA) | None => self.read(),
            Some(schema) => Err(RemoteError::Schema { address: node.addr.to_string(), schema }),
        }
    }

    /// In the node's words, or in those of whoever is before it.
    fn refused(&self) -> RemoteError {
        let said = self.read::<Acted>().map(|acted| acted.message);
        let message = said.unwrap_or_else(|_| String::from_utf8_lossy(&self.body).trim().to_owned());
        RemoteError::Refused { address: self.address.clone(), code: self.code, message }
    }
}

/// What is wrong with the certificate of whoever answers, if that is why it is not spoken to.
fn distrust(error: &io::Error) -> Option<&rustls::CertificateError> {
    let inner = error.get_ref()?.downcast_ref()?;
    if let rustls::Error::InvalidCertificate(fault) = inner { Some(fault) } else { None }
}

/// It follows nobody elsewhere, so that the token goes where it is meant to, and through no proxy that the environment names.
fn client(node: &AskArgs, patience: Duration) -> Result<Agent, RemoteError> {
    let authorities = match &node.tls_ca {
        Some(file) => authorities(file)?,
        None => RootCerts::WebPki,
    };
    let config = Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(TlsConfig::builder().root_certs(authorities).build());
    Ok(config.build().into())
}

fn authorities(file: &Path) -> Result<RootCerts, RemoteError> {
    let unreadable = |source| RemoteError::Authorities { file: file.display().to_string(), source };
    let text = fs::read(file).map_err(|error| unreadable(error.into()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(unreadable)? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(RemoteError::NoAuthorities { file: file.display().to_string() });
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// What is longer is no token, whoever made the file.
const MAX_TOKEN_BYTES: u64 = 4 << 10;
/// A node says itself that it cannot tell after 5 s.
const QUESTION: Duration = Duration::from_secs(10);
/// A restart and a replay may take their time.
const PATIENCE: Duration = Duration::from_secs(65);
/// What a tree of a hundred thousand kernels takes.
const MAX_BODY_BYTES: u64 = 256 << 20;
