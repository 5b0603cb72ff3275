//! The `farshore` program as its users meet it: real processes, real mounts, real TCP and TLS on this machine.
//!
//! Each test has its own directories, devices and processes, and what it starts ends with it, also when it fails.
//! Nothing waits for a fixed time: conditions are polled until a generous deadline. Tests that need /dev/fuse say
//! loudly that they were skipped where it is missing.

mod access;
mod admission;
mod away;
mod changes;
mod copies;
mod demo;
mod doctor;
mod extended;
mod fetching;
mod joined;
mod joined_programs;
mod kills;
#[path = "../shared/mapping.rs"]
mod mapping;
mod mesh;
mod mountpoints;
mod outages;
mod own;
mod own_chaos;
mod own_programs;
#[path = "../shared/passing.rs"]
mod passing;
mod passthrough;
mod peers;
mod power;
mod process;
mod programs;
mod pushing;
mod readers;
mod remembering;
mod restarts;
mod sharing;
mod status;
mod stopping;
mod together;
mod tree;
mod valve;
mod verifying;
mod world;
