//! As much of a module's PTX text as its loading decides on.

use crate::code::Code;

/// Why an image is refused: the code, and what the assembler says.
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) log: String,
}

/// The names of an image's kernels.
pub(crate) fn kernels(image: &[u8]) -> Result<Vec<String>, Refusal> {
    if image.starts_with(b"\x7fELF") {
        return Err(Refusal { code: Code::NO_BINARY_FOR_GPU, log: String::new() });
    }
    let text = String::from_utf8_lossy(image);
    let version = text.lines().find_map(|line| line.trim_start().strip_prefix(".version"));
    let Some((major, minor)) = version.and_then(parse) else {
        let log = "ptxas fatal   : Missing .version directive at start of file";
        return Err(Refusal { code: Code::INVALID_PTX, log: log.to_owned() });
    };
    if (major, minor) > NEWEST {
        let log = format!("ptxas fatal   : Unsupported .version {major}.{minor}");
        return Err(Refusal { code: Code::UNSUPPORTED_PTX_VERSION, log });
    }
    let entries = text.split(".entry").skip(1).filter_map(|rest| rest.split_once('('));
    Ok(entries.map(|(name, _)| name.trim().to_owned()).collect())
}

/// The newest version that a driver of CUDA 13.0 reads.
const NEWEST: (u32, u32) = (9, 0);

fn parse(rest: &str) -> Option<(u32, u32)> {
    let (major, minor) = rest.split_whitespace().next()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
