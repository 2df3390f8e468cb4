//! What can be asked for on the command line.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use rustkernel_core::DeviceId;

use crate::config::Placement;
use crate::inject::FaultMix;

/// A supervision runtime for GPU kernels.
#[derive(Debug, Parser)]
#[command(name = "rustkernel", version, after_help = EXIT_CODES, subcommand_required = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run a pipeline of supervised kernels; without arguments, PageRank of Debian's package dependencies.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Look what this machine has of what kernels need, and what to do about the rest.
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Measure what supervision costs on this machine, beside the least code that does the same.
    Bench(BenchArgs),
    /// Check a job file, or show what it comes to.
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigCommand),
    /// Write a completion script for a shell to stdout.
    Completions {
        /// For which shell.
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    Node(NodeCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Find everything that is wrong with a job before anything runs: the file, the environment's settings, kernels and their types.
    Check {
        /// The job file; the shipped pipeline if none is named.
        pipeline: Option<PathBuf>,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
    /// Print every setting of a job with its value, defaults and the environment's settings included, as a job file.
    Show {
        /// The job file; the shipped pipeline if none is named.
        pipeline: Option<PathBuf>,
        /// One field a line, with where its value is from: a line of the file, a variable, or its default.
        #[arg(long)]
        origin: bool,
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Format::Human)]
        format: Format,
    },
}

/// The commands that talk to a node that was started with `run --serve`.
#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Ask a node how it is.
    #[command(after_help = HEALTH_EXAMPLES)]
    Health(HealthArgs),
    /// Draw a node's supervision tree.
    Tree(AskArgs),
    /// What a node is doing and what is wrong, or all about one child.
    Status(NamedArgs),
    /// List a node's kernels.
    Kernels(AskArgs),
    /// List what has failed, the newest first; of one child, or of all.
    Failures(NamedArgs),
    /// End a kernel's present life: the next one begins by its recovery policy, and no request is lost. Starts one that is down.
    Restart(KernelArgs),
    /// Give an isolated kernel a new life and a full restart budget; close its breaker if that is isolated. Or use a device again, as cuda:0,
    /// that has been reset.
    Resume(KernelArgs),
    /// Hold a kernel's breaker open until it is resumed.
    Isolate(KernelArgs),
    /// Have a node take nothing new, finish what it has, and end.
    Drain(ActArgs),
    /// Requests that were given up for good.
    #[command(subcommand)]
    DeadLetters(LetterCommand),
}

/// A node to be asked.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// Where the node serves, as HOST:PORT or https://HOST:PORT.
    #[arg(long, env = "RUSTKERNEL_ADDR", value_name = "ADDR", default_value = ADDRESS)]
    pub(super) addr: NodeAddress,
    /// The certificates in PEM by which an https node is trusted, instead of those of the public authorities.
    #[arg(long, env = "RUSTKERNEL_TLS_CA", value_name = "FILE")]
    pub(super) tls_ca: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
}

/// Where a node serves, and how.
#[derive(Clone, Debug)]
pub(super) struct NodeAddress {
    https: bool,
    authority: String,
}

impl NodeAddress {
    pub(super) fn url(&self, path: &str) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}/{path}", self.authority)
    }
}

impl FromStr for NodeAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (https, authority) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some((other, _)) => return Err(format!("{other} is not spoken here, http and https are")),
            None => (false, text),
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        address(authority).map(|_| Self { https, authority: authority.to_owned() })
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.https { "https://" } else { "" }, self.authority)
    }
}

/// A node to be asked about a child.
#[derive(Debug, Args)]
pub(super) struct NamedArgs {
    /// The child, as `graph/pagerank`.
    pub(super) name: Option<String>,
    #[command(flatten)]
    pub(super) ask: AskArgs,
}

/// A node that is to do something, which takes its token.
#[derive(Debug, Args)]
pub(super) struct ActArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// The file with the node's token; without it, the variable `RUSTKERNEL_TOKEN` has it.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct KernelArgs {
    /// The kernel, as `graph/pagerank`.
    pub(super) name: String,
    #[command(flatten)]
    pub(super) act: ActArgs,
}

#[derive(Debug, Subcommand)]
pub(super) enum LetterCommand {
    /// List those that are kept, the newest first.
    List(AskArgs),
    /// All about one.
    Show {
        /// Its number.
        letter: u64,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Try one again; answered, it is gone.
    Replay {
        /// Its number.
        letter: u64,
        #[command(flatten)]
        act: ActArgs,
    },
    /// Forget one.
    Drop {
        /// Its number.
        letter: u64,
        #[command(flatten)]
        act: ActArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The job file; the shipped pipeline if none is named.
    pub(super) pipeline: Option<PathBuf>,
    /// The edge list, plain or gzip; the shipped graph if none is named.
    #[arg(long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// The longest that the job may take, as 10s or 1m30s; goes before the job file's.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(super) deadline: Option<Duration>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
    /// Where every kernel runs, whatever the job file says.
    #[arg(long, value_enum)]
    pub(super) placement: Option<Placement>,
    /// The device for every kernel that has a version for it, as cuda:0: in that device's worker process, or with --placement thread in
    /// this process, which a fault then costs.
    #[arg(long)]
    pub(super) device: Option<DeviceId>,
    /// Make attempts fail, with these probabilities: panic=0.2,error=0.2,hang=0.05; or kill=0.1, in worker processes.
    #[arg(long, value_name = "FAULTS")]
    pub(super) inject: Option<FaultMix>,
    /// Draws the injected faults: the same seed, the same faults.
    #[arg(long, default_value_t = 0, requires = "inject")]
    pub(super) seed: u64,
    /// Keep the job in this folder, so that it survives the process: the same command goes on from there.
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// Tell an operator, by a POST to this address, what needs one: kernels that are isolated, degraded or failed over, dead letters.
    #[arg(long, value_name = "URL")]
    pub(super) webhook: Option<String>,
    /// Serve health, the node's state and the live page, and stay after the job until SIGTERM. Port 0 takes a free one; stderr tells which.
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = ADDRESS, value_parser = address)]
    pub(super) serve: Option<SocketAddr>,
    /// How long a node that drains says that it is not ready, and goes on as before, so that others stop sending it work; then it takes
    /// nothing new. A second signal cuts it short, and a job that is still under way.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration, requires = "serve")]
    pub(super) drain_delay: Duration,
    /// How long what is under way may take when the node stops, before it is ended.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(super) grace: Duration,
    /// The certificate that is shown to whoever asks this node, in PEM, its own first: it then serves https. Needed where the address is not
    /// a loopback one.
    #[arg(long, value_name = "FILE", requires_all = ["serve", "tls_key"])]
    pub(super) tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(super) tls_key: Option<PathBuf>,
    /// The file with the token that actions on this node need; without it, the variable `RUSTKERNEL_TOKEN` has it, and without
    /// either there are no actions.
    #[arg(long, value_name = "FILE", requires = "serve")]
    pub(super) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// A device that has to be there, as cuda:0; without it a machine that has no GPU is as good as another.
    #[arg(long)]
    pub(super) device: Option<DeviceId>,
    /// A folder that a job is to be kept in.
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// An address that a node is to serve on; by default that of `run --serve`, which then need not be free.
    #[arg(long, value_name = "ADDR", value_parser = address)]
    pub(super) serve: Option<SocketAddr>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Rounds of each measurement.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) rounds: u32,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub(super) format: Format,
}

#[derive(Debug, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// Only this component: `runtime`, `job`, or a kernel as `graph/pagerank`.
    #[arg(long, value_name = "NAME")]
    pub(super) component: Option<String>,
    /// Only whether the node is live, ready or started, as a probe asks: 0 if it is, 3 if not.
    #[arg(long, value_enum, conflicts_with = "component")]
    pub(super) probe: Option<Probe>,
}

/// What a probe asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Probe {
    /// Whether a restart of the process would help nothing.
    Live,
    /// Whether the node takes work.
    Ready,
    /// Whether its kernels have been started.
    Startup,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables.
    Human,
    /// One JSON document.
    Json,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|error| format!("{error}; it takes HOST:PORT"))?;
    found.next().ok_or_else(|| "no such host".to_owned())
}

pub(super) const ADDRESS: &str = "127.0.0.1:9470";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed: bad input, deadline over, cut short
  2    wrong usage, or an unknown component
  3    degraded or not ready (health, tree, status, kernels)
  4    no node answers
  70   gave up: attempts or restarts are used up
  75   a CUDA device is lost to this process: start it again
  78   the configuration is invalid
  130  interrupted";

const RUN_EXAMPLES: &str = "\
Examples:
  rustkernel run
  rustkernel run --input edges.txt.gz --deadline 10s --format json
  rustkernel run --inject panic=0.2,error=0.2,hang=0.05 --seed 7
  rustkernel run --placement process --inject kill=0.1 --seed 7
  rustkernel run --device cuda:0
  rustkernel run --state job-state
  rustkernel run pipeline.toml --serve 127.0.0.1:9470 --token-file token
  rustkernel run pipeline.toml --serve 0.0.0.0:9470 --tls-cert node.pem --tls-key node.key";

const CONFIG_EXAMPLES: &str = "\
Examples:
  rustkernel config check job.toml
  RUSTKERNEL__STAGE__1__PLACEMENT=process rustkernel config show job.toml --origin";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  rustkernel doctor
  rustkernel doctor --device cuda:0 --format json
  rustkernel doctor --state job-state --serve 127.0.0.1:9470";

const HEALTH_EXAMPLES: &str = "\
Examples:
  rustkernel health
  rustkernel health --format json
  rustkernel health --component graph/pagerank
  rustkernel health --probe ready";
