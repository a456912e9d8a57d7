//! The fleet: several hosts that have their records in common, in an etcd cluster.
//!
//! | | |
//! |---|---|
//! | [`conf`] | where the cluster is, and as whom this host comes to it |
//! | [`etcd`] | the cluster: reads that are never old, and writes that are only there if nobody else was faster |
//!
//! Of the agent and the programs alone: the module has no network.

pub mod conf;
pub mod etcd;
