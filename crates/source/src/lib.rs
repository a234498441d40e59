//! Where packets enter: device, file, TZSP.

pub mod device;
pub mod file;
pub mod outlet;
pub mod packer;
pub mod sieve;
pub mod tzsp;

pub use device::{Device, DeviceError, OwnTraffic};
pub use file::{File, FileError};
pub use outlet::{Outlet, Quota, Run};
pub use packer::{Lane, Pace, Packer};
pub use sieve::{FilterError, Mesh, Sieve};
