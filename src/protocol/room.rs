//! How many prepared statements a client may have: the same whatever it speaks.

use super::ClientError;

/// Prepared statements that a client may have.
const STATEMENTS_MAX: usize = 10_000;
/// Bytes of their texts that are kept.
const STATEMENT_BYTES_MAX: usize = 64 << 20;

/// So many prepared statements, with so many bytes of text, are not too many for a client.
#[must_use]
pub const fn has_room_for(statements: usize, bytes: usize) -> bool {
    statements <= STATEMENTS_MAX && bytes <= STATEMENT_BYTES_MAX
}

impl ClientError {
    /// There is no room for one more prepared statement.
    #[must_use]
    pub const fn too_many_statements() -> Self {
        Self::TooManyStatements { statements: STATEMENTS_MAX, bytes: STATEMENT_BYTES_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::{STATEMENT_BYTES_MAX, STATEMENTS_MAX, has_room_for};

    #[test]
    fn as_many_as_it_says() {
        assert!(has_room_for(STATEMENTS_MAX, STATEMENT_BYTES_MAX));
        assert!(!has_room_for(STATEMENTS_MAX + 1, 0) && !has_room_for(1, STATEMENT_BYTES_MAX + 1));
    }
}
