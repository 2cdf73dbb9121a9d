
pub mod frame;
