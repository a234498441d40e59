//! Many sources, one order; what was lost.
