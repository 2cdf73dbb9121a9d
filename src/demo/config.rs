//! The tour's `proxy.toml`, and the file with the access key that signs its tokens.

use std::net::SocketAddr;
use std::path::Path;

use super::servers::{APP, APP_PASSWORD, MONITOR, MONITOR_PASSWORD};

/// Database connections for clients, of each target group.
pub const CONNECTIONS: usize = 10;
/// The proxy's own count too: `max_connections` is for both.
const CONTROL_CONNECTIONS: usize = 2;
/// MySQL's endpoint, and its target group.
pub const MYSQL: &str = "demo-mysql";
/// A user with a password, there alone; the application at the database.
pub const SHOP: &str = "shop";
/// The fresh access key's id.
pub const ACCESS_KEY: &str = "AKIADEMO";
/// Of the tokens.
pub const REGION: &str = "demo-1";

/// Where the proxy listens.
pub struct Ports {
    /// PostgreSQL's endpoint.
    pub postgres: u16,
    /// MySQL's.
    pub mysql: u16,
    /// The admin listener.
    pub admin: u16,
}

/// `proxy.toml`, for what listens at these ports; with MySQL's part if there is a server of it.
pub fn config_text(folder: &Path, database: SocketAddr, mysql: Option<SocketAddr>, ports: &Ports) -> String {
    let max_connections = CONNECTIONS + CONTROL_CONNECTIONS;
    let Ports { postgres: port, mysql: my_port, admin: admin_port } = ports;
    let socket = folder.join(format!(".s.PGSQL.{port}"));
    let socket = socket.display();
    let mysql = mysql.map(|database| mysql_text(database, *my_port)).unwrap_or_default();
    format!(
        r#"# Written by `sluicegate demo`.

[[endpoint]]
name         = "demo"
listen       = ["127.0.0.1:{port}", "unix:{socket}"]
target_group = "demo"
tls          = "optional"
hostnames    = ["localhost"]
max_clients  = 1000

[[target_group]]
name    = "demo"
engine  = "postgres"
targets = ["{database}"]
tls     = "off"

  [target_group.pool]
  max_connections = {max_connections}  # {CONNECTIONS} for clients, {CONTROL_CONNECTIONS} for the proxy's own questions

  [target_group.health]
  user     = "{MONITOR}"
  password = {{ value = "{MONITOR_PASSWORD}" }}

[[user]]
name     = "{APP}"
auth     = ["iam"]
password = {{ value = "{APP_PASSWORD}" }}
{mysql}
[iam]
region          = "{REGION}"
account         = "000000000000"
resource_id     = "prx-demo"
identities_file = "identities.toml"

[tls]
certificate = "proxy.pem"
private_key = "proxy.key"

[admin]
listen = "127.0.0.1:{admin_port}"

[runtime]
shutdown_timeout = "2s"
state_dir        = "."
"#
    )
}

fn mysql_text(database: SocketAddr, port: u16) -> String {
    let max_connections = CONNECTIONS + CONTROL_CONNECTIONS;
    format!(
        r#"
[[endpoint]]
name         = "{MYSQL}"
listen       = "127.0.0.1:{port}"
target_group = "{MYSQL}"
tls          = "optional"
hostnames    = ["localhost"]
max_clients  = 1000

[[target_group]]
name    = "{MYSQL}"
engine  = "mysql"
targets = ["{database}"]
tls     = "off"

  [target_group.pool]
  max_connections = {max_connections}

  [target_group.health]
  user     = "{MONITOR}"
  password = {{ value = "{MONITOR_PASSWORD}" }}

[[user]]
name          = "{SHOP}"
auth          = ["caching_sha2_password"]
password      = {{ value = "{APP_PASSWORD}" }}
database_user = "{APP}"
endpoints     = ["{MYSQL}"]
"#
    )
}

/// `identities.toml`.
pub fn identities_text(secret: &str) -> String {
    format!(
        r#"# Written by `sluicegate demo`. The key was made for it, and is worth nothing afterwards.

[[identity]]
access_key_id     = "{ACCESS_KEY}"
secret_access_key = {{ value = "{secret}" }}

[[identity.statement]]
effect   = "Allow"
action   = "rds-db:connect"
resource = "arn:aws:rds-db:{REGION}:000000000000:dbuser:prx-demo/{APP}"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_configuration_is_one() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["proxy.pem", "proxy.key"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let identities = folder.path().join("identities.toml");
        std::fs::write(&identities, identities_text("secret")).unwrap();
        std::fs::set_permissions(identities, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let [postgres, mysql] = [5432, 3306].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let ports = Ports { postgres: 6432, mysql: 3307, admin: 9632 };
        let origin = folder.path().join("proxy.toml").display().to_string();
        for (mysql, endpoints) in [(None, 1), (Some(mysql), 2)] {
            let text = config_text(folder.path(), postgres, mysql, &ports);
            let config = Config::parse(&text, &origin, &|_| None).unwrap();
            assert!(config.warnings.is_empty(), "{:?}", config.warnings);
            assert_eq!(config.endpoints.len(), endpoints);
        }
    }
}
