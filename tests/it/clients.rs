//! Real clients, as they come: psql of both versions, pgbench, psycopg 3, tokio-postgres. In transaction mode, over few
//! database connections, without an error.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use futures_util::{SinkExt, TryStreamExt, future};
use sluicegate::demo::servers::{APP, APP_PASSWORD, PostgresServer};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::harness::programs::{conninfo, python, run};
use crate::harness::wire::{Login, Wire};
use crate::harness::{each, servers};

/// Two for clients, two of the proxy's own.
const FEW: u32 = 4;

#[test]
fn psql_says_the_same_as_direct() {
    let setup = [
        "CREATE TABLE t (id int PRIMARY KEY, v text)",
        "CREATE TABLE counter AS SELECT 0 AS n",
        "CREATE FUNCTION f(a int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT a + 1'",
        "CREATE TYPE mood AS ENUM ('good', 'bad')",
    ];
    each("clients_psql", FEW, &setup, |server, database, proxy| {
        let installations = servers().map(PostgresServer::installation);
        for installation in installations {
            let say = |address: SocketAddr| {
                server.run_sql(database, "TRUNCATE t; UPDATE counter SET n = 0").unwrap();
                let mut said = String::new();
                let mut scripts = vec![include_str!("clients/psql.sql")];
                if installation.version() >= 18 {
                    scripts.push(include_str!("clients/psql_18.sql"));
                }
                for script in scripts {
                    let mut psql = installation.program("psql");
                    psql.args(["--no-psqlrc", "--echo-all", "--dbname", &conninfo(address, database)]);
                    let ended = run(psql, script);
                    assert!(ended.status.success(), "{ended}");
                    said += &without_clock(&ended.to_string(), address);
                }
                said
            };
            let (direct, proxied) = (say(server.address()), say(proxy.address));
            for (line, (direct, proxied)) in direct.lines().zip(proxied.lines()).enumerate() {
                assert_eq!(direct, proxied, "line {line} by psql {}", installation.version());
            }
            assert_eq!(direct, proxied);
        }
    });
}

/// Without what can't be the same: `\watch` prints the time, `\c` and `\conninfo` the port.
fn without_clock(said: &str, address: SocketAddr) -> String {
    let lines = said.lines().filter(|line| !line.ends_with("(every 0.1s)"));
    let port = address.port().to_string();
    lines.map(|line| line.replace(&port, "PORT") + "\n").collect()
}

#[test]
fn pgbench_with_64_clients_over_10_connections() {
    const CONNECTIONS: u32 = 10;
    each("clients_pgbench", CONNECTIONS + 2, &[], |server, database, proxy| {
        let version = server.installation().version();
        let pgbench = |address, arguments: &[&str]| {
            let mut pgbench = server.installation().program("pgbench");
            pgbench.args(arguments).arg(conninfo(address, database));
            run(pgbench, "")
        };
        let filled = pgbench(server.address(), &["--initialize", "--quiet", "--init-steps=dtGvp", "--scale=8"]);
        assert!(filled.status.success(), "{filled}");
        for protocol in ["simple", "extended", "prepared"] {
            let protocol = format!("--protocol={protocol}");
            for workload in ["--builtin=select-only", "--builtin=tpcb-like"] {
                let transactions = if workload.contains("select") { 50 } else { 15 };
                let transactions_each = format!("--transactions={transactions}");
                // pgbench prepares while its thread waits for nothing else, not even for the other clients of that thread to
                // end the transactions they have open: where there are fewer connections each needs a thread.
                let arguments = ["--no-vacuum", "--client=64", "--jobs=64", &protocol, workload, &transactions_each];
                let (ended, most) = counting(server, database, || pgbench(proxy.address, &arguments));
                let said = &ended.stdout;
                let all = 64 * transactions;
                assert!(ended.status.success(), "{version} {protocol} {workload}: {ended}");
                let expected = format!("number of transactions actually processed: {all}/{all}\n");
                assert!(said.contains(&expected) && said.contains("failed transactions: 0 "), "{ended}");
                assert!(most <= u64::from(CONNECTIONS), "{protocol} {workload}: {most} database connections");
            }
        }
    });
}

/// Runs something, and counts the connections that the application's role has on the server meanwhile: the most there
/// were, as the server sees it.
fn counting<T>(server: &PostgresServer, database: &str, work: impl FnOnce() -> T) -> (T, u64) {
    let count = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{APP}' AND datname = '{database}'; SELECT pg_sleep(0.01)"
    );
    let working = AtomicBool::new(true);
    thread::scope(|scope| {
        let counter = scope.spawn(|| {
            let mut superuser = Wire::connect(server.address(), &Login::superuser().database("postgres")).unwrap();
            let mut most = 0;
            while working.load(Ordering::Relaxed) {
                let rows = superuser.query(&count);
                most = most.max(rows[0][0].as_ref().unwrap().parse().unwrap());
            }
            most
        });
        let done = StopsCounting(&working);
        let result = work();
        drop(done);
        (result, counter.join().unwrap())
    })
}

/// Ends the counting also when the work panics.
struct StopsCounting<'a>(&'a AtomicBool);

impl Drop for StopsCounting<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

#[test]
fn psycopg_3() {
    let setup = ["CREATE TABLE items (id int PRIMARY KEY, v text)"];
    each("clients_psycopg", FEW + 1, &setup, |server, database, proxy| {
        for address in [server.address(), proxy.address] {
            let mut script = python();
            script.arg("-c").arg(include_str!("clients/psycopg3.py")).arg(conninfo(address, database));
            // The driver may complain of its own pipeline after an error in it; what counts is that each step passed.
            let ended = run(script, "");
            assert!(ended.status.success() && ended.stdout.lines().count() == 9, "{ended}");
        }
    });
}

// ---------------------------------------------------------------- tokio-postgres

async fn connect(address: SocketAddr, database: &str) -> Client {
    let mut config = tokio_postgres::Config::new();
    config.host(address.ip().to_string()).port(address.port()).dbname(database);
    config.user(APP).password(APP_PASSWORD).connect_timeout(Duration::from_secs(20));
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(async move {
        // What goes wrong on it the client's calls say.
        let _ = connection.await;
    });
    client
}

/// Runs `check` with a client of each proxy; in bounded time.
fn with_tokio_postgres(name: &str, check: impl AsyncFn(Client, Client)) {
    let setup = ["CREATE TABLE items (id int PRIMARY KEY, v text)"];
    each(name, FEW, &setup, |_, database, proxy| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let checking = async {
            let one = connect(proxy.address, database).await;
            let other = connect(proxy.address, database).await;
            check(one, other).await;
        };
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), checking).await }).unwrap();
    });
}

#[test]
fn tokio_postgres_statements() {
    with_tokio_postgres("clients_tokio_statements", async |one, other| {
        for n in 0..20_i32 {
            let row = one.query_one("SELECT $1::int4 + 1, $2::text, $3::bytea", &[&n, &"text", &&b"\0\xff"[..]]).await;
            let row = row.unwrap();
            assert_eq!((row.get(0), row.get(1), row.get(2)), (n + 1, "text", &b"\0\xff"[..]));
        }
        let nothing: Option<i64> = one.query_one("SELECT NULL::int8", &[]).await.unwrap().get(0);
        assert_eq!(nothing, None);
        // The same statement by both, used in turns, over connections that change hands.
        let sql = "SELECT id, v FROM items WHERE id >= $1 ORDER BY id";
        let (mine, theirs) = (one.prepare(sql).await.unwrap(), other.prepare_typed(sql, &[Type::INT4]).await.unwrap());
        let insert = one.prepare("INSERT INTO items VALUES ($1, $2)").await.unwrap();
        for n in 0..10_i32 {
            assert_eq!(one.execute(&insert, &[&n, &format!("item {n}")]).await.unwrap(), 1);
            assert_eq!(other.query(&theirs, &[&0]).await.unwrap().len(), usize::try_from(n).unwrap() + 1);
            assert_eq!(one.query(&mine, &[&n]).await.unwrap().len(), 1);
        }
        let error = one.execute(&insert, &[&1, &"again"]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::UNIQUE_VIOLATION));
        assert_eq!(one.query("SELEC", &[]).await.unwrap_err().code(), Some(&SqlState::SYNTAX_ERROR));
        drop((mine, theirs, insert));
        let typed = one.query_typed("SELECT $1 || 'x'", &[(&"y", Type::TEXT)]).await.unwrap();
        assert_eq!(typed[0].get::<_, &str>(0), "yx");
        let messages = one.simple_query("SELECT 1; INSERT INTO items VALUES (99, 'x'); SELECT 2").await.unwrap();
        let rows = messages.iter().filter(|message| matches!(message, SimpleQueryMessage::Row(_)));
        assert_eq!(rows.count(), 2);
        assert!(one.simple_query("SELECT 1; SELEC").await.is_err());
        one.batch_execute("DELETE FROM items WHERE id = 99").await.unwrap();
        assert!(one.check_connection().await.is_ok());
    });
}

#[test]
fn tokio_postgres_types_it_must_look_up() {
    // For a type it does not know the driver asks the catalog, with statements it prepares on the way.
    with_tokio_postgres("clients_tokio_types", async |one, other| {
        one.batch_execute("CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TYPE pair AS (a int, b mood)")
            .await
            .unwrap();
        for client in [&one, &other] {
            let statement = client.prepare("SELECT ROW(1, 'bad')::pair, 'good'::mood, $1::mood[]").await.unwrap();
            assert_eq!(statement.columns()[0].type_().name(), "pair");
            assert_eq!(statement.params()[0].name(), "_mood");
        }
    });
}

#[test]
fn tokio_postgres_transactions_and_portals() {
    with_tokio_postgres("clients_tokio_transactions", async |mut one, other| {
        let transaction = one.transaction().await.unwrap();
        transaction.execute("INSERT INTO items SELECT n, 'x' FROM generate_series(1, 100) n", &[]).await.unwrap();
        let portal = transaction.bind("SELECT id FROM items ORDER BY id", &[]).await.unwrap();
        assert_eq!(transaction.query_portal(&portal, 30).await.unwrap().len(), 30);
        // Another client in between, and this one's connection is not its.
        assert!(other.query("SELECT * FROM items", &[]).await.unwrap().is_empty());
        let next = transaction.query_portal(&portal, 30).await.unwrap();
        assert_eq!(next[0].get::<_, i32>(0), 31);
        assert_eq!(transaction.query_portal(&portal, 0).await.unwrap().len(), 40);
        transaction.commit().await.unwrap();
        let mut transaction = one.transaction().await.unwrap();
        transaction.execute("DELETE FROM items WHERE id > 50", &[]).await.unwrap();
        let savepoint = transaction.savepoint("halfway").await.unwrap();
        assert!(savepoint.execute("INSERT INTO items VALUES (1, 'again')", &[]).await.is_err());
        savepoint.rollback().await.unwrap();
        let nested = transaction.transaction().await.unwrap();
        nested.execute("DELETE FROM items", &[]).await.unwrap();
        // Dropped, which rolls back.
        drop(nested);
        let count: i64 = transaction.query_one("SELECT count(*) FROM items", &[]).await.unwrap().get(0);
        assert_eq!(count, 50);
        transaction.rollback().await.unwrap();
        let transaction = one.build_transaction().read_only(true).start().await.unwrap();
        let error = transaction.execute("DELETE FROM items", &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::READ_ONLY_SQL_TRANSACTION));
        let error = transaction.query("SELECT 1", &[]).await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
        drop(transaction);
        let count: i64 = one.query_one("SELECT count(*) FROM items", &[]).await.unwrap().get(0);
        assert_eq!(count, 100);
    });
}

#[test]
fn tokio_postgres_copies() {
    with_tokio_postgres("clients_tokio_copies", async |one, other| {
        let sink = one.copy_in("COPY items FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        for n in 0..2_000 {
            sink.send(bytes::Bytes::from(format!("{n}\t{}\n", "x".repeat(1_000)))).await.unwrap();
        }
        assert_eq!(sink.finish().await.unwrap(), 2_000);
        let out = other.copy_out("COPY items TO STDOUT").await.unwrap();
        let bytes: usize =
            out.map_ok(|piece| piece.len()).try_fold(0, |sum, n| future::ready(Ok(sum + n))).await.unwrap();
        assert!(bytes > 2_000_000);
        // One that is given up, and one that fails.
        let sink = one.copy_in::<_, bytes::Bytes>("COPY items FROM STDIN").await.unwrap();
        drop(sink);
        let sink = one.copy_in("COPY items FROM STDIN").await.unwrap();
        let mut sink = std::pin::pin!(sink);
        sink.send(bytes::Bytes::from_static(b"not a number\n")).await.unwrap();
        let error = sink.finish().await.unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::INVALID_TEXT_REPRESENTATION));
        let out = one.copy_out("COPY items TO STDOUT").await.unwrap();
        drop(out);
        let count: i64 = one.query_one("SELECT count(*) FROM items", &[]).await.unwrap().get(0);
        assert_eq!(count, 2_000);
    });
}

#[test]
fn tokio_postgres_pipelines() {
    with_tokio_postgres("clients_tokio_pipelines", async |one, other| {
        let statement = one.prepare("SELECT $1::int4, pg_sleep(0)").await.unwrap();
        let asked = |n: i32| {
            let (one, statement) = (&one, &statement);
            async move { one.query_one(statement, &[&n]).await.unwrap().get::<_, i32>(0) }
        };
        // Futures polled together are sent together.
        let answers = future::join_all((0..500).map(asked)).await;
        assert_eq!(answers, (0..500).collect::<Vec<_>>());
        let mixed = (0..100_i32).map(|n| {
            let client = if n % 2 == 0 { &one } else { &other };
            async move { client.query("SELECT 6 / $1::int4", &[&(n % 3)]).await }
        });
        for (n, answer) in future::join_all(mixed).await.into_iter().enumerate() {
            match answer {
                Ok(_) => assert_ne!(n % 3, 0),
                Err(error) => assert_eq!((n % 3, error.code()), (0, Some(&SqlState::DIVISION_BY_ZERO))),
            }
        }
    });
}
