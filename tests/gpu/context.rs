//! A context by hand, with what the rows do in it. Nothing is given back: the process of a row ends soon.

#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ffi::{CString, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::device::FAULTS;
use crate::raw::{Address, Code, Driver, Handle, HostFunction};
use crate::row::Halt;

/// The driver, initialised, and its first device.
pub(crate) struct Raw {
    pub(crate) driver: Driver,
    pub(crate) device: c_int,
}

impl Raw {
    pub(crate) fn open() -> Result<Self, Halt> {
        Self::of(Driver::open()?)
    }

    /// Initialises the driver.
    pub(crate) fn of(driver: Driver) -> Result<Self, Halt> {
        let mut device = 0;
        // SAFETY: there is room for the number.
        unsafe {
            driver.cuInit(0)?.ok("cuInit")?;
            driver.cuDeviceGet(&raw mut device, 0)?.ok("cuDeviceGet")?;
        }
        Ok(Self { driver, device })
    }

    /// The device's primary context, current on this thread.
    pub(crate) fn primary(&self) -> Result<Context<'_>, Halt> {
        let mut handle = ptr::null_mut();
        // SAFETY: there is room for the handle.
        let retained = unsafe { self.driver.cuDevicePrimaryCtxRetain(&raw mut handle, self.device)? };
        retained.ok("cuDevicePrimaryCtxRetain")?;
        self.entered(handle)
    }

    /// A context of its own, current on this thread.
    pub(crate) fn own(&self) -> Result<Context<'_>, Halt> {
        self.own_with(0)
    }

    /// The same with flags of `cuCtxCreate`.
    pub(crate) fn own_with(&self, flags: u32) -> Result<Context<'_>, Halt> {
        let mut handle = ptr::null_mut();
        // SAFETY: as above.
        unsafe { self.driver.cuCtxCreate_v2(&raw mut handle, flags, self.device)? }.ok("cuCtxCreate")?;
        self.entered(handle)
    }

    fn entered(&self, handle: Handle) -> Result<Context<'_>, Halt> {
        let context = Context { driver: &self.driver, handle };
        context.enter()?.ok("cuCtxSetCurrent")?;
        Ok(context)
    }

    /// Gives the primary context back.
    pub(crate) fn release(&self) -> Result<Code, Halt> {
        // SAFETY: it takes a number; whoever uses the context afterwards is told that it is gone. So in the two that follow.
        unsafe { self.driver.cuDevicePrimaryCtxRelease_v2(self.device) }
    }

    /// Destroys the primary context, whoever has it.
    pub(crate) fn reset(&self) -> Result<Code, Halt> {
        // SAFETY: as above.
        unsafe { self.driver.cuDevicePrimaryCtxReset_v2(self.device) }
    }

    /// One of `CUdevice_attribute`.
    pub(crate) fn attribute(&self, number: c_int) -> Result<c_int, Halt> {
        let mut value = 0;
        // SAFETY: there is room for the number.
        let code = unsafe { self.driver.cuDeviceGetAttribute(&raw mut value, number, self.device)? };
        code.ok("cuDeviceGetAttribute").map(|()| value)
    }
}

/// A context. Its calls are made on threads on which it is current.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) driver: &'a Driver,
    pub(crate) handle: Handle,
}

// SAFETY: the handle is a number to the driver, which any thread may give it.
unsafe impl Send for Context<'_> {}
// SAFETY: as above.
unsafe impl Sync for Context<'_> {}

/// Pinned memory: one word that both sides see.
#[derive(Clone, Copy)]
pub(crate) struct Word {
    here: *mut c_void,
    pub(crate) there: Address,
}

/// A function that is loaded, and the words that it writes.
pub(crate) struct Ready {
    function: Handle,
    out: Address,
}

/// An argument of a launch.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    Address(Address),
    U32(u32),
    U64(u64),
    F32(f32),
}

impl<'a> Context<'a> {
    /// Makes it the current one of this thread.
    pub(crate) fn enter(&self) -> Result<Code, Halt> {
        // SAFETY: whether the handle is still alive is the driver's to say.
        unsafe { self.driver.cuCtxSetCurrent(self.handle) }
    }

    /// Destroys it, if it is no primary one.
    pub(crate) fn destroy(&self) -> Result<Code, Halt> {
        // SAFETY: as above.
        unsafe { self.driver.cuCtxDestroy_v2(self.handle) }
    }

    /// Free and total memory, in bytes.
    pub(crate) fn memory(&self) -> Result<(usize, usize), Halt> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: there is room for the numbers.
        unsafe { self.driver.cuMemGetInfo_v2(&raw mut free, &raw mut total)? }.ok("cuMemGetInfo")?;
        Ok((free, total))
    }

    pub(crate) fn module(&self, ptx: &str) -> Result<(Code, Handle), Halt> {
        let text = CString::new(ptx).map_err(Halt::fail)?;
        let mut module = ptr::null_mut();
        // SAFETY: the text ends in zero; there are no options.
        let code = unsafe {
            let (none, image) = (ptr::null_mut(), text.as_ptr().cast());
            self.driver.cuModuleLoadDataEx(&raw mut module, image, 0, ptr::null(), none)?
        };
        Ok((code, module))
    }

    /// A function of faults.cu.
    pub(crate) fn function(&self, name: &str) -> Result<Handle, Halt> {
        let (code, module) = self.module(FAULTS)?;
        code.ok("cuModuleLoadDataEx")?;
        let (code, function) = self.find(module, name)?;
        code.ok("cuModuleGetFunction").map(|()| function)
    }

    pub(crate) fn find(&self, module: Handle, name: &str) -> Result<(Code, Handle), Halt> {
        let name = CString::new(name).map_err(Halt::fail)?;
        let mut function = ptr::null_mut();
        // SAFETY: there is room for the handle, the name ends in zero.
        let code =
            unsafe { self.driver.cuModuleGetFunction(&raw mut function, module, name.as_ptr().cast())? };
        Ok((code, function))
    }

    /// A stream that waits for no other.
    pub(crate) fn stream(&self) -> Result<Handle, Halt> {
        let mut stream = ptr::null_mut();
        // SAFETY: there is room for the handle.
        unsafe { self.driver.cuStreamCreate(&raw mut stream, NON_BLOCKING)? }.ok("cuStreamCreate")?;
        Ok(stream)
    }

    pub(crate) fn alloc(&self, bytes: usize) -> Result<(Code, Address), Halt> {
        let mut address = 0;
        // SAFETY: there is room for the address.
        let code = unsafe { self.driver.cuMemAlloc_v2(&raw mut address, bytes)? };
        Ok((code, address))
    }

    /// So many words of zero.
    pub(crate) fn zeros(&self, words: usize, stream: Handle) -> Result<Address, Halt> {
        let bytes = words * size_of::<u32>();
        let (code, address) = self.alloc(bytes)?;
        code.ok("cuMemAlloc")?;
        // SAFETY: so many bytes are there.
        unsafe { self.driver.cuMemsetD8Async(address, 0, bytes, stream)? }.ok("cuMemsetD8Async")?;
        Ok(address)
    }

    pub(crate) fn free(&self, address: Address) -> Result<Code, Halt> {
        // SAFETY: an address that is none is refused; whoever frees has no more use for it.
        unsafe { self.driver.cuMemFree_v2(address) }
    }

    /// Pinned memory of so many bytes.
    pub(crate) fn pinned(&self, bytes: usize) -> Result<*mut u8, Halt> {
        let mut start = ptr::null_mut();
        // SAFETY: there is room for the address.
        unsafe { self.driver.cuMemAllocHost_v2(&raw mut start, bytes)? }.ok("cuMemAllocHost")?;
        Ok(start.cast())
    }

    pub(crate) fn word(&self) -> Result<Word, Halt> {
        let here: *mut c_void = self.pinned(size_of::<u32>())?.cast();
        let mut there = 0;
        // SAFETY: the memory is pinned, and there is room for the address.
        unsafe { self.driver.cuMemHostGetDevicePointer_v2(&raw mut there, here, 0)? }
            .ok("cuMemHostGetDevicePointer")?;
        let word = Word { here, there };
        word.set(0);
        Ok(word)
    }

    /// Launches a function of faults.cu, one-dimensional, with the arguments that it declares there.
    pub(crate) fn launch(
        &self,
        function: Handle,
        [blocks, threads]: [u32; 2],
        stream: Handle,
        arguments: &[Value],
    ) -> Result<Code, Halt> {
        let mut places = [ptr::null::<c_void>(); MAX_ARGUMENTS];
        for (place, argument) in places.iter_mut().zip(arguments) {
            *place = argument.place();
        }
        // SAFETY: they are read before it returns. A device that is given a wrong address faults, and touches nothing of this process.
        unsafe {
            let none = ptr::null();
            self.driver.cuLaunchKernel(
                function,
                blocks,
                1,
                1,
                threads,
                1,
                1,
                0,
                stream,
                places.as_ptr(),
                none,
            )
        }
    }

    /// `rk_add` over one word.
    pub(crate) fn add(&self, function: Handle, stream: Handle, data: Address, by: u32) -> Result<Code, Halt> {
        let arguments = [Value::Address(data), Value::U32(1), Value::U32(by)];
        self.launch(function, [1, 1], stream, &arguments)
    }

    /// A function of faults.cu, loaded, with the words that it writes: a load may wait for what runs.
    pub(crate) fn ready(&self, name: &str) -> Result<Ready, Halt> {
        let stream = self.stream()?;
        let ready = Ready { function: self.function(name)?, out: self.zeros(2, stream)? };
        self.settle(stream)?.ok("cuStreamQuery").map(|()| ready)
    }

    /// `rk_spin`, which ends by `stop` or after `limit_ns`.
    pub(crate) fn spin(
        &self,
        spin: &Ready,
        stream: Handle,
        stop: Address,
        limit_ns: u64,
    ) -> Result<Code, Halt> {
        let arguments = [Value::Address(stop), Value::U64(limit_ns), Value::Address(spin.out)];
        self.launch(spin.function, [1, 1], stream, &arguments)
    }

    /// Has the device write `value` into a word when the stream gets there.
    pub(crate) fn write(&self, stream: Handle, word: Word, value: u32) -> Result<Code, Halt> {
        // SAFETY: the word lives until the process ends.
        unsafe { self.driver.cuStreamWriteValue32_v2(stream, word.there, value, 0) }
    }

    pub(crate) fn query(&self, stream: Handle) -> Result<Code, Halt> {
        // SAFETY: a handle that is none is the driver's to refuse.
        unsafe { self.driver.cuStreamQuery(stream) }
    }

    pub(crate) fn synchronize(&self, stream: Handle) -> Result<Code, Halt> {
        // SAFETY: as above.
        unsafe { self.driver.cuStreamSynchronize(stream) }
    }

    /// Asks until the stream's work is over, one way or the other.
    pub(crate) fn settle(&self, stream: Handle) -> Result<Code, Halt> {
        loop {
            match self.query(stream)? {
                Code::NOT_READY => std::hint::spin_loop(),
                code => return Ok(code),
            }
        }
    }

    /// Copies so many words from the device, and waits for them.
    pub(crate) fn read(&self, from: Address, words: usize, stream: Handle) -> Result<(Code, Vec<u32>), Halt> {
        let mut values = vec![0_u32; words];
        let bytes = words * size_of::<u32>();
        // SAFETY: there is room; such memory is the caller's again when the copy returns, and is waited for all the same.
        let copied =
            unsafe { self.driver.cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), from, bytes, stream)? };
        let waited = self.synchronize(stream)?;
        Ok((if copied == Code::SUCCESS { waited } else { copied }, values))
    }

    /// Has `function` called when the stream gets there.
    pub(crate) fn host(
        &self,
        stream: Handle,
        function: HostFunction,
        count: &'static AtomicU32,
    ) -> Result<Code, Halt> {
        let data = ptr::from_ref(count).cast_mut().cast();
        // SAFETY: the function takes such a pointer, and what it points to lives for ever.
        unsafe { self.driver.cuLaunchHostFunc(stream, function, data) }
    }

    /// A stream, a word and a sum whose answer is known; what is wrong with it, if anything is.
    pub(crate) fn canary(&self) -> Result<(), Halt> {
        let stream = self.stream()?;
        let data = self.zeros(1, stream)?;
        self.add(self.function("rk_add")?, stream, data, 41)?.ok("cuLaunchKernel")?;
        let (code, values) = self.read(data, 1, stream)?;
        code.ok("cuMemcpyDtoHAsync")?;
        if values == [41] { Ok(()) } else { Err(Halt::Fail(format!("0 + 41 is {values:?} there"))) }
    }

    /// Launches a fault on `stream`.
    pub(crate) fn fault(&self, fault: &Ready, stream: Handle) -> Result<Code, Halt> {
        // All but one take the first alone.
        let arguments = [Value::Address(fault.out), Value::U32(1 << 20)];
        self.launch(fault.function, [1, 1], stream, &arguments)
    }
}

impl Word {
    pub(crate) fn set(&self, value: u32) {
        self.atomic().store(value, Ordering::Release);
    }

    pub(crate) fn value(&self) -> u32 {
        self.atomic().load(Ordering::Acquire)
    }

    fn atomic(&self) -> &AtomicU32 {
        // SAFETY: it is pinned until the process ends, aligned, and touched by nobody but by whole stores.
        unsafe { AtomicU32::from_ptr(self.here.cast()) }
    }
}

impl Value {
    fn place(&self) -> *const c_void {
        match self {
            Self::Address(value) | Self::U64(value) => ptr::from_ref(value).cast(),
            Self::U32(value) => ptr::from_ref(value).cast(),
            Self::F32(value) => ptr::from_ref(value).cast(),
        }
    }
}

/// `CU_STREAM_NON_BLOCKING`.
const NON_BLOCKING: u32 = 1;
const MAX_ARGUMENTS: usize = 4;
