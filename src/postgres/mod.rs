
pub mod frame;
pub mod message;
