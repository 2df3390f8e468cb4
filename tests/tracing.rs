//! What somebody who records spans and events sees of requests and of supervision.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/kit.rs"]
mod kit;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{LazyLock, Mutex, MutexGuard};

use kit::{Do, NONE, PuppetRef, at_once, kind, puppet, soon};
use rustkernel::actors::pipeline::Pipeline;
use rustkernel::actors::{KernelSpec, Runtime};
use rustkernel::core::KernelError;
use rustkernel::core::error::KernelErrorKind;
use rustkernel::core::trace::{TraceContext, ambient_trace, with_trace};
use rustkernel::core::traits::{Context, Kernel};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{self, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// The fields of a span or an event, by name.
type Fields = BTreeMap<&'static str, String>;

/// A span, with its place in [`All::spans`] as its number.
#[derive(Clone, Debug, Default)]
struct Seen {
    name: &'static str,
    parent: Option<usize>,
    follows: Vec<usize>,
    fields: Fields,
    has_closed: bool,
}

#[derive(Default)]
struct All {
    spans: Vec<Seen>,
    events: Vec<Fields>,
}

/// Everything that was recorded in this process.
static ALL: LazyLock<Mutex<All>> = LazyLock::new(|| {
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Recorder)).unwrap();
    Mutex::default()
});

fn all() -> MutexGuard<'static, All> {
    ALL.lock().unwrap()
}

struct Recorder;

struct Reader<'a>(&'a mut Fields);

impl Visit for Reader<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

/// Where a span is kept.
struct Place(usize);

fn place<S: Subscriber + for<'a> LookupSpan<'a>>(id: &Id, cx: &layer::Context<'_, S>) -> Option<usize> {
    cx.span(id)?.extensions().get::<Place>().map(|place| place.0)
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attrs: &Attributes<'_>, id: &Id, cx: layer::Context<'_, S>) {
        let parent = attrs.parent().and_then(|parent| place(parent, &cx));
        let mut span = Seen { name: attrs.metadata().name(), parent, ..Seen::default() };
        attrs.record(&mut Reader(&mut span.fields));
        let mut all = all();
        cx.span(id).unwrap().extensions_mut().insert(Place(all.spans.len()));
        all.spans.push(span);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: layer::Context<'_, S>) {
        let place = place(id, &cx).unwrap();
        values.record(&mut Reader(&mut all().spans[place].fields));
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, cx: layer::Context<'_, S>) {
        let (place, before) = (place(id, &cx).unwrap(), place(follows, &cx).unwrap());
        all().spans[place].follows.push(before);
    }

    fn on_close(&self, id: Id, cx: layer::Context<'_, S>) {
        let place = place(&id, &cx).unwrap();
        all().spans[place].has_closed = true;
    }

    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        let mut fields = Fields::new();
        event.record(&mut Reader(&mut fields));
        all().events.push(fields);
    }
}

/// The spans called `name` whose field `field` is `value`.
fn spans(name: &str, field: &str, value: &str) -> Vec<(usize, Seen)> {
    let all = all();
    let spans = all.spans.iter().cloned().enumerate();
    spans
        .filter(|(_, span)| span.name == name && span.fields.get(field).is_some_and(|is| is == value))
        .collect()
}

/// What was done of the request whose span is `request`.
fn executions(request: usize) -> Vec<Seen> {
    let all = all();
    all.spans.iter().filter(|span| span.name == "execute" && span.parent == Some(request)).cloned().collect()
}

fn context(trace: u128) -> TraceContext {
    TraceContext::try_from((trace, 7, true)).unwrap()
}

async fn runtime() -> Runtime {
    drop(all());
    Runtime::builder().build().await.unwrap()
}

#[tokio::test]
async fn a_chain_is_one_request_with_an_execution_for_each_stage_and_attempt() {
    let runtime = runtime().await;
    let first = runtime.spawn(puppet("chain/first")).await.unwrap();
    let second = runtime.spawn(puppet("chain/second").idempotent()).await.unwrap();
    let chain = Pipeline::from(first).map(|_| Do::PanicUntil(1)).then(second);
    let trace = context(0xc4a1);
    soon(with_trace(trace, chain.run(Do::Double(4), NONE))).await.unwrap();

    let found = spans("request", "trace_id", &format!("{:032x}", trace.trace_id()));
    let [(request, span)] = &found[..] else { panic!("{found:?}") };
    let field = |name: &str| span.fields[name].as_str();
    assert_eq!((field("of"), field("parent_id")), ("chain", "0000000000000007"));
    assert_eq!((field("outcome"), field("attempts")), ("answered", "2"));
    let executed = executions(*request);
    let told: Vec<[&str; 3]> = executed
        .iter()
        .map(|span| ["kernel", "incarnation", "attempt"].map(|name| span.fields[name].as_str()))
        .collect();
    let expected = [["chain/first", "1", "1"], ["chain/second", "1", "1"], ["chain/second", "2", "2"]];
    assert_eq!(told, expected);
    for span in &executed {
        let [life] = span.follows[..] else { panic!("{span:?}") };
        let life = all().spans[life].clone();
        assert_eq!(life.name, "incarnation");
        assert_eq!(
            (&life.fields["kernel"], &life.fields["incarnation"]),
            (&span.fields["kernel"], &span.fields["incarnation"])
        );
        assert!(span.has_closed);
    }
}

/// Calls another kernel, which says in which trace it is.
struct Calls(PuppetRef);

impl Kernel for Calls {
    type Input = ();
    type Output = String;

    async fn execute(&mut self, (): &(), cx: &mut Context<'_>) -> Result<String, KernelError> {
        assert_eq!(ambient_trace(), cx.trace());
        self.0.call(Do::Attempt, NONE).await?;
        Ok(cx.trace().map(|trace| trace.to_string()).unwrap_or_default())
    }
}

async fn calls(runtime: &Runtime, name: &str) -> rustkernel::actors::KernelRef<(), String> {
    let inner = runtime.spawn(puppet(&format!("{name}/inner"))).await.unwrap();
    runtime.spawn(KernelSpec::new(&format!("{name}/outer"), move || Calls(inner.clone()))).await.unwrap()
}

#[tokio::test]
async fn what_a_kernel_calls_belongs_to_the_trace_of_its_own_request() {
    let runtime = runtime().await;
    let outer = calls(&runtime, "nested").await;
    let told: TraceContext = soon(outer.call((), NONE)).await.unwrap().parse().unwrap();
    assert!(told.is_sampled(), "nobody gave one, so the runtime made one");
    let trace = format!("{:032x}", told.trace_id());
    let found = spans("request", "trace_id", &trace);
    let [(_, outer), (_, inner)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((outer.fields["of"].as_str(), inner.fields["of"].as_str()), ("nested/outer", "nested/inner"));
    assert!(!outer.fields.contains_key("parent_id"));
    assert_eq!(outer.fields["span_id"], format!("{:016x}", told.span_id()));
    assert_eq!(inner.fields["parent_id"], outer.fields["span_id"]);
    assert!(outer.fields["request"] != inner.fields["request"] && outer.fields["outcome"] == "answered");
}

#[tokio::test]
async fn a_trace_that_is_not_sampled_has_no_spans_and_its_kernels_know_it() {
    let runtime = runtime().await;
    let outer = calls(&runtime, "unsampled").await;
    let trace = TraceContext::try_from((0x5a_u128, 9, false)).unwrap();
    let told = soon(with_trace(trace, outer.call((), NONE))).await.unwrap();
    assert_eq!(told, trace.to_string());
    assert!(spans("request", "trace_id", &format!("{:032x}", trace.trace_id())).is_empty());
    assert!(spans("execute", "kernel", "unsampled/outer").is_empty());
}

#[tokio::test]
async fn a_request_says_how_it_ended_however_it_ended() {
    let runtime = runtime().await;
    let kernel = runtime.spawn(puppet("ends/kernel")).await.unwrap();
    let outcome_of = async |trace: u128, order: Do| {
        let error = soon(with_trace(context(trace), kernel.call(order, NONE))).await.unwrap_err();
        let found = spans("request", "trace_id", &format!("{trace:032x}"));
        assert_eq!(found[0].1.fields["outcome"], error.kind().to_string());
        assert!(found[0].1.has_closed, "nothing holds on to it");
        error.kind().clone()
    };
    assert_eq!(outcome_of(0xe1, Do::Panic).await, KernelErrorKind::Crashed);
    runtime.stop("ends/kernel", true).await;
    let gone = outcome_of(0xe2, Do::Attempt).await;
    assert!(matches!(gone, KernelErrorKind::Down(_)), "{gone:?}");
}

#[tokio::test]
async fn a_failure_is_an_event_with_its_fields_and_a_crash_loop_is_few_of_them() {
    let runtime = runtime().await;
    let kernel = runtime.spawn(puppet("loops/kernel").recovery(at_once(u32::MAX))).await.unwrap();
    for _ in 0..300 {
        assert_eq!(kind(soon(kernel.call(Do::Panic, NONE)).await), KernelErrorKind::Crashed);
    }
    let all = all();
    let failures: Vec<&Fields> = all
        .events
        .iter()
        .filter(|fields| fields.get("child").is_some_and(|child| child == "loops/kernel"))
        .filter(|fields| fields.get("event").is_some_and(|event| event == "failed"))
        .collect();
    let first = failures[0];
    assert_eq!((first["incarnation"].as_str(), first["class"].as_str()), ("1", "panic"));
    assert!(first["reason"].contains("told to panic"), "{first:?}");
    assert!((5..60).contains(&failures.len()), "{} lines for 300 failures", failures.len());
}
