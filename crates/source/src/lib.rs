//! Where packets enter: device, file, TZSP, PULL.
