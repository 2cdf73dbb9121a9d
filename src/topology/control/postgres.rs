//! Control connections to PostgreSQL, by the driver tokio-postgres.

use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls, Row, SimpleQueryMessage, SimpleQueryRow};

use super::{Account, Borrowed, Control, ControlError, Driver};
use crate::config::TargetAddress;
use crate::net::tls::ClientTls;
use crate::topology::Target;
use crate::topology::cleartext::{Guarded, GuardedTls};

/// What a target sees in `pg_stat_activity`.
const APPLICATION_NAME: &str = "sluicegate";
/// Unlike a client's connection (see `net::stream`), a control connection never has much to send: whoever leaves it
/// unacknowledged for so long is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);

/// Control connections to a PostgreSQL. `tls`: `None` for none; a unix socket does without in any case. Nothing is
/// opened yet.
pub fn postgres_control(
    target: &Target,
    account: &Account<'_>,
    connect_timeout: Duration,
    tls: Option<ClientTls>,
) -> Result<Control<Postgres>, ControlError> {
    let mut config = tokio_postgres::Config::new();
    config
        .user(account.user)
        .dbname(account.database)
        .application_name(APPLICATION_NAME)
        // Nobody's functions in front of the catalog's, and no question that outlives the one who asked.
        .options(format!("-c search_path= -c statement_timeout={}", account.timeout.as_millis().max(1)))
        .connect_timeout(connect_timeout)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX)
        .ssl_mode(SslMode::Disable);
    match &target.address {
        TargetAddress::Tcp { host, port } => {
            config.host(host).port(*port);
            if tls.is_some() {
                config.ssl_mode(SslMode::Require);
            }
        }
        TargetAddress::Unix(path) => {
            // libpq's way, and the driver's: the folder is the host, and the socket's name holds the port.
            let port = path.extension().and_then(|port| port.to_str()?.parse().ok()).unwrap_or(5432);
            config.host_path(path.parent().unwrap_or(path)).port(port);
        }
    }
    let tls = tls.as_ref().map(GuardedTls::new);
    let in_the_clear = match &target.address {
        TargetAddress::Tcp { host, port } if tls.is_none() => Some((host.clone(), *port)),
        TargetAddress::Tcp { .. } | TargetAddress::Unix(_) => None,
    };
    Control::new(Postgres { config, tls, in_the_clear }, account, connect_timeout)
}

/// How a PostgreSQL is connected to.
pub struct Postgres {
    config: tokio_postgres::Config,
    tls: Option<GuardedTls>,
    /// Where it is, if what is said to it can be read on the way.
    in_the_clear: Option<(String, u16)>,
}

impl Driver for Postgres {
    type Connection = Client;

    async fn connect(&self, password: &str) -> Result<Client, ControlError> {
        let mut config = self.config.clone();
        config.password(password);
        match (&self.tls, &self.in_the_clear) {
            (Some(tls), _) => {
                let (client, connection) = config.connect(tls.clone()).await?;
                // Ends with its client. Its errors reach those who ask.
                tokio::spawn(async { drop(connection.await) });
                Ok(client)
            }
            (None, Some((host, port))) => {
                let socket = TcpStream::connect((host.as_str(), *port)).await?;
                socket.set_nodelay(true)?;
                SockRef::from(&socket).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
                let (client, connection) = config.connect_raw(Guarded::new(socket), NoTls).await?;
                tokio::spawn(async { drop(connection.await) });
                Ok(client)
            }
            (None, None) => {
                let (client, connection) = config.connect(NoTls).await?;
                tokio::spawn(async { drop(connection.await) });
                Ok(client)
            }
        }
    }

    fn is_about_the_password(error: &ControlError) -> bool {
        let ControlError::Postgres(error) = error else { return false };
        let code = error.code();
        code == Some(&SqlState::INVALID_PASSWORD) || code == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    }

    fn is_closed(client: &Client) -> bool {
        client.is_closed()
    }
}

impl Borrowed<Postgres> {
    /// Asks for one row; values come as text. One round trip.
    pub(in crate::topology) async fn ask(mut self, question: &'static str) -> Result<SimpleQueryRow, ControlError> {
        let client = self.connection()?;
        let answer = client.simple_query(question).await;
        if answer.is_ok() {
            self.answered();
        }
        answer?
            .into_iter()
            // Beside the row come its description and the end of the command.
            .find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None })
            .ok_or(ControlError::NoRow)
    }
    /// Asks a question about a name, in the extended protocol; at most one row. Two round trips.
    pub(in crate::topology) async fn ask_about(
        &mut self,
        question: &str,
        name: &str,
    ) -> Result<Option<Row>, ControlError> {
        let client = self.connection()?;
        Ok(client.query_opt(question, &[&name]).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret};
    use std::fs;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    fn asks_at(port: u16, password: &Secret) -> Control<Postgres> {
        let target = Target::new(TargetAddress::Tcp { host: "127.0.0.1".to_owned(), port });
        let account = Account { user: "m", password, database: "d", timeout: Duration::from_secs(1) };
        postgres_control(&target, &account, Duration::from_secs(20), None).unwrap()
    }

    /// Reads the startup packet, answers with this, and gives what the client says then.
    async fn answers(listener: &TcpListener, question: &[u8]) -> Vec<u8> {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut length = [0; 4];
        client.read_exact(&mut length).await.unwrap();
        let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
        client.read_exact(&mut startup).await.unwrap();
        client.write_all(question).await.unwrap();
        client.shutdown().await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn no_password_is_said_in_the_clear() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = asks_at(listener.local_addr().unwrap().port(), &Secret::new("hunter2".to_owned()));
        let (said, refused) = tokio::join!(answers(&listener, b"R\0\0\0\x08\0\0\0\x03"), control.borrow());
        assert_eq!(said, b"");
        let error = refused.unwrap_err();
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        assert!(causes.map(ToString::to_string).any(|words| words.contains("in the clear")), "{error:?}");
        // A challenge is answered.
        let (said, _) = tokio::join!(answers(&listener, b"R\0\0\0\x0c\0\0\0\x05salt"), control.borrow());
        assert!(said.starts_with(b"p\0\0\0") && !said.windows(7).any(|window| window == b"hunter2"));
    }

    #[tokio::test]
    async fn a_password_with_refresh_is_read_again_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        fs::write(&file, "old").unwrap();
        let text = format!(
            "[[endpoint]]\nname='e'\nlisten='127.0.0.1:1'\ntarget_group='g'\ntls='off'\n\
             [[target_group]]\nname='g'\nengine='postgres'\ntargets=['db:1']\n[target_group.health]\nuser='m'\n\
             password={{ command=['cat', '{}'], refresh='1ms' }}\n",
            file.display()
        );
        let config = Config::parse(&text, "proxy.toml", &|_| None).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let control = asks_at(listener.local_addr().unwrap().port(), &config.target_groups[0].health.password);
        let question = b"R\0\0\0\x0c\0\0\0\x05salt";
        let (old, _) = tokio::join!(answers(&listener, question), control.borrow());
        fs::write(&file, "new").unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let (new, _) = tokio::join!(answers(&listener, question), control.borrow());
        assert_eq!(old.len(), new.len());
        assert_ne!(old, new);
    }
}
