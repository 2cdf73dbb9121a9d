//! `proxy.toml` -> `Config`: every default and every check.
//!
//! A file is taken as a whole or not at all. An unknown key, a wrong type or an impossible value is reported with its
//! line and full path, all mistakes at once. Keys of the contract that this version has not built are known and
//! refused, unless they stand at their default. Certificates are opened here but understood in `net`.
//! docs/CONFIG.md describes every key.

mod endpoints;
mod errors;
mod field;
mod groups;
mod iam;
mod operation;
mod secret;
mod table;
mod types;
mod users;
mod values;
mod warnings;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use toml::de::DeTable;

pub use errors::{ConfigError, ConfigErrors, Problem};
pub use secret::Secret;
pub use types::{
    AccessKeyConfig, AdminConfig, AuthMethod, AuthQueryConfig, Config, ConnectionLimit, DatabaseAuth, Discovery,
    Effect, EndpointConfig, EndpointRole, EndpointTls, Engine, HealthConfig, IamConfig, IdentityConfig, ListenAddress,
    LogConfig, LogFormat, PoolConfig, PoolMode, ResetPolicy, RuntimeConfig, StatementConfig, TargetAddress,
    TargetGroupConfig, TargetTls, TargetTlsMode, TlsConfig, UserConfig,
};

use field::Field;
use table::{Source, Table};

impl Config {
    /// Reads a file, and the files and environment variables it names.
    pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
        let origin = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, &origin, &|name| std::env::var(name).ok()),
            Err(source) => {
                let file = path.to_owned();
                Err(whole_file(origin, Problem::Unreadable { file, source }))
            }
        }
    }

    /// Reads a configuration out of a text. Relative paths in it start at the folder of `origin_name`, which messages
    /// name as the file; `env` looks up environment variables.
    pub fn parse(text: &str, origin_name: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, ConfigErrors> {
        let folder = Path::new(origin_name).parent().unwrap_or(Path::new(""));
        let source = Source::new(text, folder, env);
        let (root, broken) = DeTable::parse_recoverable(text);
        // What the parser makes of a broken file is a guess, so its keys are not looked at.
        let config = broken.is_empty().then(|| read(&source, root.get_ref()));
        for error in broken {
            let line = source.line(error.span().unwrap_or_default().start);
            let detail = error.message().to_owned();
            source.report(line, "", Problem::Syntax { detail });
        }
        let (errors, warnings) = source.into_findings();
        match config {
            Some(config) if errors.is_empty() => Ok(Config { warnings, ..config }),
            Some(_) | None => Err(ConfigErrors { origin: origin_name.to_owned(), errors }),
        }
    }
}

fn whole_file(origin: String, problem: Problem) -> ConfigErrors {
    let error = ConfigError { line: 0, path: String::new(), problem };
    ConfigErrors { origin, errors: vec![error] }
}

/// Reads all tables. Where a mistake was reported something stands in for the value; the result is then thrown away.
fn read<'s>(source: &'s Source<'s>, entries: &'s DeTable<'s>) -> Config {
    let root = Table::root(source, entries);
    let target_groups = groups::read_all(&root);
    let tls = operation::read_tls(&root);
    let admin = operation::read_admin(&root);
    let endpoints = endpoints::read_all(&root, &target_groups, tls.is_named, admin.listen);
    let iam = iam::read(&root);
    let access_key = iam::access_key(source, iam.as_ref());
    let proofs = users::Proofs {
        iam: iam.is_some(),
        client_ca: tls.asks_clients,
        access_key: access_key.as_ref().map(drop).map_err(Clone::clone),
    };
    let users = users::read_all(&root, &endpoints, &target_groups, &proofs);
    let signs = users.iter().any(|user| user.database_auth == DatabaseAuth::Iam);
    operation::refuse_dns(&root);
    let config = Config {
        endpoints,
        target_groups,
        users,
        iam,
        access_key: access_key.ok().filter(|_| signs),
        tls: tls.config,
        admin,
        log: operation::read_log(&root),
        runtime: operation::read_runtime(&root),
        warnings: Vec::new(),
    };
    root.finish();
    warnings::look_at(&config, source);
    config
}

/// The names given to tables of one kind, each with its line.
#[derive(Default)]
struct Names(BTreeMap<String, usize>);

impl Names {
    /// Reads a table's `name`: there, well formed and not given twice.
    fn read(&mut self, table: &Table<'_>, allowed: &str, is_good: impl FnOnce(&str) -> bool) -> String {
        let Some(field) = table.require("name", allowed) else {
            return String::new();
        };
        let good = |text: &str| is_good(text).then(|| text.to_owned());
        let Some(name) = field.parsed(allowed, good) else {
            return String::new();
        };
        self.claim(&field, &name);
        name
    }

    fn claim(&mut self, field: &Field<'_>, name: &str) {
        if let Some(line) = self.0.get(name) {
            field.report_conflict(format!("\"{name}\" is already taken in line {line}"));
        } else {
            self.0.insert(name.to_owned(), field.line);
        }
    }
}

#[cfg(test)]
mod tests;
