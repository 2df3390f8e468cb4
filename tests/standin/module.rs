//! Modules and their functions.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use crate::call::{self, Out};
use crate::code::Code;
use crate::device::{MAX_SHARED_BYTES, MAX_THREADS_PER_BLOCK};
use crate::handle::Handles;
use crate::kernels::{self, Kernel};
use crate::{ptx, script};

/// A kernel of a module.
pub(crate) struct Function {
    pub(crate) kernel: &'static Kernel,
    module: usize,
}

struct Module {
    kernels: Vec<String>,
}

pub(crate) static FUNCTIONS: Handles<Function> = Handles::new(0xf000_0000);
static MODULES: Handles<Module> = Handles::new(0xd000_0000);

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleLoadDataEx(
    module: Out<usize>,
    image: *const c_char,
    count: c_uint,
    options: *const c_int,
    values: *mut *mut c_void,
) -> c_int {
    call::in_context("cuModuleLoadDataEx", |_| {
        if image.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: a text ends with a zero; and a binary has one in its head.
        let image = unsafe { CStr::from_ptr(image) };
        // SAFETY: the caller gives `count` options and as many values.
        let log = unsafe { Log::find(count, options, values) };
        match ptx::kernels(image.to_bytes()) {
            Ok(kernels) => {
                log.write("");
                script::note_load(&kernels);
                module.set(MODULES.insert(Module { kernels }))
            }
            Err(refusal) => {
                log.write(&refusal.log);
                Err(refusal.code)
            }
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(module: usize) -> c_int {
    call::in_context("cuModuleUnload", |_| {
        MODULES.remove(module)?;
        FUNCTIONS.retain(|function| function.module != module);
        Ok(())
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn cuModuleGetFunction(function: Out<usize>, module: usize, name: *const c_char) -> c_int {
    call::in_context("cuModuleGetFunction", |_| {
        let kernels = &MODULES.find(module)?.kernels;
        if name.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's text ends with a zero.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        if !kernels.iter().any(|kernel| *kernel == name) {
            return Err(Code::NOT_FOUND);
        }
        let kernel = kernels::find(&name).ok_or(Code::NOT_SUPPORTED)?;
        function.set(FUNCTIONS.insert(Function { kernel, module }))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncGetAttribute(value: Out<c_int>, attribute: c_int, function: usize) -> c_int {
    call::in_context("cuFuncGetAttribute", |_| {
        FUNCTIONS.find(function)?;
        let threads = c_int::try_from(MAX_THREADS_PER_BLOCK).unwrap_or(c_int::MAX);
        value.set(if attribute == 0 { threads } else { 0 })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(function: usize, attribute: c_int, value: c_int) -> c_int {
    call::in_context("cuFuncSetAttribute", |_| {
        FUNCTIONS.find(function)?;
        match attribute {
            MAX_DYNAMIC_SHARED_BYTES if u32::try_from(value).is_ok_and(|bytes| bytes <= MAX_SHARED_BYTES) => {
                Ok(())
            }
            SHARED_CARVEOUT => Ok(()),
            _ => Err(Code::INVALID_VALUE),
        }
    })
}

/// By the numbers of `CUfunction_attribute`.
const MAX_DYNAMIC_SHARED_BYTES: c_int = 8;
const SHARED_CARVEOUT: c_int = 9;

/// Where the caller wants to read what the assembler says of an error.
struct Log {
    buffer: *mut u8,
    bytes: usize,
    /// Where the length of what was written goes.
    written: *mut *mut c_void,
}

impl Log {
    /// # Safety
    /// There are `count` options and as many values.
    unsafe fn find(count: c_uint, options: *const c_int, values: *mut *mut c_void) -> Self {
        let mut log = Self { buffer: std::ptr::null_mut(), bytes: 0, written: std::ptr::null_mut() };
        for at in 0..count as usize {
            // SAFETY: `at` is below `count`.
            let (option, value) = unsafe { (*options.add(at), values.add(at)) };
            // SAFETY: it is a place among the values.
            let content = unsafe { *value };
            match option {
                ERROR_LOG_BUFFER => log.buffer = content.cast(),
                // A number in the place of a pointer.
                ERROR_LOG_BUFFER_BYTES => (log.bytes, log.written) = (content.addr(), value),
                _ => {}
            }
        }
        log
    }

    /// Writes as much of the text as there is room for, and a zero.
    fn write(&self, text: &str) {
        let Some(room) = self.bytes.checked_sub(1).filter(|_| !self.buffer.is_null()) else { return };
        let len = text.len().min(room);
        // SAFETY: the caller's buffer has `bytes` bytes, and the place of their number is the caller's too.
        unsafe {
            self.buffer.copy_from_nonoverlapping(text.as_ptr(), len);
            self.buffer.add(len).write(0);
            self.written.write(std::ptr::without_provenance_mut(len));
        }
    }
}

/// By the numbers of `CUjit_option`.
const ERROR_LOG_BUFFER: c_int = 5;
const ERROR_LOG_BUFFER_BYTES: c_int = 6;
