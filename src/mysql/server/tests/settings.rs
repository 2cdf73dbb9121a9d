//! What a client sets by literal values goes with it, and stays with nobody else.

use super::*;

const NAMES: &str = "NAMES utf8mb4 COLLATE utf8mb4_general_ci";

fn done() -> Vec<u8> {
    packets(1, &[ok(mark::OK, AUTO)])
}

impl Bench {
    /// The client says so, and the server does it.
    fn sets(&mut self, text: &str) {
        let request = says(command::QUERY, text.as_bytes());
        assert_eq!(self.says(&request), request);
        assert_eq!(self.hears(&done()), done());
        assert_eq!((self.server.status(), self.client.pins), (Status::Idle, Pins::NONE), "{text}");
    }

    /// What a client that gets the connection now has the server do, which it does.
    fn replays(&mut self) -> Vec<String> {
        let sent = texts(&self.attach());
        sent.iter().for_each(|_| assert_eq!(self.hears(&done()), b""));
        assert_eq!(self.server.status(), Status::Idle);
        sent
    }
}

#[test]
fn settings_go_with_their_client() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.sets("SET autocommit = 0, time_zone = '+00:00'");
    bench.sets("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    assert_eq!(bench.replays(), [""; 0]);
    // Another client has none of it.
    let one = std::mem::replace(&mut bench.client, client(MODERN, 2));
    let back = |name: &str| format!("SESSION {name} = @@GLOBAL.{name}");
    let all = ["autocommit", "time_zone", "transaction_isolation"].map(back).join(", ");
    assert_eq!(bench.replays(), [format!("SET {all}")]);
    bench.sets("SET time_zone = '+00:00', wait_timeout = 90000");
    // The first one has it again, and nothing of the other's; by MariaDB's name.
    bench.client = one;
    bench.server.is_mariadb = true;
    let difference = [
        "SET SESSION wait_timeout = @@GLOBAL.wait_timeout",
        "SET SESSION autocommit = 0, SESSION tx_isolation = 'READ-COMMITTED'",
    ];
    assert_eq!(bench.replays(), difference);
    bench.sets("SET autocommit = DEFAULT, transaction_isolation = DEFAULT, time_zone = DEFAULT");
    bench.client = client(MODERN, 3);
    assert_eq!(bench.replays(), [""; 0]);
}

/// What writes can't be prepared where transactions may only read.
#[test]
fn statements_are_prepared_before_transactions_may_only_read() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.sets("PREPARE s FROM 'DELETE FROM t'");
    bench.sets("SET SESSION TRANSACTION READ ONLY");
    let one = std::mem::replace(&mut bench.client, client(MODERN, 2));
    bench.server = server();
    bench.replays();
    // Another one has set it too.
    bench.sets("SET SESSION TRANSACTION READ ONLY");
    bench.client = one;
    let sent = [
        "SET SESSION transaction_read_only = 0",
        "PREPARE `s` FROM 'DELETE FROM t'",
        "SET SESSION transaction_read_only = 1",
    ];
    assert_eq!(bench.replays(), sent);
    assert_eq!(bench.replays(), [""; 0]);
}

#[test]
fn what_fails_sets_nothing() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SET time_zone = 'nowhere'"));
    bench.hears(&packets(1, &[err(1298)]));
    assert!(bench.server.probe(&mut Vec::new()));
    bench.hears(&done());
    bench.client = client(MODERN, 2);
    assert_eq!(bench.replays(), [""; 0]);
}

/// What comes behind a SET waits until that is done.
#[test]
fn a_pipeline_waits_for_what_it_sets() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let set = says(command::QUERY, b"SET time_zone = '+00:00'");
    let prepare = says(command::STMT_PREPARE, b"SELECT NOW()");
    assert_eq!(bench.says(&[&set[..], &prepare].concat()), set);
    bench.hears(&done());
    assert_eq!(bench.says(b""), prepare);
}

/// A statement is shared by those with the same settings.
#[test]
fn statements_are_shared_under_the_same_settings() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let prepare = says(command::STMT_PREPARE, b"SELECT NOW()");
    let execute = |number: u8| says(command::STMT_EXECUTE, &[number, 0, 0, 0, 0, 1, 0, 0, 0]);
    bench.says(&prepare);
    bench.hears(&packets(1, &[vec![0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], column()]));
    bench.sets("SET time_zone = '+05:00'");
    assert_eq!(bench.says(&execute(1)), prepare);
    bench.hears(&packets(1, &[vec![0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]));
    assert_eq!(bench.says(b""), execute(4));
    bench.hears(&done());
    bench.sets("SET time_zone = DEFAULT");
    assert_eq!(bench.says(&execute(1)), execute(9));
}

/// What `init_query` has set is there again where it was undone, and then what the client has set.
#[test]
fn the_init_query_comes_before_what_clients_set() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let mut sent = Vec::new();
    bench.server.initialize(&"SET wait_timeout = 60".into(), &mut sent);
    bench.hears(&done());
    bench.sets("SET wait_timeout = 90000, sql_notes = 0");
    let mut other = client(MODERN, 2);
    std::mem::swap(&mut bench.client, &mut other);
    bench.sets("SET wait_timeout = 90000");
    let back = format!("SET {NAMES}, SESSION wait_timeout = 90000");
    assert_eq!(bench.replays(), ["SET SESSION sql_notes = @@GLOBAL.sql_notes", "SET wait_timeout = 60", &back]);
}

#[test]
fn a_clients_reset_is_the_end_of_what_it_set() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.sets("SET autocommit = 0");
    bench.says(&says(command::RESET_CONNECTION, b""));
    bench.hears(&done());
    assert_eq!(bench.replays(), [AS_NEW]);
    bench.client = client(MODERN, 2);
    assert_eq!(bench.replays(), [""; 0]);
}

/// Whose `wait_timeout` was `interactive_timeout` gets that back.
#[test]
fn an_interactive_client() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.options.fixed = vec![("interactive".to_owned(), "on".to_owned())];
    bench.sets("SET wait_timeout = 90000");
    bench.client = client(MODERN, 2);
    assert_eq!(bench.replays(), ["SET SESSION wait_timeout = @@GLOBAL.interactive_timeout"]);
}

/// Whose login has made a mode gets it back, and has none of it behind `DEFAULT`. MariaDB's resets take it away.
#[test]
fn a_client_that_wants_blanks_ignored() {
    for is_mariadb in [false, true] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.server.is_mariadb = is_mariadb;
        bench.server.options.fixed = vec![("ignore_space".to_owned(), "on".to_owned())];
        bench.sets("SET sql_mode = ''");
        let one = std::mem::replace(&mut bench.client, client(MODERN, 2));
        let back = "SET SESSION sql_mode = CONCAT(@@GLOBAL.sql_mode, ',IGNORE_SPACE')";
        assert_eq!(bench.replays(), [back]);
        bench.sets("SET sql_mode = CONCAT(CONCAT(@@sql_mode, ',STRICT_ALL_TABLES'), ',NO_AUTO_VALUE_ON_ZERO')");
        let mode = bench.client.settings().value("sql_mode").map(str::to_owned);
        let modes = "CONCAT(@@GLOBAL.sql_mode, ',IGNORE_SPACE,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO')";
        assert_eq!(mode.as_deref(), Some(modes));
        bench.sets("SET sql_mode = DEFAULT");
        bench.sets("SET sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')");
        let mode = bench.client.settings().value("sql_mode").map(str::to_owned);
        assert_eq!(mode.as_deref(), Some("CONCAT(@@GLOBAL.sql_mode, ',STRICT_ALL_TABLES')"));

        bench.client = client(MODERN, 3);
        bench.says(&says(command::RESET_CONNECTION, b""));
        bench.hears(&done());
        let expected = [back, AS_NEW];
        assert_eq!(bench.replays(), expected[usize::from(!is_mariadb)..]);
        bench.client = one;
        assert_eq!(bench.replays(), ["SET SESSION sql_mode = ''"]);
    }
}

/// A database goes along as well; one that is gone is no reason to use another.
#[test]
fn databases_go_with_their_client() {
    for select in [says(command::QUERY, b"USE other"), says(command::INIT_DB, b"other")] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        assert_eq!(bench.says(&select), select);
        assert_eq!(bench.hears(&done()), done());
        assert_eq!((bench.server.status(), bench.client.pins), (Status::Idle, Pins::NONE));
        let one = std::mem::replace(&mut bench.client, client(MODERN, 2));
        assert_eq!(bench.replays(), ["orders"]);
        bench.sets("SET time_zone = '+00:00'");
        bench.client = one;
        assert_eq!(bench.replays(), ["other", "SET SESSION time_zone = @@GLOBAL.time_zone"]);
        // As a reset leaves it.
        bench.says(&says(command::RESET_CONNECTION, b""));
        bench.hears(&done());
        assert_eq!(bench.replays(), [AS_NEW]);
        // Gone.
        let one = std::mem::replace(&mut bench.client, client(MODERN, 2));
        assert_eq!(bench.replays(), ["orders"]);
        bench.client = one;
        assert_eq!(texts(&bench.attach()), ["other"]);
        assert_eq!(bench.hears(&packets(1, &[err(1049)])), b"");
        let ping = says(command::PING, b"");
        assert_eq!(bench.says(&says(command::QUERY, b"DELETE FROM t")), ping);
        assert_eq!(crate::mysql::message::server_error(&bench.hears(&done())[4..]).unwrap().code, "1049");
        let back = says(command::QUERY, b"USE orders");
        assert_eq!(bench.says(&back), back);
        bench.hears(&done());
        assert_eq!(bench.replays(), [""; 0]);
        assert_eq!(texts(&bench.says(&says(command::QUERY, b"DELETE FROM t"))), ["DELETE FROM t"]);
    }
}

/// Statements keep the meaning that they have: then the connection is kept.
#[test]
fn a_database_behind_statements_is_not_followed() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::STMT_PREPARE, b"SELECT 1"));
    bench.hears(&packets(1, &[vec![0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], column()]));
    bench.says(&says(command::QUERY, b"USE other"));
    bench.hears(&done());
    assert_eq!(bench.client.pins, Pins::of(PinReason::Setting));
    // Nor is one that can't be left again.
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.server.options.database.clear();
    bench.says(&says(command::INIT_DB, b"other"));
    bench.hears(&done());
    assert_eq!(bench.client.pins, Pins::of(PinReason::Setting));
}

/// Whose client has gone before the answer came: what that says is known nevertheless.
#[test]
fn a_database_whose_client_has_gone() {
    for select in [says(command::QUERY, b"USE other"), says(command::INIT_DB, b"other")] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        assert_eq!(bench.says(&select), select);
        assert_eq!(bench.server.receive(&done(), None, &mut Out::new()), Ok(done().len()));
        let mut reset = Vec::new();
        bench.server.reset(&mut reset);
        assert_eq!(bench.server.receive(&done(), None, &mut Out::new()), Ok(done().len()));
        assert_eq!(bench.server.status(), Status::Idle);
        bench.client = client(MODERN, 2);
        assert_eq!(bench.replays(), ["orders", AS_NEW]);
    }
}

/// One that was interrupted may have been done.
#[test]
fn what_was_interrupted_is_set_anew() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::QUERY, b"SET time_zone = '+00:00', sql_notes = 0"));
    bench.hears(&packets(1, &[err(1317)]));
    bench.client = client(MODERN, 2);
    let back = |name: &str| format!("SESSION {name} = @@GLOBAL.{name}");
    assert_eq!(bench.replays(), [format!("SET {}, {}", back("sql_notes"), back("time_zone"))]);
    for text in ["USE other", "SET NAMES gbk"] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command::QUERY, text.as_bytes()));
        bench.hears(&packets(1, &[err(1317)]));
        bench.client = client(MODERN, 2);
        assert_eq!(bench.replays(), [if text == "USE other" { "orders".to_owned() } else { format!("SET {NAMES}") }]);
    }
}

/// Behind an `init_query` the default is another value than that of a client that says nothing.
#[test]
fn the_default_is_not_what_the_init_query_has_set() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    let init = "SET time_zone = '+02:00'";
    bench.server.initialize(&init.into(), &mut Vec::new());
    bench.hears(&done());
    bench.sets("SET time_zone = DEFAULT");
    let one = std::mem::replace(&mut bench.client, client(MODERN, 2));
    let back = "SET SESSION time_zone = @@GLOBAL.time_zone";
    assert_eq!(bench.replays(), [back.to_owned(), init.to_owned(), format!("SET {NAMES}")]);
    bench.client = one;
    assert_eq!(bench.replays(), ["SET SESSION time_zone = DEFAULT"]);
}

/// Modes that are there already are not added to a list without end.
#[test]
fn modes_are_added_once() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    for _ in 0..3 {
        bench.sets("SET sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES, no_zero_date')");
        bench.sets("SET sql_mode = CONCAT(@@sql_mode, ',,NO_ZERO_DATE,STRICT_TRANS_TABLES,')");
    }
    let mode = bench.client.settings().value("sql_mode").map(str::to_owned);
    let modes = "CONCAT(@@GLOBAL.sql_mode, ',STRICT_ALL_TABLES,no_zero_date,STRICT_TRANS_TABLES')";
    assert_eq!(mode.as_deref(), Some(modes));
    bench.sets("SET sql_mode = 'no_zero_date'");
    bench.sets("SET sql_mode = CONCAT(@@sql_mode, ',NO_ZERO_DATE,STRICT_ALL_TABLES')");
    assert_eq!(bench.client.settings().value("sql_mode"), Some("'no_zero_date,STRICT_ALL_TABLES'"));
}

/// In what character set texts are read is not known behind a `SET` that is not followed: what looks like a string may be none.
#[test]
fn texts_in_another_character_set() {
    for set in ["SET character_set_client = gbk", "SET CHARACTER SET gbk", "SET NAMES gbk, @a = 1"] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.says(&says(command::QUERY, set.as_bytes()));
        bench.hears(&done());
        assert!(bench.client.pins.can_be_reset());
        bench.says(&says(command::QUERY, b"SELECT '\xBF\\'; SET ROLE admin; -- '"));
        assert!(!bench.client.pins.can_be_reset(), "{set}");
    }
    // Because of a statement that is not ASCII.
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.says(&says(command::STMT_PREPARE, "SELECT 'ä'".as_bytes()));
    bench.hears(&packets(1, &[vec![0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], column()]));
    bench.says(&says(command::STMT_PREPARE, b"SET NAMES gbk"));
    bench.hears(&packets(1, &[vec![0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]));
    bench.says(&says(command::STMT_EXECUTE, &[2, 0, 0, 0, 0, 1, 0, 0, 0]));
    bench.hears(&done());
    bench.says(&says(command::QUERY, b"SELECT '\xBF\\'; SET ROLE admin; -- '"));
    assert!(!bench.client.pins.can_be_reset());
}

/// That the server could not select it now does not mean that it is gone.
#[test]
fn a_database_that_can_not_be_selected_now() {
    for (code, is_gone) in [(1049, true), (1044, true), (1205, false), (1053, false), (1105, false)] {
        let mut bench = Bench::new(MODERN, usize::MAX);
        bench.sets("USE other");
        bench.server = server();
        assert_eq!(texts(&bench.attach()), ["other"]);
        assert_eq!(bench.hears(&packets(1, &[err(code)])), b"");
        assert_eq!(bench.client.without_schema().is_some(), is_gone, "{code}");
        assert_eq!(bench.server.attach_failure().is_none(), is_gone, "{code}");
    }
}
