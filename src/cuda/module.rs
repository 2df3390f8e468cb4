//! Code for a device: compiled, loaded, found by name.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::ptr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::nvrtc::{self, CompileError, CompileOptions};
use rustkernel_core::DeviceId;
use rustkernel_core::excerpt::{MAX_REASON_BYTES, excerpt};
use rustkernel_core::fault::cuda;

use super::CudaError;
use super::device::Device;
use super::function::Function;
use super::table::Handle;

/// Code for a device, in one of its forms.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Image<'a> {
    /// CUDA C++, compiled when it is loaded, for the device that it is loaded on. Needs the library of NVRTC 13.0.
    Source(&'a str),
    /// PTX, compiled by the driver. Its version may not be newer than the driver's CUDA version.
    Ptx(&'a str),
    /// A cubin for this very device. It has to be whole: the driver is not told how long it is.
    Cubin(&'a [u8]),
}

/// An image that is loaded, until the process ends: whoever loads the same again gets the same.
#[derive(Clone)]
pub struct Module(Arc<Loaded>);

struct Loaded {
    device: Device,
    handle: usize,
}

/// The modules of a device, by what they were made from.
#[derive(Default)]
pub(super) struct Images(Mutex<HashMap<Vec<u8>, Place>>);

/// The handle of a module, when it has been loaded.
type Place = Arc<Mutex<Option<usize>>>;

type WhenLoaded = Box<dyn Fn(DeviceId, Image<'_>) + Send + Sync>;

static WHEN_LOADED: OnceLock<WhenLoaded> = OnceLock::new();

/// Has `tell` called with each image that a kernel was the first to load, on its thread. A second one is not heard.
#[cfg(all(feature = "worker", target_os = "linux"))]
pub(crate) fn when_loaded(tell: impl Fn(DeviceId, Image<'_>) + Send + Sync + 'static) {
    let _first = WHEN_LOADED.set(Box::new(tell));
}

impl Device {
    /// Loads an image, compiling it if it has to be.
    ///
    /// # Errors
    /// [`CudaError::Compile`] and [`CudaError::Image`] with what the compiler says, [`CudaError::NoCompiler`] where source cannot be
    /// compiled; [`CudaError::Lost`].
    pub fn load(&self, image: Image<'_>) -> Result<Module, CudaError> {
        let (handle, is_new) = self.find_or_load(image)?;
        if let Some(tell) = WHEN_LOADED.get().filter(|_| is_new) {
            tell(self.id(), image);
        }
        Ok(Module(Arc::new(Loaded { device: self.clone(), handle })))
    }

    /// Loads an image for whoever will want it.
    #[cfg(all(feature = "worker", target_os = "linux"))]
    pub(crate) fn prepare(&self, image: Image<'_>) -> Result<(), CudaError> {
        self.find_or_load(image).map(drop)
    }

    /// Its handle, and whether nobody had loaded it before.
    fn find_or_load(&self, image: Image<'_>) -> Result<(usize, bool), CudaError> {
        let key = match image {
            Image::Source(text) | Image::Ptx(text) => text.as_bytes(),
            Image::Cubin(bytes) => bytes,
        };
        let place = {
            let mut images = self.images().0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(images.entry(key.to_vec()).or_default())
        };
        // Held while it is loaded: who comes second waits for the first.
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = *place {
            return Ok((handle, false));
        }
        match self.load_new(image) {
            Ok(handle) => Ok((*place.insert(handle), true)),
            Err(error) => {
                // Nothing is kept of what does not load: it may be long, and may load the next time.
                self.images().0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
                Err(error)
            }
        }
    }

    fn load_new(&self, image: Image<'_>) -> Result<usize, CudaError> {
        match image {
            Image::Source(source) => {
                self.load_text(&compile(source, self.info().capability.major, self.info().capability.minor)?)
            }
            Image::Ptx(ptx) => self.load_text(ptx),
            Image::Cubin(bytes) if is_whole(bytes) => self.load_bytes(bytes.as_ptr().cast()),
            Image::Cubin(_) => Err(CudaError::Image {
                fault: cuda::classify(INVALID_IMAGE),
                log: ": it is no whole cubin".into(),
            }),
        }
    }

    fn load_text(&self, ptx: &str) -> Result<usize, CudaError> {
        let text = c_string(ptx)?;
        self.load_bytes(text.as_ptr().cast())
    }

    /// `image` is a text that ends in zero, or a whole cubin.
    fn load_bytes(&self, image: *const c_void) -> Result<usize, CudaError> {
        let mut log = [0_u8; LOG_BYTES];
        let options = [JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES];
        // The driver writes the length of the log back into the second one.
        let mut values: [*mut c_void; 2] =
            [log.as_mut_ptr().cast(), ptr::without_provenance_mut(LOG_BYTES - 1)];
        let mut handle: Handle = ptr::null_mut();
        // SAFETY: the image is what the caller says; there is room for the handle, and for as much of a log as is said.
        let loaded = self.call("cuModuleLoadDataEx", |calls| unsafe {
            let count = u32::try_from(options.len()).unwrap_or(0);
            (calls.cuModuleLoadDataEx)(&raw mut handle, image, count, options.as_ptr(), values.as_mut_ptr())
        });
        match loaded {
            Ok(()) => Ok(handle as usize),
            Err(CudaError::Call { fault, .. }) => {
                let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
                let text = String::from_utf8_lossy(&log[..end]);
                let text = text.trim();
                let log = if text.is_empty() { String::new() } else { format!(": {text}") };
                Err(CudaError::Image { fault, log })
            }
            Err(error) => Err(error),
        }
    }
}

impl Module {
    /// One of its functions: in CUDA C++ an `extern "C" __global__` one.
    ///
    /// # Errors
    /// [`CudaError::Call`] where it has none of this name; [`CudaError::Lost`].
    pub fn function(&self, name: &str) -> Result<Function, CudaError> {
        let text = c_string(name)?;
        let device = &self.0.device;
        let mut function: Handle = ptr::null_mut();
        // SAFETY: there is room for the handle, the module is loaded, the name ends in zero.
        device.call("cuModuleGetFunction", |calls| unsafe {
            let name: *const c_char = text.as_ptr();
            (calls.cuModuleGetFunction)(&raw mut function, self.0.handle as Handle, name)
        })?;
        Function::new(device, name, function)
    }
}

/// Compiles CUDA C++ to PTX for a capability.
fn compile(source: &str, major: u32, minor: u32) -> Result<String, CudaError> {
    // SAFETY: the library's initialisers run; whoever installed it trusts them.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err(CudaError::NoCompiler);
    }
    c_string(source)?;
    let options = CompileOptions {
        options: vec![format!("--gpu-architecture=compute_{major}{minor}")],
        ..CompileOptions::default()
    };
    match nvrtc::compile_ptx_with_opts(source, options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(CompileError::CompileError { log, .. }) => {
            Err(CudaError::Compile { log: explain(source, &log.to_string_lossy()) })
        }
        Err(error) => Err(CudaError::Compile { log: error.to_string() }),
    }
}

/// The compiler's log, and the first line of the source that it names.
fn explain(source: &str, log: &str) -> String {
    let log = excerpt(log.trim(), LOG_BYTES.min(4 * MAX_REASON_BYTES));
    let named = log.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    let number = named.and_then(|(number, _)| number.parse::<usize>().ok());
    let line =
        number.and_then(|number| source.lines().nth(number.checked_sub(1)?).map(|line| (number, line)));
    match line {
        Some((number, line)) => format!("{log}\nline {number}: {}", excerpt(line.trim(), 200)),
        None => log,
    }
}

fn c_string(text: &str) -> Result<CString, CudaError> {
    CString::new(text).map_err(|_| CudaError::ZeroByte { text: excerpt(text, 40) })
}

/// Whether it is an ELF file of 64 bits that has everything its headers speak of: the driver is not told how long it is, and reads what
/// they say.
fn is_whole(bytes: &[u8]) -> bool {
    let number = |at: usize, width: usize| {
        let mut word = [0; 8];
        word[..width].copy_from_slice(bytes.get(at..at.checked_add(width)?)?);
        usize::try_from(u64::from_le_bytes(word)).ok()
    };
    let fits = |start: usize, length: usize| start.checked_add(length).filter(|end| *end <= bytes.len());
    let table = |start: usize, width: usize, count: usize| {
        let (start, width, count) = (number(start, 8)?, number(width, 2)?, number(count, 2)?);
        fits(start, width.checked_mul(count)?).map(|_| (start, width, count))
    };
    let sections = || {
        table(PROGRAM_HEADERS[0], PROGRAM_HEADERS[1], PROGRAM_HEADERS[2])?;
        let (start, width, count) = table(SECTION_HEADERS[0], SECTION_HEADERS[1], SECTION_HEADERS[2])?;
        for header in (0..count).map(|index| start + index * width) {
            let (kind, offset, size) =
                (number(header + 4, 4)?, number(header + 24, 8)?, number(header + 32, 8)?);
            if kind != NO_BITS {
                fits(offset, size)?;
            }
        }
        Some(())
    };
    bytes.starts_with(ELF) && sections().is_some()
}

const ELF: &[u8] = b"\x7fELF\x02\x01";
/// Where an ELF header says where a table is, how wide its entries are, and how many there are.
const PROGRAM_HEADERS: [usize; 3] = [0x20, 0x36, 0x38];
const SECTION_HEADERS: [usize; 3] = [0x28, 0x3a, 0x3c];
/// `SHT_NOBITS`: a section of which nothing is in the file.
const NO_BITS: usize = 8;
const INVALID_IMAGE: c_int = 200;
/// `CU_JIT_ERROR_LOG_BUFFER` and `CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES`.
const JIT_ERROR_LOG: c_int = 5;
const JIT_ERROR_LOG_BYTES: c_int = 6;
const LOG_BYTES: usize = 4 << 10;

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("device", &self.0.device).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_the_compiler_names_is_shown() {
        let source = "extern \"C\" __global__ void f() {\n    int x = y;\n}\n";
        let log = "default_program(2): error: identifier \"y\" is undefined\n";
        assert!(explain(source, log).ends_with("line 2: int x = y;"));
        assert_eq!(explain(source, "default_program(99): error"), "default_program(99): error");
        assert_eq!(explain(source, "no line"), "no line");
    }

    /// This program is such a file, too.
    #[test]
    fn an_image_that_is_cut_anywhere_is_not_whole() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(is_whole(&whole));
        for length in [0, 4, 6, 63, 64, whole.len() / 2, whole.len() - 1] {
            assert!(!is_whole(&whole[..length]), "{length}");
        }
        let mut far = whole;
        far[SECTION_HEADERS[0]..SECTION_HEADERS[0] + 8].fill(0xff);
        assert!(!is_whole(&far));
    }

    #[test]
    fn a_zero_byte_is_refused_before_anything_is_called() {
        assert!(matches!(c_string("a\0b"), Err(CudaError::ZeroByte { .. })));
    }
}
