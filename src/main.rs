//! Command line of Sluicegate; everything else is in the library.
fn main() {}
