//! Packets of many machines, seen from one place.

fn main() {}
