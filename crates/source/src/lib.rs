//! Where packets enter: device, file, TZSP, PULL.

pub mod device;
pub mod file;
pub mod outlet;
pub mod packer;
pub mod pull;
pub mod sieve;
pub mod tzsp;

pub use device::{Device, DeviceError, OwnTraffic};
pub use file::{File, FileError};
pub use outlet::{Outlet, Quota, Run};
pub use packer::{Lane, Pace, Packer};
pub use pull::{Pull, PullError};
pub use sieve::{FilterError, Mesh, Sieve};
