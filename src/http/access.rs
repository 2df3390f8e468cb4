//! Who may change something.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use rustkernel_core::clock::Clock;
use rustkernel_core::rate_limit::{RateDecision, RateLimit};
use subtle::ConstantTimeEq;

/// The secret that an action has to bring along, as `Authorization: Bearer SECRET`. It is in no log and no snapshot.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

/// What is wrong with a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is so short that it could be guessed.
    #[error("a token has at least {MIN_TOKEN_BYTES} characters")]
    Short,
    /// A header cannot carry it.
    #[error("a token is made of printable ASCII without spaces")]
    Character,
}

/// The least length of a token.
pub const MIN_TOKEN_BYTES: usize = 16;

impl Token {
    /// A token from a text, whose white space around it does not count: it may come from a file.
    ///
    /// # Errors
    /// [`TokenError`] says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Character);
        }
        if text.len() < MIN_TOKEN_BYTES {
            return Err(TokenError::Short);
        }
        Ok(Self(text.as_bytes().into()))
    }

    /// Takes as long whatever is wrong with `other`, its length aside.
    fn is(&self, other: &[u8]) -> bool {
        self.0.ct_eq(other).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Decides about actions by the token. Who does not have it may try [`BURST`] times at once and [`PER_SECOND`] times a second, so that it
/// cannot be found by trying; who has it is never held up by that.
#[derive(Debug)]
pub(super) struct Access {
    token: Option<Token>,
    clock: Clock,
    guesses: Mutex<RateLimit>,
}

/// Wrong tokens that may come at once.
pub const BURST: u32 = 20;
/// Wrong tokens a second that may come in the long run.
pub const PER_SECOND: u32 = 5;

impl Access {
    pub(super) fn new(token: Option<Token>) -> Self {
        // Neither is zero.
        let guesses = RateLimit::try_new(BURST, Duration::from_secs(1) / PER_SECOND).unwrap_or_default();
        Self { token, clock: Clock::system(), guesses: Mutex::new(guesses) }
    }

    /// Why whoever sends these headers may not act, if it may not.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        if is_from_another_site(headers) {
            return Err((StatusCode::FORBIDDEN, "an action does not come from the page of another site"));
        }
        let Some(token) = &self.token else {
            let why = "this node takes no actions: it was started without a token";
            return Err((StatusCode::FORBIDDEN, why));
        };
        let sent = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let sent = sent.and_then(|sent| {
            // The scheme's name is read whatever its case, as every one is.
            let (scheme, secret) = sent.split_at_checked(BEARER.len())?;
            scheme.eq_ignore_ascii_case(BEARER).then_some(secret)
        });
        if sent.is_some_and(|sent| token.is(sent)) {
            return Ok(());
        }
        let mut guesses = self.guesses.lock().unwrap_or_else(PoisonError::into_inner);
        if guesses.allow(self.clock.now()) == RateDecision::Refuse {
            return Err((StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens: try again in a second"));
        }
        let why = if sent.is_some() { "the token is wrong" } else { "an action needs a token" };
        Err((StatusCode::UNAUTHORIZED, why))
    }
}

const BEARER: &[u8] = b"Bearer ";

/// A browser says where a page is from that sends something; other programs do not.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
    if let Some(site) = text(HeaderName::from_static("sec-fetch-site")) {
        // The browser has compared them itself: behind a proxy the node's name is not the page's.
        return !["same-origin", "none"].contains(&site);
    }
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or(origin, |(_, host)| host));
    origin.is_some_and(|origin| text(header::HOST) != Some(origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(text: &str) -> HeaderMap {
        [(header::AUTHORIZATION, text.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn the_token_alone_opens_and_nothing_shows_it() {
        let token = Token::new(" 0123456789abcdef\n").unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
        let access = Access::new(Some(token));
        assert_eq!(access.check(&sent("Bearer 0123456789abcdef")), Ok(()));
        assert_eq!(access.check(&sent("bearer 0123456789abcdef")), Ok(()));
        for wrong in
            ["Bearer 0123456789abcdeF", "Bearer ", "Bearer 0123456789abcdef0", "Basic 0123456789abcdef"]
        {
            assert_eq!(access.check(&sent(wrong)).unwrap_err().0, StatusCode::UNAUTHORIZED, "{wrong}");
        }
        assert_eq!(access.check(&HeaderMap::new()).unwrap_err().0, StatusCode::UNAUTHORIZED);
        // Whoever guesses is slowed down, and whoever has the token is not.
        let guesses = (0..3 * BURST).map(|_| access.check(&sent("Bearer guess")).unwrap_err().0);
        assert!(guesses.filter(|code| *code == StatusCode::TOO_MANY_REQUESTS).count() > BURST as usize);
        assert_eq!(access.check(&sent("Bearer 0123456789abcdef")), Ok(()));
        let closed = Access::new(None);
        assert_eq!(closed.check(&sent("Bearer 0123456789abcdef")).unwrap_err().0, StatusCode::FORBIDDEN);
    }

    #[test]
    fn a_page_of_another_site_acts_not_even_with_the_token() {
        let access = Access::new(Some(Token::new("0123456789abcdef").unwrap()));
        let with = |name: &'static str, value: &str| {
            let mut headers = sent("Bearer 0123456789abcdef");
            headers.insert(header::HOST, "127.0.0.1:9470".parse().unwrap());
            headers.insert(name, value.parse().unwrap());
            access.check(&headers).map_err(|(code, _)| code)
        };
        assert_eq!(with("origin", "http://127.0.0.1:9470"), Ok(()));
        assert_eq!(with("sec-fetch-site", "same-origin"), Ok(()));
        let mut proxied = sent("Bearer 0123456789abcdef");
        let sent_by_a_browser = [
            ("host", "127.0.0.1:9470"),
            ("origin", "https://node.example"),
            ("sec-fetch-site", "same-origin"),
        ];
        for (name, value) in sent_by_a_browser {
            proxied.insert(name, value.parse().unwrap());
        }
        assert_eq!(access.check(&proxied), Ok(()), "a proxy says the node's own address");
        for (name, value) in
            [("origin", "http://evil.example"), ("origin", "null"), ("sec-fetch-site", "cross-site")]
        {
            assert_eq!(with(name, value), Err(StatusCode::FORBIDDEN), "{name}: {value}");
        }
    }

    #[test]
    fn a_secret_that_could_be_guessed_or_cannot_be_sent_is_refused() {
        assert_eq!(Token::new("short").unwrap_err(), TokenError::Short);
        assert_eq!(Token::new("0123456789 abcdef").unwrap_err(), TokenError::Character);
        assert_eq!(Token::new("0123456789abcde\u{e9}").unwrap_err(), TokenError::Character);
    }
}
