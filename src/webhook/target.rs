//! The address that is posted to, checked before anything is sent.

use super::WebhookError;

/// An address of which the client can make a request, and nothing but that request.
pub(super) struct Target {
    url: String,
    host: String,
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, WebhookError> {
        let refuse = |rule| Err(WebhookError::Url { rule });
        if url.len() > MAX_URL_BYTES {
            return refuse("must have at most 2048 bytes");
        }
        // A line break would end the request's head early.
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return refuse("must be ASCII without blanks and control characters");
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return refuse("must begin with http:// or https://");
        };
        match scheme {
            "http" => {}
            "https" if cfg!(feature = "tls") => {}
            "https" => return Err(WebhookError::TlsNotCompiledIn),
            _ => return refuse("must begin with http:// or https://"),
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if authority.contains('@') {
            return refuse("must not hold a user name or a password");
        }
        if host.is_empty() || !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        {
            return refuse("must name a host, or an IPv4 address");
        }
        if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
            return refuse("must have a port from 1 to 65535, or none");
        }
        if url.contains('#') {
            return refuse("must not have a fragment");
        }
        Ok(Self { url: url.to_owned(), host: host.to_owned() })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The part that may be logged: the path is often a secret.
    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

const MAX_URL_BYTES: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_can_be_posted_to_is_taken() {
        for good in ["http://a.example", "http://10.0.0.1:8080/x?y=z", "http://localhost/hooks/T0/B1"] {
            assert_eq!(Target::parse(good).unwrap().url(), good);
        }
        let long = format!("http://a/{}", "x".repeat(MAX_URL_BYTES));
        for bad in [
            "",
            "a.example",
            "ftp://a.example",
            "http://",
            "http:///x",
            "http://:80/",
            "http://a:0/",
            "http://a:99999/",
            "http://a:x/",
            "http://a:/",
            "http://me:secret@a/",
            "http://[::1]/",
            "http://a b/",
            "http://a/\r\nX: y",
            "http://a/#b",
            "http://\u{e9}.example/",
            &long,
        ] {
            assert!(matches!(Target::parse(bad), Err(WebhookError::Url { .. })), "{bad:?} was taken");
        }
    }

    #[test]
    fn https_is_taken_only_where_tls_is_compiled_in() {
        let target = Target::parse("https://a.example/x");
        if cfg!(feature = "tls") {
            assert_eq!(target.unwrap().host(), "a.example");
        } else {
            let error = target.err().unwrap();
            assert!(error.to_string().contains("`tls`"), "{error}");
        }
    }
}
