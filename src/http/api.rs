//! A node's state as JSON, and actions on it.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rustkernel_core::clock::{Timestamp, unix_millis};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::access::{Access, Token};
use super::action::{Acted, Action, Refused, act};
use super::node::{FRESH, Late, Node};
use super::snapshot::{LetterList, SNAPSHOT_SCHEMA};

struct Api {
    node: Arc<Node>,
    access: Access,
    watchers: Arc<AtomicUsize>,
    failures: Mutex<Option<(Timestamp, Bytes)>>,
    letters: Mutex<Option<(Timestamp, Bytes)>>,
}

/// The node's state, and actions by whoever has the token; without a token there are none.
///
/// | path | |
/// |---|---|
/// | `GET /v1/snapshot` | a [`NodeSnapshot`](super::NodeSnapshot) |
/// | `GET /v1/failures` | a [`FailureList`](super::FailureList): every failure that is kept; `?of=NAME`: of one child |
/// | `GET /v1/dead-letters` | a [`LetterList`]: every dead letter that is kept |
/// | `GET /v1/events` | one a second, as server-sent events; [`MAX_WATCHERS`] at most |
/// | `POST /v1/actions` | an [`Action`]; needs `Authorization: Bearer TOKEN`, and comes from no other site's page |
///
/// An action is answered by an [`Acted`]: 200 done, 400 not an action, 401 no token or a wrong one, 403 the node has none, 404 no
/// such kernel or letter, 408 too slow, 409 not in a state for that, 413 longer than [`MAX_BODY_BYTES`], 429 too many wrong tokens (and, by a
/// [`HealthServer`](super::HealthServer), too many other requests),
/// 503 the supervisors do not answer.
pub fn api_router(node: Arc<Node>, token: Option<Token>) -> Router {
    let api = Api {
        node,
        access: Access::new(token),
        watchers: Arc::default(),
        failures: Mutex::default(),
        letters: Mutex::default(),
    };
    Router::new()
        .route("/v1/snapshot", get(snapshot))
        .route("/v1/failures", get(failures))
        .route("/v1/dead-letters", get(dead_letters))
        .route("/v1/events", get(events))
        .route("/v1/actions", post(action).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)))
        .with_state(Arc::new(api))
}

/// Who may watch at once.
pub const MAX_WATCHERS: usize = 16;
/// The longest body of an action.
pub const MAX_BODY_BYTES: usize = 4 << 10;
/// How long the body of an action may take.
const BODY_LIMIT: Duration = Duration::from_secs(10);
/// How often a watcher hears.
const TURN: Duration = Duration::from_secs(1);

async fn snapshot(State(api): State<Arc<Api>>) -> Response {
    let text = api.node.recent(FRESH).await.map(|recent| String::from(&*recent.text()));
    text.map(|text| ([(header::CONTENT_TYPE, "application/json")], text)).into_response()
}

#[derive(Deserialize)]
struct Whose {
    of: Option<String>,
}

async fn failures(State(api): State<Arc<Api>>, Query(whose): Query<Whose>) -> Response {
    match whose.of.as_deref() {
        Some(name) => Json(api.node.failures(Some(name))).into_response(),
        None => shared(&api, &api.failures, || api.node.failures(None)),
    }
}

async fn dead_letters(State(api): State<Arc<Api>>) -> Response {
    shared(&api, &api.letters, || LetterList {
        schema: SNAPSHOT_SCHEMA,
        unix_millis: unix_millis(),
        dead_letters: api.node.dead_letters(usize::MAX),
    })
}

/// The document that was last made, if that is [fresh](FRESH), or a new one: it may be long, and whoever asks for it again and again may not
/// keep the server from its probes.
fn shared<T: Serialize>(
    api: &Api,
    last: &Mutex<Option<(Timestamp, Bytes)>>,
    make: impl FnOnce() -> T,
) -> Response {
    let now = api.node.runtime().clock().now();
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let text = match &*last {
        Some((made, text)) if now - *made < FRESH => text.clone(),
        _ => {
            // No type of ours fails, so there is always a document.
            let text = Bytes::from(serde_json::to_vec(&make()).unwrap_or_default());
            *last = Some((now, text.clone()));
            text
        }
    };
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn events(State(api): State<Arc<Api>>) -> Response {
    let Some(watcher) = Watcher::admit(&api.watchers) else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many are watching\n").into_response();
    };
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let stream = futures_util::stream::unfold((api, turns, watcher), |(api, mut turns, watcher)| async {
        turns.tick().await;
        let event = match api.node.recent(TURN / 2).await {
            Ok(recent) => Event::default().data(recent.text()),
            Err(late) => Event::default().comment(late.to_string()),
        };
        Some((Ok::<_, Infallible>(event), (api, turns, watcher)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default()).into_response()
}

/// One that watches, as long as its connection is there.
struct Watcher(Arc<AtomicUsize>);

impl Watcher {
    fn admit(count: &Arc<AtomicUsize>) -> Option<Self> {
        let more = |count: usize| (count < MAX_WATCHERS).then_some(count + 1);
        let admitted = count.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok();
        admitted.then(|| Self(Arc::clone(count)))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn action(State(api): State<Arc<Api>>, request: Request) -> Response {
    // Before anything is read: what is sent without the token is no business of anybody's.
    if let Err((status, message)) = api.access.check(request.headers()) {
        return answer(status, message.to_owned());
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|length: u64| length > MAX_BODY_BYTES as u64)
    {
        return answer(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("an action has {MAX_BODY_BYTES} bytes at most"),
        );
    }
    let action = match read(request, BODY_LIMIT).await {
        Ok(action) => action,
        Err((status, message)) => return answer(status, message),
    };
    let acted = act(&api.node, action).await;
    api.node.forget_recent().await;
    for last in [&api.failures, &api.letters] {
        last.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
    match acted {
        Ok(message) => answer(StatusCode::OK, message),
        Err(Refused::Unknown(message)) => answer(StatusCode::NOT_FOUND, message),
        Err(Refused::Conflict(message)) => answer(StatusCode::CONFLICT, message),
        Err(Refused::Late) => answer(StatusCode::SERVICE_UNAVAILABLE, Late.to_string()),
    }
}

async fn read(request: Request, limit: Duration) -> Result<Action, (StatusCode, String)> {
    let Ok(read) = timeout(limit, Json::from_request(request, &())).await else {
        return Err((StatusCode::REQUEST_TIMEOUT, "the action does not come to its end".to_owned()));
    };
    let refused = |rejection: JsonRejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => (StatusCode::PAYLOAD_TOO_LARGE, rejection.body_text()),
        _ => (StatusCode::BAD_REQUEST, rejection.body_text()),
    };
    read.map(|Json(action)| action).map_err(refused)
}

fn answer(status: StatusCode, message: String) -> Response {
    (status, Json(Acted { done: status == StatusCode::OK, message })).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[tokio::test]
    async fn an_action_that_does_not_come_to_its_end_is_answered() {
        let endless = futures_util::stream::pending::<Result<Vec<u8>, Infallible>>();
        let request = Request::post("/v1/actions")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from_stream(endless))
            .unwrap();
        let (status, _) = read(request, Duration::from_millis(5)).await.unwrap_err();
        assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    }
}
