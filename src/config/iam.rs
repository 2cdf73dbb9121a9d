//! Reads `[iam]` and the file of access keys it names.
//!
//! The file is a second configuration file with the same rules: every mistake in it is told, with its own line. It holds
//! secrets, so one that others may read is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use toml::de::DeTable;

use super::Names;
use super::errors::{ConfigError, Problem};
use super::field::Field;
use super::secret;
use super::table::{Source, Table};
use super::types::{AccessKeyConfig, Effect, IamConfig, IdentityConfig, StatementConfig};

/// AWS never lets a token live longer.
const TOKEN_AGE_MAX: Duration = Duration::from_secs(15 * 60);
/// Names in policies: none of their separators.
const NAME_FORM: &str = "letters, digits and hyphens";
/// Far beyond any real pattern.
const PATTERN_BYTES_MAX: usize = 2048;

/// `None`: there is no `[iam]`.
pub(super) fn read(root: &Table<'_>) -> Option<IamConfig> {
    let table = root.child("iam");
    if !table.is_there() {
        return None;
    }
    let name = |key| {
        let field = table.require(key, NAME_FORM);
        field.and_then(|field| field.parsed(NAME_FORM, plain_name)).unwrap_or_default()
    };
    let config = IamConfig {
        region: name("region"),
        account: name("account"),
        resource_id: name("resource_id"),
        identities: table
            .require("identities_file", "the path of a file with [[identity]] tables")
            .and_then(|field| read_file(&field))
            .unwrap_or_default(),
        max_token_age: table.read("max_token_age", TOKEN_AGE_MAX, |field| {
            let age = field.duration()?;
            if age > TOKEN_AGE_MAX {
                field.report_impossible("at most \"15m\"");
            }
            Some(age)
        }),
        clock_skew: table.read("clock_skew", Duration::from_secs(5 * 60), Field::duration_or_zero),
    };
    table.finish();
    Some(config)
}

/// The access key that the proxy's own tokens are signed with, as AWS's own tools find it; or what is missing.
pub(super) fn access_key(source: &Source<'_>, iam: Option<&IamConfig>) -> Result<AccessKeyConfig, String> {
    let variable = |name: &str| source.env(name).filter(|value| !value.is_empty());
    let needed = |name: &str| {
        variable(name).ok_or_else(|| format!("signs with the access key of the environment, and {name} is not set"))
    };
    let region = iam.map(|iam| iam.region.clone()).filter(|region| !region.is_empty());
    let region = region.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    Ok(AccessKeyConfig {
        access_key_id: needed("AWS_ACCESS_KEY_ID")?,
        secret_access_key: secret::Secret::new(needed("AWS_SECRET_ACCESS_KEY")?),
        session_token: variable("AWS_SESSION_TOKEN").map(secret::Secret::new),
        region: region.ok_or("needs a region: [iam] or the environment variable AWS_REGION")?,
    })
}

fn plain_name(text: &str) -> Option<String> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    is_plain.then(|| text.to_owned())
}

/// `None`: what is wrong was reported.
fn read_file(field: &Field<'_>) -> Option<Vec<IdentityConfig>> {
    let path = field.readable_file()?;
    let unreadable = |source| field.report(Problem::Unreadable { file: path.clone(), source });
    let mode = fs::metadata(&path).map_err(unreadable).ok()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        field.report_conflict(format!(
            "{} holds secrets and others may read it (mode {mode:04o}): chmod 600",
            path.display()
        ));
        return None;
    }
    let text = fs::read_to_string(&path).map_err(unreadable).ok()?;
    let env = |name: &str| field.source().env(name);
    let folder = path.parent().unwrap_or(&path);
    let source = Source::new(&text, folder, &env);
    let (root, broken) = DeTable::parse_recoverable(&text);
    let identities = if broken.is_empty() { read_all(Table::root(&source, root.get_ref())) } else { Vec::new() };
    for error in broken {
        let line = source.line(error.span().unwrap_or_default().start);
        // The parser's own words may quote the line, which may hold a secret.
        source.report(line, "", Problem::Syntax { detail: "this is not TOML".to_owned() });
    }
    let (errors, _) = source.into_findings();
    let is_good = errors.is_empty();
    for ConfigError { line, path: key, problem } in errors {
        field.report(Problem::InFile { file: path.clone(), error: Box::new(ConfigError { line, path: key, problem }) });
    }
    is_good.then_some(identities)
}

fn read_all(root: Table<'_>) -> Vec<IdentityConfig> {
    let mut ids = Names::default();
    let tables = root.children("identity");
    if tables.is_empty() {
        root.report_missing("identity", "at least one [[identity]]");
    }
    let identities = tables.into_iter().map(|table| identity(table, &mut ids)).collect();
    root.finish();
    identities
}

fn identity(table: Table<'_>, ids: &mut Names) -> IdentityConfig {
    const ID_FORM: &str = "up to 128 letters, digits, - and _, such as AKIAIOSFODNN7EXAMPLE";
    let id = table.require("access_key_id", ID_FORM).and_then(|field| {
        // Never shown: it may be the secret key, put here by mistake.
        let id = field.text_unseen(ID_FORM)?;
        if id.len() > 128 || plain_name(&id.replace('_', "-")).is_none() {
            field.report_conflict(format!("is not an access key's id: {ID_FORM}"));
            return None;
        }
        ids.claim(&field, &id);
        Some(id)
    });
    let key = table.require("secret_access_key", secret::FORMS).and_then(|field| field.secret());
    let identity = IdentityConfig {
        access_key_id: id.unwrap_or_default(),
        secret_access_key: key.unwrap_or_else(|| secret::Secret::new(String::new())),
        session_token: table.take("session_token").and_then(|field| {
            // The contract's default, which means that there is none.
            let is_empty = toml::de::DeValue::parse("\"\"").is_ok_and(|empty| field.is(empty.get_ref()));
            if is_empty { None } else { field.secret() }
        }),
        statements: table.children("statement").into_iter().map(statement).collect(),
    };
    table.finish();
    identity
}

fn statement(table: Table<'_>) -> StatementConfig {
    const EFFECTS: [(&str, Effect); 2] = [("Allow", Effect::Allow), ("Deny", Effect::Deny)];
    let effect = table.require("effect", "\"Allow\" or \"Deny\"").and_then(|field| field.choice(&EFFECTS, &[]));
    let statement = StatementConfig {
        // A mistake was reported, and nothing is allowed by it.
        effect: effect.unwrap_or(Effect::Deny),
        actions: patterns(&table, "action", "[\"rds-db:connect\"]"),
        resources: patterns(&table, "resource", "[\"arn:aws:rds-db:REGION:ACCOUNT:dbuser:RESOURCE_ID/USER\"]"),
    };
    table.finish();
    statement
}

/// One pattern or a list of them, as in IAM.
fn patterns(table: &Table<'_>, key: &'static str, allowed: &'static str) -> Vec<String> {
    let Some(field) = table.require(key, allowed) else { return Vec::new() };
    let fields = field.list_or_one();
    let good = |text: &str| (!text.is_empty() && text.len() <= PATTERN_BYTES_MAX).then(|| text.to_owned());
    fields.iter().filter_map(|field| field.parsed(allowed, good)).collect()
}
