//! stub
use crate::protocol::Parameters;
/// x
pub struct Connected {
    /// x
    pub parameters: Parameters,
    /// x
    pub process_id: u32,
    /// x
    pub secret: Vec<u8>,
    /// x
    pub max_prepared_statements: usize,
    /// x
    pub statement_key: [u8; 16],
}
