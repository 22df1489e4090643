//! A rootless Kubernetes with a real Gateway API data plane, real monitoring and pods that can be made to fail,
//! for the demo, the end-to-end scenarios and the live benchmarks. `docs/` of the project tells how it fits together;
//! the order to read is [`sandbox`], [`cluster`], [`workload`], [`kubelet`], [`load`].

pub mod bench;
pub mod cluster;
pub mod demo;
pub mod external;
pub mod http;
pub mod kubelet;
pub mod lanes;
pub mod load;
pub mod record;
pub mod sandbox;
pub mod scenarios;
pub mod smoke;
pub mod workload;
pub mod world;
