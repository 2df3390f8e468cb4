//! What people, browsers and other programs send is understood, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rustkernel::core::DeviceId;
use rustkernel::core::trace::TraceContext;
use rustkernel::http::{Action, HealthDocument, NodeSnapshot, Token};
use rustkernel::inject::FaultMix;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(action) = serde_json::from_slice::<Action>(bytes) {
        let again = serde_json::to_vec(&action).unwrap();
        assert_eq!(serde_json::from_slice::<Action>(&again).unwrap(), action);
    }
    let _ = serde_json::from_slice::<NodeSnapshot>(bytes);
    let _ = serde_json::from_slice::<HealthDocument>(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(token) = Token::new(text) {
        assert!(!format!("{token:?}").contains(text.trim()));
    }
    if let Ok(context) = text.parse::<TraceContext>() {
        assert_eq!(context.to_string().parse::<TraceContext>(), Ok(context));
    }
    if let Ok(device) = text.parse::<DeviceId>() {
        assert_eq!(device.to_string().parse::<DeviceId>().ok(), Some(device));
    }
    let _ = text.parse::<FaultMix>();
});
