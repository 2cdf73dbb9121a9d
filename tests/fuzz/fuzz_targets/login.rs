//! What is known of a client that has logged in, where it is all the same to a target.

use sluicegate::protocol::{CancelKey, Login, Parameters, Settings, Welcome};
use std::sync::Arc;

pub fn login(user: &str, database: &str, baseline: Settings) -> Login {
    let baseline = Arc::new(baseline);
    Login { user: user.into(), database: database.into(), baseline, fixed: Vec::new(), keys: None }
}

pub fn welcome(client_id: u64) -> Welcome {
    Welcome {
        parameters: Arc::new(Parameters::new()),
        cancel_key: CancelKey { process_id: 1, secret: Box::default() },
        client_id,
        statement_key: [0; 16],
    }
}
