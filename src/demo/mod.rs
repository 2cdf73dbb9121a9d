//! The guided tour: throwaway databases, a proxy in front of them, and a walk through what it does.
//!
//! [`servers`] starts the databases; the tests' harness uses it too.

pub mod servers;
