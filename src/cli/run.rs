//! `rustkernel run`.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use metrics_util::MetricKindMask;
use rustkernel_actors::pipeline::PipelineReport;
use rustkernel_actors::{Runtime, SpawnError, StartError};
use rustkernel_core::device::DeviceKind;
use rustkernel_core::envelope::Deadline;
use rustkernel_core::error::{KernelError, KernelErrorKind};
use rustkernel_core::resilience::HealthCheckResult;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::args::{Format, RunArgs};
use super::remote::{self, TokenFault};
use super::report::Report;
use super::signal::{Signal, Signals};
use super::systemd;
use super::{Exit, Printed, causes, config, names, print, progress, say};
use crate::catalog;
use crate::config::{ConfigError, Placement, StageConfig};
use crate::cuda::{Device, DeviceWatch};
use crate::http::{HealthServer, Node, Tls, TlsError, Token, node_router};
use crate::inject::Injector;
use crate::job::{Job, JobState, Plan, StateError, Tally};
use crate::kernels::graph::{EdgeListSource, Ranking};
use crate::metrics;
use crate::webhook::{Webhook, WebhookConfig, WebhookError};

/// A gauge that nobody has set for so long is no longer shown: of a kernel that has gone, say. Counters stay: they would begin anew.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// Why a job did not begin.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the async runtime does not start: {0}")]
    Tokio(#[source] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    #[error("the signals cannot be listened to: {0}")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("--webhook: {0}")]
    Webhook(#[from] WebhookError),
    #[error("--inject kill ends the process that a kernel runs in: add --placement process")]
    Kill,
    #[error("{0}")]
    Token(#[from] TokenFault),
    #[error(
        "--serve {0} is no loopback address, and there everything would travel in the clear: name a certificate with --tls-cert and --tls-key"
    )]
    Clear(SocketAddr),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("nothing can be served on {address}: {source}")]
    Serve { address: SocketAddr, source: io::Error },
}

/// How a job that began ended.
enum Ending {
    Finished(Result<Ranking, KernelError>, PipelineReport),
    /// By this signal; `None` where it took longer than its node would wait.
    Cut(Option<Signal>),
}

/// How far the end of the node has come when its job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nobody has asked for it.
    Serves,
    /// It has not been ready since then.
    Drains(Instant),
}

pub(super) fn run(args: RunArgs) -> Exit {
    match prepare(&args).and_then(|plan| {
        let tokio =
            tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(RunError::Tokio)?;
        let exit = tokio.block_on(drive(plan, args));
        // Nothing of worth is left in it, and a blocked thread may not hold up the exit.
        tokio.shutdown_background();
        exit
    }) {
        Ok(exit) => exit,
        Err(error) => {
            say(format_args!("error: {}", causes(&error)));
            error.exit()
        }
    }
}

/// A job that has been checked, and the folder it lives in if it has one.
struct Prepared {
    plan: Plan,
    state: Option<JobState>,
    webhook: Option<Webhook>,
    tls: Option<Tls>,
    token: Option<Token>,
}

fn prepare(args: &RunArgs) -> Result<Prepared, RunError> {
    let (mut config, document) = config::load(args.pipeline.as_ref())?;
    if let Some(placement) = args.placement {
        config.place(placement);
    }
    if let Some(device) = args.device {
        catalog::move_to(&mut config, device, args.placement);
    }
    let here = |stage: &StageConfig| stage.placement != Placement::Process;
    if args.inject.is_some_and(|mix| mix.kills()) && config.stages.iter().any(here) {
        return Err(RunError::Kill);
    }
    let plan = Plan::new(config, &document)?;
    let input = input_of(args);
    let open = |dir| JobState::open(dir, &document, &input);
    let state = args.state.as_deref().map(open).transpose()?;
    for refused in state.iter().flat_map(JobState::refused) {
        say(format_args!("warning: {refused}"));
    }
    let webhook =
        args.webhook.as_deref().map(|url| Webhook::new(url, &WebhookConfig::default())).transpose()?;
    let secret = if args.serve.is_some() { remote::secret(args.token_file.as_deref())? } else { None };
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => Some(Tls::new(certificate, key)?),
        (_, _) => None,
    };
    if let (Some(address), None) = (args.serve.filter(|address| !address.ip().is_loopback()), &tls) {
        return Err(RunError::Clear(address));
    }
    Ok(Prepared { plan, state, webhook, tls, token: secret.map(|(_, token)| token) })
}

fn input_of(args: &RunArgs) -> EdgeListSource {
    args.input.clone().map_or(EdgeListSource::Shipped, EdgeListSource::Path)
}

/// The runtime that the job lives in.
async fn start(
    tally: &Tally,
    state: Option<&JobState>,
    webhook: Option<&Webhook>,
) -> Result<Runtime, RunError> {
    let hook = tally.clone();
    let mut builder = Runtime::builder().hook(move |event| hook.count(event)).hook(metrics::count);
    if let Some(webhook) = webhook {
        builder = builder.hook(webhook.hook());
    }
    if let Some(state) = state {
        builder = builder.checkpoint_store(state.checkpoints());
    }
    let runtime = builder.build().await?;
    if let Some(state) = state {
        state.restore_records(&runtime);
    }
    Ok(runtime)
}

async fn drive(prepared: Prepared, args: RunArgs) -> Result<Exit, RunError> {
    let Prepared { plan, state, webhook, tls, token } = prepared;
    let mut signals = Signals::listen().map_err(RunError::Signals)?;
    let name = plan.config().job.name.clone();
    let tally = Tally::default();
    let runtime = start(&tally, state.as_ref(), webhook.as_ref()).await?;
    let node = Node::new(runtime.clone());
    node.report(JOB, HealthCheckResult::unknown("starting"));
    let server = args.serve.map(|address| serve(address, &node, token, tls)).transpose()?;
    let injector = args.inject.map(|mix| Injector::new(mix, args.seed));
    let job = match &state {
        Some(state) => plan.resume(&runtime, injector, state).await?,
        None => plan.spawn(&runtime, injector).await?,
    };
    let loss = Loss::watch(&node, &job);
    node.started();
    systemd::ready("running");
    node.report(
        JOB,
        HealthCheckResult { reason: Some("running".to_owned()), ..HealthCheckResult::healthy() },
    );

    let mut done = false;
    let (ending, stage) = follow(&job, &args, &tally, (state.as_ref(), &node), &mut signals).await;
    let was_cut = matches!(ending, Ending::Cut(_));
    let exit = match ending {
        Ending::Finished(result, stages) => {
            node.report(JOB, health_of(&result));
            node.ran(&name, &stages, result.as_ref().err());
            let exit = result.as_ref().map_or_else(Exit::of, |_| Exit::Done);
            let resumed = state.as_ref().and_then(JobState::resumed);
            let names = match &result {
                Ok(ranking) if args.input.is_none() && args.format == Format::Human => {
                    names::shipped(&ranking.entries.iter().map(|entry| entry.id).collect::<Vec<_>>())
                }
                Ok(_) | Err(_) => HashMap::new(),
            };
            let kernels = runtime.status().await;
            let (counts, blocked_threads) = (tally.counts(), runtime.abandoned_threads());
            let report = Report { name, result, stages, counts, resumed, kernels, blocked_threads, names };
            let printed = tell(&report, args.format);
            done = report.result.is_ok() && printed == Printed::Whole;
            if server.is_some() && stage == Stage::Serves {
                stay(&node, &loss, &mut signals).await;
            }
            printed.exit(exit)
        }
        Ending::Cut(signal) => {
            say("error: the job was cut short");
            node.report(JOB, HealthCheckResult::unhealthy("cut short"));
            if signal == Some(Signal::Interrupt) { Exit::Interrupted } else { Exit::Failure }
        }
    };
    let waits = server.is_some() && !loss.has_happened();
    stop(&node, &runtime, rest(stage, was_cut, &args, waits), &mut signals).await;
    if let Some(state) = &state {
        keep(state, &runtime, done);
    }
    if let Some(webhook) = webhook {
        close(webhook);
    }
    // Whoever has had the node drained is told so.
    server.into_iter().for_each(HealthServer::close);
    Ok(if loss.has_happened() { Exit::DeviceLost } else { exit })
}

/// Serves on, until somebody or the loss of a device ends it.
async fn stay(node: &Node, loss: &Loss, signals: &mut Signals) {
    tokio::select! {
        _ = signals.next() => {}
        () = loss.happens() => {}
        () = node.drain_wanted() => {}
        () = systemd::watch(node.runtime(), &loss.devices) => unreachable!("it never ends"),
    }
}

/// How long the node is still to say that it is not ready, and how long what is under way may then take.
fn rest(stage: Stage, was_cut: bool, args: &RunArgs, waits: bool) -> (Duration, Duration) {
    match stage {
        // What was cut short after a drain has had its time.
        Stage::Drains(_) if was_cut => (Duration::ZERO, Duration::ZERO),
        _ if !waits => (Duration::ZERO, args.grace),
        Stage::Drains(since) => (args.drain_delay.saturating_sub(since.elapsed()), args.grace),
        Stage::Serves => (args.drain_delay, args.grace),
    }
}

/// Not ready, for a while; then nothing new; then the end of what is there.
async fn stop(node: &Node, runtime: &Runtime, (delay, grace): (Duration, Duration), signals: &mut Signals) {
    node.draining();
    systemd::stopping(delay + grace + WEBHOOK_GRACE);
    if !delay.is_zero() {
        // Whoever cannot wait says so again.
        let _ = timeout(delay, signals.next()).await;
    }
    runtime.shutdown(grace).await;
}

/// The loss of a device that this process has itself: after one it can only end.
struct Loss {
    devices: Vec<Device>,
    notice: Arc<Notify>,
}

impl Loss {
    /// Shows the job's devices and domains in the node's health.
    fn watch(node: &Node, job: &Job) -> Self {
        let mut held = BTreeSet::new();
        for domain in job.domains() {
            held.extend(domain.device().filter(|device| device.kind() == DeviceKind::Cuda));
            node.watch(format!("domain/{}", domain.name()), move || domain.status().health());
        }
        for device in held {
            let watch = DeviceWatch::of(device);
            node.watch(format!("device/{device}"), move || watch.health());
        }
        let devices = job.devices();
        let notice = Arc::new(Notify::new());
        for device in &devices {
            let watched = device.clone();
            node.need(format!("device/{}", device.id()), move || watched.health());
            let notice = Arc::clone(&notice);
            device.on_loss(move |_| notice.notify_one());
        }
        Self { devices, notice }
    }

    async fn happens(&self) {
        self.notice.notified().await;
    }

    fn has_happened(&self) -> bool {
        self.devices.iter().any(|device| device.lost().is_some())
    }
}

fn close(webhook: Webhook) {
    let stats = webhook.close(WEBHOOK_GRACE);
    let untold = stats.failed + stats.dropped;
    if untold > 0 {
        say(format_args!("warning: the operator was not told of {untold} events"));
    }
}

/// Brings the folder up to date at the job's end: a job that is done leaves nothing to go on from. It is done when somebody has its result:
/// until then the folder is the only place that has it.
fn keep(state: &JobState, runtime: &Runtime, done: bool) {
    state.save_records(runtime);
    if let Some(trouble) = state.trouble() {
        say(format_args!("warning: the job's progress was not saved: {trouble}"));
    }
    if !done {
        return state.flush();
    }
    if let Err(error) = state.finish() {
        say(format_args!("warning: {error}"));
    }
}

/// Until the job ends. One that is served goes on for as long as a drain of its node lets it; any other is cut short at once.
async fn follow(
    job: &Job,
    args: &RunArgs,
    tally: &Tally,
    (state, node): (Option<&JobState>, &Node),
    signals: &mut Signals,
) -> (Ending, Stage) {
    let runtime = node.runtime();
    let records = async {
        match state {
            Some(state) => state.keep_records(runtime).await,
            None => std::future::pending().await,
        }
    };
    let devices = job.devices();
    let beside = async {
        tokio::select! {
            () = records => {}
            () = systemd::watch(runtime, &devices) => {}
            () = progress::show(job, tally) => {}
        }
    };
    let run = job.run(input_of(args), args.deadline.map(Deadline::Within));
    let (mut run, mut beside) = (pin!(run), pin!(beside));
    let asked = tokio::select! {
        (result, report) = &mut run => Err(Ending::Finished(result, report)),
        signal = signals.next() => Ok(Some(signal)),
        () = node.drain_wanted() => Ok(None),
        () = &mut beside => unreachable!("none of them ends"),
    };
    let ended = match asked {
        Err(ending) => (ending, Stage::Serves),
        Ok(signal) if args.serve.is_none() || signal == Some(Signal::Interrupt) => {
            (Ending::Cut(signal), Stage::Serves)
        }
        Ok(_) => {
            node.draining();
            let since = Instant::now();
            systemd::stopping(args.drain_delay + args.grace + WEBHOOK_GRACE);
            let drains = timeout(args.drain_delay + args.grace, async {
                tokio::select! {
                    (result, report) = &mut run => Ending::Finished(result, report),
                    signal = signals.next() => Ending::Cut(Some(signal)),
                    () = &mut beside => unreachable!("none of them ends"),
                }
            });
            (drains.await.unwrap_or(Ending::Cut(None)), Stage::Drains(since))
        }
    };
    progress::clear();
    ended
}

fn serve(
    address: SocketAddr,
    node: &Arc<Node>,
    token: Option<Token>,
    tls: Option<Tls>,
) -> Result<HealthServer, RunError> {
    let exporter =
        PrometheusBuilder::new().idle_timeout(MetricKindMask::GAUGE, Some(FORGOTTEN)).build_recorder();
    let handle = exporter.handle();
    // An error means that somebody else counts, and this node's numbers are theirs.
    let _ = ::metrics::set_global_recorder(exporter);
    metrics::describe();
    let router = node_router(Arc::clone(node), token)
        .merge(metrics::metrics_router(Arc::clone(node), move || handle.render()));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let started = match tls {
        Some(tls) => HealthServer::start_tls(address, router, tls),
        None => HealthServer::start(address, router),
    };
    let server = started.map_err(|source| RunError::Serve { address, source })?;
    say(format_args!("serving on {scheme}://{}", server.address()));
    Ok(server)
}

/// Tells how it went. Without a result, people have nothing to read on stdout.
fn tell(report: &Report, format: Format) -> Printed {
    let printed = match (format, &report.result) {
        (Format::Json, _) => print(&report.json()),
        (Format::Human, Ok(_)) => print(&report.human()),
        (Format::Human, Err(_)) => {
            if report.is_eventful() {
                say(report.human().trim_end());
            }
            Printed::Whole
        }
    };
    if let Err(error) = &report.result {
        say(format_args!("error: {error}"));
        if let Some(advice) = advice(error) {
            say(format_args!("help: {advice}"));
        }
    }
    printed
}

fn health_of(result: &Result<Ranking, KernelError>) -> HealthCheckResult {
    match result {
        Ok(_) => HealthCheckResult { reason: Some("done".to_owned()), ..HealthCheckResult::healthy() },
        Err(error) => HealthCheckResult::unhealthy(error.to_string()),
    }
}

/// What a user can do about it.
fn advice(error: &KernelError) -> Option<&'static str> {
    if error.kind() == &KernelErrorKind::Hung {
        return Some(
            "every attempt was longer than the stage's `hang_limit`; for a large input, give the stage more in a job file",
        );
    }
    (error.kind() == &KernelErrorKind::DeadlineExceeded).then_some("give the job more time with `--deadline`")
}

impl RunError {
    fn exit(&self) -> Exit {
        match self {
            Self::Config(_) | Self::State(StateError::OtherJob { .. }) => Exit::Config,
            Self::Webhook(_) | Self::Token(_) | Self::Clear(_) | Self::Tls(_) | Self::Kill => Exit::Usage,
            Self::State(_) => Exit::Failure,
            Self::Spawn(error) => match error {
                SpawnError::Id(_)
                | SpawnError::Config { .. }
                | SpawnError::NameTaken(_)
                | SpawnError::Name { .. }
                | SpawnError::Supervisor { .. }
                | SpawnError::SupervisorTaken(_) => Exit::Config,
                SpawnError::Start { .. } | SpawnError::Child { .. } => Exit::GaveUp,
                SpawnError::RuntimeGone | SpawnError::SupervisorGone(_) | SpawnError::Refused { .. } | _ => {
                    Exit::Failure
                }
            },
            Self::Tokio(_) | Self::Start(_) | Self::Signals(_) | Self::Serve { .. } => Exit::Failure,
        }
    }
}

/// The component that stands for the job.
const JOB: &str = "job";
/// How long the webhook may take to tell what it still has to.
const WEBHOOK_GRACE: Duration = Duration::from_secs(5);
