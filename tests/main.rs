//! The tests through the real thing: real libpam, sshd, sudo, su, file systems, clocks. `make test` runs them.

#![allow(clippy::disallowed_methods, clippy::arithmetic_side_effects, clippy::indexing_slicing)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(dead_code, unreachable_pub)] // The demo uses what the tests do not.

mod support;

mod agent;
mod agent_attacks;
mod agent_units;
mod apps;
mod artefacts;
mod bulk;
mod caller;
mod constant_time;
mod crash;
mod devices;
mod doctor;
mod doctor_fleet;
mod doctor_state;
mod drop_in;
mod enrol;
mod enrolment;
mod etcd;
mod examples;
mod explain;
mod fail2ban;
mod fault_matrix;
mod faults;
mod fleet;
mod fleet_faults;
mod fleet_hops;
mod fleet_import;
mod gate;
mod guest;
mod import;
mod manual;
mod manual_pages;
mod packages;
mod pam_stack;
mod policy;
mod promises;
mod races;
mod readme;
mod seal;
mod second_opinion;
mod self_service;
mod setup;
mod shared_accounts;
mod side_channels;
mod ssh_login;
mod sshd_settings;
mod stack_paths;
mod sudo_su;
mod system_store;
mod test_login;
mod throttle;
mod tutorials;
