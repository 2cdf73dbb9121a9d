//! The pages beside the code are true: the example starts, and the contract and docs/CONFIG.md know the same keys.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;

const CONTRACT: &str = include_str!("../../../tests/fixtures/contract.toml");
/// The contract's example of an identities.toml.
const IDENTITIES: &str = r#"
[[identity]]
access_key_id     = "AKIAEXAMPLE"
secret_access_key = { env = "APP_PASSWORD" }
session_token     = ""
[[identity.statement]]
effect   = "Allow"
action   = ["rds-db:connect"]
resource = ["arn:aws:rds-db:eu-central-1:123456789012:dbuser:prx-0123456789abcdef0/app"]
"#;
const EXAMPLE: &str = include_str!("../../../proxy.toml");
const PAGE: &str = include_str!("../../../docs/CONFIG.md");

#[test]
fn the_example_starts_without_a_warning() {
    let config = good(EXAMPLE);
    assert_eq!(config.warnings, [""; 0]);
    // Its values are the defaults, but for those that make it fit a developer's machine.
    let group = &config.target_groups[0];
    assert_eq!(format!("{:?}", group.pool), format!("{:?}", PoolConfig::default()));
    assert_eq!(format!("{:?}", config.runtime), format!("{:?}", RuntimeConfig::default()));
}

#[test]
fn every_key_of_the_contract_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some.pem");
    fs::write(&file, "").unwrap();
    let mut text = CONTRACT.to_owned();
    for name in ["rds-ca.pem", "proxy.pem", "proxy.key"] {
        text = text.replace(&format!("/etc/sluicegate/{name}"), file.to_str().unwrap());
    }
    let identities = folder.path().join("identities.toml");
    fs::write(&identities, IDENTITIES).unwrap();
    fs::set_permissions(&identities, PermissionsExt::from_mode(0o600)).unwrap();
    text = text.replace("\"identities.toml\"", &format!("{:?}", identities.to_str().unwrap()));
    let errors = parse(&text).expect_err("the contract has more than is built");
    for error in &errors.errors {
        assert!(matches!(error.problem, Problem::NotYet { .. }), "{errors}");
    }
    let refused: Vec<_> = errors.errors.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(
        refused,
        ["endpoint[1].role", "endpoint[2].role", "target_group[0].targets", "admin.console", "admin.operators",]
    );
}

/// The keys of the contract, those in comments too, as (table, key).
fn contract_keys() -> Vec<(String, String)> {
    let mut table = String::new();
    let mut keys = Vec::new();
    for line in CONTRACT.lines().map(str::trim) {
        if line.starts_with("# identities.toml:") {
            table.clear();
        } else if line.starts_with('[') {
            table = line.split_whitespace().next().unwrap().to_owned();
        }
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((key, _)) = line.split_once('=')
            && !table.is_empty()
            && key.trim().bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            && !key.trim().is_empty()
        {
            keys.push((table.clone(), key.trim().to_owned()));
        }
    }
    keys
}

#[test]
fn the_page_names_every_key() {
    let keys = contract_keys();
    assert!(keys.len() > 90, "{}", keys.len());
    let (available, later) = PAGE.split_once("\n## Not available yet").unwrap();
    for (table, key) in keys {
        let section = available.split("\n## ").find(|section| section.starts_with(&table));
        let is_available = section.is_some_and(|s| s.contains(&format!("\n| `{key}` |")));
        let row = later.lines().find(|line| line.starts_with(&format!("| `{table}` |")));
        let is_later = row.is_some_and(|row| row.contains(&format!("`{key}`")));
        assert!(is_available != is_later, "{table} {key}: available {is_available}, later {is_later}");
    }
}

/// The defaults the page shows, as lines of TOML by table.
fn page_defaults() -> BTreeMap<String, Vec<String>> {
    let (available, later) = PAGE.split_once("\n## Not available yet").unwrap();
    let mut defaults: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |table: &str, key: &str, value: &str| {
        if toml::de::DeValue::parse(value).is_ok() {
            let lines = defaults.entry(table.to_owned()).or_default();
            lines.push(format!("{key} = {value}"));
        }
    };
    for section in available.split("\n## ").filter(|s| s.starts_with('[')) {
        let table = section.lines().next().unwrap();
        for row in section.lines().filter(|row| row.starts_with("| `")) {
            let cells: Vec<_> = row.split(" | ").collect();
            let key = cells[0].trim_start_matches("| ").trim_matches('`');
            add(table, key, cells[1].trim_matches('`'));
        }
    }
    for row in later.lines().filter(|row| row.starts_with("| `[")) {
        let (table, keys) = row.trim_end_matches(" |").split_once(" | ").unwrap();
        for (key, value) in keys.split(" · ").filter_map(|key| key.split_once(" = ")) {
            let table = table.trim_start_matches("| ").trim_matches('`');
            add(table, key.trim_matches('`'), value);
        }
    }
    defaults
}

#[test]
fn the_defaults_on_the_page_are_the_defaults() {
    let defaults = page_defaults();
    let count: usize = defaults.values().map(Vec::len).sum();
    assert!(count > 55, "{count}");
    let mut text = SMALL.replace("tls = \"off\"\n", "").replace("127.0.0.1:6432", "unix:/x/.s.PGSQL.6432");
    let plain = good(&text);
    for (table, lines) in &defaults {
        let lines = lines.join("\n");
        // It has required keys: `tests/iam.rs` looks at its defaults.
        if table == "[iam]" {
            continue;
        }
        let (mark, lines) = match table.as_str() {
            "[[endpoint]]" => ("#endpoint", lines),
            "[[target_group]]" => ("#group", lines),
            "[target_group.pool]" => ("#pool", lines),
            "[target_group.health]" => ("#health", format!("{lines}\n#more")),
            "[[user]]" => ("#user", lines),
            _ if table.starts_with("[target_group.") => ("[[user]]", format!("{table}\n{lines}\n[[user]]")),
            _ => ("#root", format!("{table}\n{lines}\n#root")),
        };
        text = text.replacen(mark, &lines, 1);
    }
    let spelt_out = good(&text);
    assert_eq!(format!("{spelt_out:#?}"), format!("{plain:#?}"), "{text}");
}
