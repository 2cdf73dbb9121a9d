//! The burst of [`crate::burst`] in MySQL's protocol, at both servers: 2,000 clients log in at once, each runs a transaction, and leaves,
//! over 20 database connections. The database itself refuses one too many (`MAX_USER_CONNECTIONS`).
//!
//! They come with a password and without TLS: that part is the core's, and `burst` has it.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Error, OptsBuilder};
use tokio::task::JoinSet;

use crate::harness::levels::{Levels, memory_kib, raise_file_limit};
use crate::harness::mysql::beside::my_config;
use crate::harness::mysql::{database, servers};
use crate::harness::proxy::{set, start};

const CLIENTS: usize = 2_000;
const CONNECTIONS: u32 = 20;
/// Of the proxy's own, for its questions; they are another account's.
const OWN_CONNECTIONS: u32 = 2;
const BURSTS: usize = 2;
/// All of a burst's logins begin at once, and the programs are not optimised.
const LONG: Duration = Duration::from_secs(120);
/// Memory may differ by so many percent.
const DRIFT_PERCENT: u64 = 10;

#[test]
fn two_thousand_clients_over_twenty_connections() {
    raise_file_limit(CLIENTS as u64 + 500);
    for server in servers() {
        let setup = ["CREATE TABLE done (burst INT, client INT, PRIMARY KEY (burst, client))"];
        let name = database(server, &format!("my_burst_{:?}", server.flavour()).to_lowercase(), &setup);
        let mut root = server.root();
        root.query("DROP USER IF EXISTS burst");
        root.query(&format!("CREATE USER burst IDENTIFIED BY 'burst-secret' WITH MAX_USER_CONNECTIONS {CONNECTIONS}"));
        root.query(&format!("GRANT ALL ON {name}.* TO burst"));
        let mut text = my_config(server, CONNECTIONS + OWN_CONNECTIONS);
        for (table, key, value) in [
            ("endpoint", "login_timeout", format!("\"{}s\"", LONG.as_secs())),
            ("target_group.pool", "connection_borrow_timeout", format!("\"{}s\"", LONG.as_secs())),
            // None is closed in between: the database would count one that is just leaving.
            ("target_group.pool", "max_idle_connections_percent", "100".to_owned()),
            ("user", "name", "\"burst\"".to_owned()),
            ("user", "password", "{ value = \"burst-secret\" }".to_owned()),
        ] {
            text = set(&text, table, key, &value);
        }
        let proxy = start(&text);
        let options = OptsBuilder::default().ip_or_hostname("127.0.0.1").tcp_port(proxy.address.port());
        let options = options.user(Some("burst")).pass(Some("burst-secret")).db_name(Some(&name)).prefer_socket(false);
        // Else it asks for both as it connects.
        let options = options.max_allowed_packet(Some(64 << 20)).wait_timeout(Some(28_800));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut memory = Vec::new();
        for burst in 1..=BURSTS {
            let clients = runtime.block_on(all((0..CLIENTS).map(|_| Conn::new(options.clone()))));
            // All of them are there at the same time.
            assert_eq!(Levels::of(proxy.admin).clients, CLIENTS as u64);
            let work = clients.into_iter().enumerate().map(|(number, client)| transact(client, burst, number));
            let clients = runtime.block_on(all(work));
            runtime.block_on(all(clients.into_iter().map(Conn::disconnect)));
            let levels = Levels::wait_until(proxy.admin, "everybody gone", |levels| {
                levels.clients + levels.waiting + levels.in_use == 0
            });
            // Not one login at the database was refused, and that would have been the 21st.
            assert_eq!((levels.failed, levels.idle), (0, u64::from(CONNECTIONS)), "{}", proxy.log());
            memory.push(memory_kib(proxy.id()));
        }
        println!("{:?}: memory of the proxy behind each burst in KiB: {memory:?}", server.flavour());
        assert_eq!(root.value(&format!("SELECT COUNT(*) FROM {name}.done")), (BURSTS * CLIENTS).to_string());
        let (first, last) = (memory[0], memory[BURSTS - 1]);
        assert!(last <= first + first * DRIFT_PERCENT / 100, "the proxy holds more and more memory: {memory:?}");
    }
}

async fn transact(mut client: Conn, burst: usize, number: usize) -> Result<Conn, Error> {
    client.query_drop("BEGIN").await?;
    client.query_drop(format!("INSERT INTO done SELECT {burst}, {number} FROM (SELECT SLEEP(0.005)) AS x")).await?;
    let own: Option<usize> =
        client.query_first(format!("SELECT client FROM done WHERE burst = {burst} AND client = {number}")).await?;
    assert_eq!(own, Some(number));
    client.query_drop("COMMIT").await?;
    Ok(client)
}

/// Runs them all at once; none may fail.
async fn all<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = Result<T, Error>> + Send + 'static>,
) -> Vec<T> {
    let mut running = JoinSet::new();
    futures.for_each(|future| drop(running.spawn(tokio::time::timeout(LONG, future))));
    running.join_all().await.into_iter().map(|ended| ended.unwrap().unwrap()).collect()
}
