//! Reads `[[user]]`: who may come in.
//!
//! Checks beyond one key: the endpoints exist, and a method that needs a password has one.

use super::field::Field;
use super::table::Table;
use super::types::{AuthMethod, EndpointConfig, UserConfig};
use super::{Names, secret, values};

const NAME_FORM: &str = "1 to 63 bytes";

const METHODS: [(&str, AuthMethod); 4] = [
    ("scram-sha-256", AuthMethod::ScramSha256),
    ("iam", AuthMethod::Iam),
    ("iam-or-password", AuthMethod::IamOrPassword),
    ("md5", AuthMethod::Md5),
];
/// Methods of the contract that are not built.
const METHODS_LATER: [&str; 3] = ["certificate", "caching_sha2_password", "mysql_native_password"];

/// Reads all users; there may be none.
pub(super) fn read_all(root: &Table<'_>, endpoints: &[EndpointConfig], has_iam: bool) -> Vec<UserConfig> {
    let endpoints: Vec<_> = endpoints.iter().map(|e| e.name.as_str()).collect();
    let mut names = Names::default();
    root.children("user").into_iter().map(|table| read(table, &mut names, &endpoints, has_iam)).collect()
}

fn read(table: Table<'_>, names: &mut Names, endpoints: &[&str], has_iam: bool) -> UserConfig {
    let name = names.read(&table, NAME_FORM, is_user_name);
    let auth = table.read("auth", Some(AuthMethod::ScramSha256), |field| Some(read_auth(field, has_iam)));
    let password = table.take("password");
    if let (None, Some(auth)) = (&password, auth)
        && auth != AuthMethod::Iam
    {
        let word = METHODS.iter().find(|(_, method)| *method == auth).map_or("", |(word, _)| *word);
        table.report_missing("password", &format!("for {word}: {}", secret::FORMS));
    }
    let user = UserConfig {
        auth: auth.unwrap_or(AuthMethod::ScramSha256),
        password: password.and_then(|field| field.secret()),
        database_user: table.read("database_user", name.clone(), |field| {
            let good = |text: &str| is_user_name(text).then(|| text.to_owned());
            field.parsed(NAME_FORM, good)
        }),
        endpoints: table.read("endpoints", None, |field| read_endpoints(field, endpoints).map(Some)),
        name,
    };
    table.later("database_auth", None);
    table.later("certificate_names", Some("[]"));
    table.later("max_clients", None);
    table.later("max_connections", None);
    table.finish();
    user
}

fn is_user_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= values::NAME_BYTES_MAX && !text.contains('\0')
}

/// `None` once a mistake was reported. MySQL's method may stand beside ours: the default list, which serves both
/// engines, has it.
fn read_auth(field: &Field<'_>, has_iam: bool) -> Option<AuthMethod> {
    const ALLOWED: &str = "one method, such as [\"scram-sha-256\"] or [\"iam\"]";
    let fields = field.list(ALLOWED)?;
    let words: Option<Vec<_>> = fields.iter().map(|field| field.text(ALLOWED)).collect();
    if is_default_list(&words?) {
        return Some(AuthMethod::ScramSha256);
    }
    let methods: Option<Vec<_>> = fields.iter().map(|field| field.choice(&METHODS, &METHODS_LATER)).collect();
    let [method] = methods?[..] else {
        field.report_conflict(format!(
            "PostgreSQL asks for one thing once: {ALLOWED}; for tokens and passwords both, [\"iam-or-password\"]"
        ));
        return None;
    };
    if method.takes_tokens() && !has_iam {
        field.report_conflict("tokens need an [iam] table".to_owned());
        return None;
    }
    Some(method)
}

fn is_default_list(words: &[&str]) -> bool {
    words.len() == 2 && words.contains(&"scram-sha-256") && words.contains(&"caching_sha2_password")
}

fn read_endpoints(field: &Field<'_>, endpoints: &[&str]) -> Option<Vec<String>> {
    let fields = field.list("a list of endpoint names")?;
    if fields.is_empty() {
        field.report_impossible("at least one endpoint name; leave it out to allow all");
    }
    fields.iter().map(|field| field.reference("an endpoint", endpoints)).collect()
}
