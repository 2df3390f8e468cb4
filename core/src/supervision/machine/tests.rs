//! OTP's rules, one by one, on a machine whose children are played by a [`Rig`].

mod admin;
mod boot;
mod delays;
mod grid;
mod groups;
mod policy;
mod rig;
mod significant;
mod stale;
mod stopping;
