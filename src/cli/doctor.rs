//! `rustkernel doctor`: what this machine has of what kernels need, and what to do about the rest.

mod system;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rustkernel_core::clock::Clock;
use rustkernel_core::device::DeviceKind;
use serde::Serialize;

use super::args::{self, DoctorArgs, Format};
use super::{Exit, line, print};
use crate::cuda::{self, CudaError};
use crate::worker::{Domain, DomainConfig, DomainState};

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    about: &'static str,
    state: State,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Good,
    /// It is not there, and need not be.
    Absent,
    Bad,
}

#[derive(Debug, Serialize)]
struct Findings {
    schema: u32,
    findings: Vec<Finding>,
}

pub(super) fn doctor(args: &DoctorArgs) -> Exit {
    let mut findings =
        vec![system::cores(), system::memory(), system::open_files(), worker(), address(args.serve)];
    findings.extend(args.state.as_deref().map(system::folder));
    findings.extend([cuda_driver(args), nvml()]);
    let good = findings.iter().all(|finding| finding.state != State::Bad);
    let exit = if good { Exit::Done } else { Exit::Failure };
    let text = match args.format {
        Format::Human => human(&findings),
        Format::Json => line(&Findings { schema: 1, findings }),
    };
    print(&text).exit(exit)
}

fn human(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { about, state, found, advice } in findings {
        let mark = match state {
            State::Good => "ok",
            State::Absent => "--",
            State::Bad => "!!",
        };
        text += &format!("{mark}  {about:<16} {found}\n");
        if let Some(advice) = advice {
            text += &format!("    {:<16} {advice}\n", "");
        }
    }
    text
}

/// Starts one, as a job would.
fn worker() -> Finding {
    let clock = Clock::system();
    let began = clock.now();
    let bad = |found: String| Finding {
        about: "worker processes",
        state: State::Bad,
        found,
        advice: Some("kernels with placement \"process\" cannot run here; threads can".to_owned()),
    };
    let domain = match Domain::start(
        "doctor",
        DomainConfig { spare: false, max_deaths: 0, ..DomainConfig::default() },
    ) {
        Ok(domain) => domain,
        Err(error) => return bad(error.to_string()),
    };
    let up = domain.wait_until_decided(Duration::from_secs(15));
    let took = clock.now() - began;
    domain.close();
    match up.state {
        DomainState::Ready => {
            let found = format!("one was up after {:.1} ms", took.as_secs_f64() * 1e3);
            Finding { about: "worker processes", state: State::Good, found, advice: None }
        }
        DomainState::Starting | DomainState::Down | DomainState::Closed => {
            bad(up.last_death.unwrap_or_else(|| "none was up in time".to_owned()))
        }
    }
}

/// Whether a node could serve there now.
fn address(wanted: Option<SocketAddr>) -> Finding {
    let about = "address";
    let address = wanted.map_or_else(|| args::ADDRESS.to_owned(), |address| address.to_string());
    match TcpListener::bind(&address) {
        Ok(_) => Finding { about, state: State::Good, found: format!("{address} is free"), advice: None },
        Err(error) => {
            let state = if wanted.is_some() { State::Bad } else { State::Absent };
            let advice =
                "name another one with `run --serve`; `rustkernel status` says whether a node is there";
            Finding { about, state, found: format!("{address}: {error}"), advice: Some(advice.to_owned()) }
        }
    }
}

fn cuda_driver(args: &DoctorArgs) -> Finding {
    let wanted = args.device.filter(|device| device.kind() == DeviceKind::Cuda);
    let missing = if wanted.is_some() { State::Bad } else { State::Absent };
    let report = match cuda::report() {
        Ok(report) => report,
        Err(error) => {
            // A driver that is there and does not work is of no use to anybody.
            let is_absent = matches!(error, CudaError::NoDriver { .. } | CudaError::NoDevice);
            let state = if is_absent { missing } else { State::Bad };
            let unneeded = if state == State::Absent { "; without a GPU nothing is missing" } else { "" };
            let advice = Some(format!("{}{unneeded}", error.advice()));
            return Finding { about: "CUDA", state, found: error.to_string(), advice };
        }
    };
    let devices: Vec<String> = report
        .devices
        .iter()
        .map(|device| {
            let gib = device.memory_bytes >> 30;
            format!("{} {} ({gib} GiB, compute capability {})", device.id, device.name, device.capability)
        })
        .collect();
    let found = format!("driver of CUDA {}; {}", report.version, devices.join("; "));
    match wanted.filter(|wanted| report.devices.iter().all(|device| device.id != *wanted)) {
        Some(wanted) => {
            let advice = Some(format!("there is no {wanted} among them"));
            Finding { about: "CUDA", state: State::Bad, found, advice }
        }
        None => Finding { about: "CUDA", state: State::Good, found, advice: None },
    }
}

fn nvml() -> Finding {
    let about = "NVML";
    match cuda::nvml_driver() {
        Ok(version) => {
            Finding { about, state: State::Good, found: format!("of driver {version}"), advice: None }
        }
        Err(why) => {
            let advice = "without it nothing is known of a device's Xids, memory errors and heat; it comes with NVIDIA's driver";
            Finding { about, state: State::Absent, found: why, advice: Some(advice.to_owned()) }
        }
    }
}
