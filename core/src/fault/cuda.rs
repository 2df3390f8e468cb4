//! The error codes of the CUDA driver API.
//!
//! The source is the enum `CUresult` of `cuda.h`, as far as CUDA 13.4. Codes are plain numbers here: a driver answers with codes that a
//! compiled enum does not have, and to read such a code as an enum is undefined behaviour.
//!
//! | class | codes |
//! |---|---|
//! | not an error | 0 success; 600 not ready; what was enabled, registered, started or active already |
//! | caller | arguments, handles, order of calls, launch shapes, what this device or driver cannot do |
//! | resource | 2 memory, 46 device in use, 711 peers, 807-809 MPS server full, 909 a wait that lapsed, 919 fabric |
//! | image | 200, 209, 218, 221-223, 225, 227, 300-303, 811, 812, 913 |
//! | capture | 900-908, 910, 917, 918 |
//! | kernel exception | 700, 714-719, 721 |
//! | assert; watchdog; contained | 710; 702; 226 |
//! | hardware memory | 214, 220 |
//! | external device; MPS | 911; 805, 806, 810 |
//! | context gone | 4, 709 |
//! | device lost | 3, 34, 100-102, 304, 802-804, 916 |
//! | unknown | 999, and every other number |
//!
//! Two are decided for the worse, because the code alone does not tell. 911 is sticky only where the error was asynchronous; 3 is a
//! device lost because the runtime makes no call before it has initialised the driver.

use super::FaultClass::{
    self, Assert, Caller, Capture, Contained, ContextGone, DeviceLost, ExternalDevice, HardwareMemory, Image,
    KernelException, MpsConnection, MpsTerminated, NotAnError, Resource, Unknown, Watchdog,
};
use super::{Fault, FaultCode};

/// The code of a call that succeeded; of a query, that the work is done.
pub const SUCCESS: i32 = 0;

/// The code of a query whose work is still under way: no error, and no result yet.
pub const NOT_READY: i32 = 600;

/// The fault that a `CUresult` tells of. Total: success is [`FaultClass::NotAnError`], a number that `cuda.h` does not have is
/// [`FaultClass::Unknown`].
///
/// ```
/// use rustkernel_core::fault::{FaultClass, RestartDepth, cuda};
///
/// let fault = cuda::classify(700);
/// assert_eq!(fault.name, "CUDA_ERROR_ILLEGAL_ADDRESS");
/// assert_eq!(fault.class.depth(), RestartDepth::Process);
/// assert_eq!(cuda::classify(-7).class, FaultClass::Unknown);
/// ```
#[must_use]
pub fn classify(code: i32) -> Fault {
    let found = TABLE.binary_search_by_key(&code, |row| row.0);
    let (name, class) = found.map_or(("unknown CUDA error", Unknown), |at| (TABLE[at].1, TABLE[at].2));
    Fault { class, code: FaultCode::Cuda(code), name }
}

/// Every code of `CUresult`, in ascending order.
const TABLE: &[(i32, &str, FaultClass)] = &[
    (SUCCESS, "CUDA_SUCCESS", NotAnError),
    (1, "CUDA_ERROR_INVALID_VALUE", Caller),
    (2, "CUDA_ERROR_OUT_OF_MEMORY", Resource),
    (3, "CUDA_ERROR_NOT_INITIALIZED", DeviceLost),
    (4, "CUDA_ERROR_DEINITIALIZED", ContextGone),
    (5, "CUDA_ERROR_PROFILER_DISABLED", NotAnError),
    (6, "CUDA_ERROR_PROFILER_NOT_INITIALIZED", NotAnError),
    (7, "CUDA_ERROR_PROFILER_ALREADY_STARTED", NotAnError),
    (8, "CUDA_ERROR_PROFILER_ALREADY_STOPPED", NotAnError),
    (34, "CUDA_ERROR_STUB_LIBRARY", DeviceLost),
    (36, "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER", Caller),
    (46, "CUDA_ERROR_DEVICE_UNAVAILABLE", Resource),
    (100, "CUDA_ERROR_NO_DEVICE", DeviceLost),
    (101, "CUDA_ERROR_INVALID_DEVICE", DeviceLost),
    (102, "CUDA_ERROR_DEVICE_NOT_LICENSED", DeviceLost),
    (200, "CUDA_ERROR_INVALID_IMAGE", Image),
    (201, "CUDA_ERROR_INVALID_CONTEXT", Caller),
    (202, "CUDA_ERROR_CONTEXT_ALREADY_CURRENT", NotAnError),
    (205, "CUDA_ERROR_MAP_FAILED", Caller),
    (206, "CUDA_ERROR_UNMAP_FAILED", Caller),
    (207, "CUDA_ERROR_ARRAY_IS_MAPPED", Caller),
    (208, "CUDA_ERROR_ALREADY_MAPPED", Caller),
    (209, "CUDA_ERROR_NO_BINARY_FOR_GPU", Image),
    (210, "CUDA_ERROR_ALREADY_ACQUIRED", Caller),
    (211, "CUDA_ERROR_NOT_MAPPED", Caller),
    (212, "CUDA_ERROR_NOT_MAPPED_AS_ARRAY", Caller),
    (213, "CUDA_ERROR_NOT_MAPPED_AS_POINTER", Caller),
    (214, "CUDA_ERROR_ECC_UNCORRECTABLE", HardwareMemory),
    (215, "CUDA_ERROR_UNSUPPORTED_LIMIT", Caller),
    (216, "CUDA_ERROR_CONTEXT_ALREADY_IN_USE", Caller),
    (217, "CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", Caller),
    (218, "CUDA_ERROR_INVALID_PTX", Image),
    (219, "CUDA_ERROR_INVALID_GRAPHICS_CONTEXT", Caller),
    (220, "CUDA_ERROR_NVLINK_UNCORRECTABLE", HardwareMemory),
    (221, "CUDA_ERROR_JIT_COMPILER_NOT_FOUND", Image),
    (222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION", Image),
    (223, "CUDA_ERROR_JIT_COMPILATION_DISABLED", Image),
    (224, "CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY", Caller),
    (225, "CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC", Image),
    (226, "CUDA_ERROR_CONTAINED", Contained),
    (227, "CUDA_ERROR_INSUFFICIENT_LOADER_VERSION", Image),
    (300, "CUDA_ERROR_INVALID_SOURCE", Image),
    (301, "CUDA_ERROR_FILE_NOT_FOUND", Image),
    (302, "CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND", Image),
    (303, "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED", Image),
    (304, "CUDA_ERROR_OPERATING_SYSTEM", DeviceLost),
    (400, "CUDA_ERROR_INVALID_HANDLE", Caller),
    (401, "CUDA_ERROR_ILLEGAL_STATE", Caller),
    (402, "CUDA_ERROR_LOSSY_QUERY", Caller),
    (500, "CUDA_ERROR_NOT_FOUND", Caller),
    (NOT_READY, "CUDA_ERROR_NOT_READY", NotAnError),
    (700, "CUDA_ERROR_ILLEGAL_ADDRESS", KernelException),
    (701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", Caller),
    (702, "CUDA_ERROR_LAUNCH_TIMEOUT", Watchdog),
    (703, "CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING", Caller),
    (704, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", NotAnError),
    (705, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", Caller),
    (708, "CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE", NotAnError),
    (709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", ContextGone),
    (710, "CUDA_ERROR_ASSERT", Assert),
    (711, "CUDA_ERROR_TOO_MANY_PEERS", Resource),
    (712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", NotAnError),
    (713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", Caller),
    (714, "CUDA_ERROR_HARDWARE_STACK_ERROR", KernelException),
    (715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", KernelException),
    (716, "CUDA_ERROR_MISALIGNED_ADDRESS", KernelException),
    (717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", KernelException),
    (718, "CUDA_ERROR_INVALID_PC", KernelException),
    (719, "CUDA_ERROR_LAUNCH_FAILED", KernelException),
    (720, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE", Caller),
    (721, "CUDA_ERROR_TENSOR_MEMORY_LEAK", KernelException),
    (800, "CUDA_ERROR_NOT_PERMITTED", Caller),
    (801, "CUDA_ERROR_NOT_SUPPORTED", Caller),
    (802, "CUDA_ERROR_SYSTEM_NOT_READY", DeviceLost),
    (803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", DeviceLost),
    (804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE", DeviceLost),
    (805, "CUDA_ERROR_MPS_CONNECTION_FAILED", MpsConnection),
    (806, "CUDA_ERROR_MPS_RPC_FAILURE", MpsConnection),
    (807, "CUDA_ERROR_MPS_SERVER_NOT_READY", Resource),
    (808, "CUDA_ERROR_MPS_MAX_CLIENTS_REACHED", Resource),
    (809, "CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED", Resource),
    (810, "CUDA_ERROR_MPS_CLIENT_TERMINATED", MpsTerminated),
    (811, "CUDA_ERROR_CDP_NOT_SUPPORTED", Image),
    (812, "CUDA_ERROR_CDP_VERSION_MISMATCH", Image),
    (900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", Capture),
    (901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", Capture),
    (902, "CUDA_ERROR_STREAM_CAPTURE_MERGE", Capture),
    (903, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", Capture),
    (904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", Capture),
    (905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", Capture),
    (906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", Capture),
    (907, "CUDA_ERROR_CAPTURED_EVENT", Capture),
    (908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", Capture),
    (909, "CUDA_ERROR_TIMEOUT", Resource),
    (910, "CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE", Capture),
    (911, "CUDA_ERROR_EXTERNAL_DEVICE", ExternalDevice),
    (912, "CUDA_ERROR_INVALID_CLUSTER_SIZE", Caller),
    (913, "CUDA_ERROR_FUNCTION_NOT_LOADED", Image),
    (914, "CUDA_ERROR_INVALID_RESOURCE_TYPE", Caller),
    (915, "CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION", Caller),
    // A confidential machine whose keys could not be changed has no trusted way to the device any more.
    (916, "CUDA_ERROR_KEY_ROTATION", DeviceLost),
    (917, "CUDA_ERROR_STREAM_DETACHED", Capture),
    (918, "CUDA_ERROR_GRAPH_RECAPTURE_FAILURE", Capture),
    (919, "CUDA_ERROR_FABRIC_NOT_READY", Resource),
    (999, "CUDA_ERROR_UNKNOWN", Unknown),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{FaultScope, RestartDepth};
    use super::*;

    /// Every one of `codes` is of `class`, which loses the domain or not, and is cured at `depth`.
    #[track_caller]
    fn assert_all(codes: &[i32], class: FaultClass, sticky: bool, depth: RestartDepth) {
        for code in codes {
            let fault = classify(*code);
            assert_eq!(fault.class, class, "{fault}");
            assert_eq!(fault.class.poisons(), sticky, "{fault}");
            assert_eq!(fault.class.depth(), depth, "{fault}");
        }
    }

    #[test]
    fn the_table_ascends_so_that_each_code_is_found_and_none_is_there_twice() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for (code, name, class) in TABLE {
            let fault = classify(*code);
            assert_eq!((fault.name, fault.class, fault.code), (*name, *class, FaultCode::Cuda(*code)));
            assert!(name.starts_with("CUDA_ERROR_") || *code == SUCCESS, "{name}");
        }
    }

    #[test]
    fn states_are_no_errors() {
        assert_all(&[0, 600, 704, 708, 712], NotAnError, false, RestartDepth::None);
    }

    #[test]
    fn the_callers_own_mistakes_restart_nothing() {
        let codes = [1, 201, 400, 500, 701, 720, 912, 800, 801, 713, 705];
        assert_all(&codes, Caller, false, RestartDepth::None);
    }

    #[test]
    fn what_is_used_up_for_now_is_launched_again_and_counts_against_nobody() {
        assert_all(&[2, 46, 909, 807, 808, 809, 919], Resource, false, RestartDepth::Relaunch);
        assert_eq!(classify(2).class.scope(), FaultScope::Nobody);
    }

    #[test]
    fn images_and_captures_are_made_anew_in_the_same_context() {
        let images = [200, 209, 218, 221, 222, 223, 300, 301, 302, 303, 913];
        assert_all(&images, Image, false, RestartDepth::Module);
        let captures = [900, 901, 902, 903, 904, 905, 906, 907, 908, 910, 917, 918];
        assert_all(&captures, Capture, false, RestartDepth::Module);
    }

    #[test]
    fn the_eight_kernel_exceptions_lose_the_process() {
        let codes = [700, 714, 715, 716, 717, 718, 719, 721];
        assert_all(&codes, KernelException, true, RestartDepth::Process);
    }

    #[test]
    fn an_assert_begins_with_the_context_and_goes_on_with_the_process() {
        assert_all(&[710], Assert, true, RestartDepth::Context);
        assert_eq!(Assert.depth().deeper(), RestartDepth::Process);
    }

    #[test]
    fn watchdog_containment_external_devices_and_a_terminated_mps_client_lose_the_process() {
        assert_all(&[702], Watchdog, true, RestartDepth::Process);
        assert_all(&[226], Contained, true, RestartDepth::Process);
        assert_all(&[911], ExternalDevice, true, RestartDepth::Process);
        assert_all(&[810], MpsTerminated, true, RestartDepth::Process);
    }

    #[test]
    fn an_mps_server_that_is_out_of_reach_costs_no_domain() {
        assert_all(&[805, 806], MpsConnection, false, RestartDepth::Relaunch);
    }

    #[test]
    fn damaged_data_costs_the_process_counts_against_the_device_and_moves_away_next() {
        assert_all(&[214, 220], HardwareMemory, true, RestartDepth::Process);
        assert_eq!(HardwareMemory.scope(), FaultScope::Device);
        assert_eq!(HardwareMemory.depth().deeper(), RestartDepth::Device);
    }

    #[test]
    fn a_context_that_is_gone_is_made_anew() {
        assert_all(&[709, 4], ContextGone, true, RestartDepth::Context);
    }

    #[test]
    fn a_lost_device_or_driver_moves_the_work_and_wakes_the_operator() {
        assert_all(&[100, 101, 802, 803, 304, 3], DeviceLost, true, RestartDepth::Device);
        assert!(DeviceLost.alerts_operator());
    }

    #[test]
    fn the_drivers_own_unknown_error_costs_the_process_first() {
        assert_all(&[999], Unknown, true, RestartDepth::Process);
    }

    #[test]
    fn numbers_that_the_header_does_not_have_are_fatal_to_the_domain() {
        let codes = [-1, i32::MIN, i32::MAX, 9, 203, 228, 706, 722, 726, 813, 920, 1000];
        assert_all(&codes, Unknown, true, RestartDepth::Process);
    }

    proptest! {
        #[test]
        fn every_number_has_a_class_and_one_that_is_not_in_the_table_costs_the_domain(code: i32) {
            let fault = classify(code);
            prop_assert_eq!(fault.code, FaultCode::Cuda(code));
            prop_assert!(!fault.name.is_empty());
            if TABLE.iter().all(|row| row.0 != code) {
                prop_assert_eq!(fault.class, Unknown);
                prop_assert!(fault.class.poisons());
            }
        }

        #[test]
        fn so_has_every_number_near_the_codes_that_are_in_use(code in -10_i32..1100) {
            let known = TABLE.iter().find(|row| row.0 == code);
            prop_assert_eq!(classify(code).class, known.map_or(Unknown, |row| row.2));
        }
    }
}
