//! The pipelines: what is captured goes to the observers and the relay; what is collected goes to the observers, the merge
//! and the output. Each pipeline owns its threads and says how it ended.

pub mod stop;

pub use stop::Stop;
