//! Every state a session can be in when its client vanishes: each function brings a client there, and makes sure that
//! it is there.
//!
//! Statements that run block on a lock which the superuser holds, so that they run for as long as the kill needs, and
//! no longer. Whatever a client writes into `lost` must never be committed.

use std::io::Read;

use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::bystanders::AT_NARROW;
use super::{Place, Scene, Victim, wait_for_rows};
use crate::harness::levels::Levels;
use crate::harness::wire::{
    Login, Wire, authenticate, batch, below, bind, copy_data, execute, flush, function_call, kinds, parse, parse_typed,
    query, sync, terminate,
};

/// Brings a client into the state.
pub(super) type State = for<'a> fn(&'a Scene<'_>, &mut u64) -> Victim<'a>;

/// Before the first client comes.
pub const SETUP: [&str; 5] = [
    "CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL)",
    "INSERT INTO counters SELECT i, 0 FROM generate_series(0, 15) AS i",
    "CREATE TABLE lost (a text)",
    // What a text does not show: many temporary tables, which take a while to be dropped.
    "CREATE FUNCTION make_tables() RETURNS void LANGUAGE plpgsql AS $$ BEGIN \
     FOR i IN 1..25 LOOP EXECUTE format('CREATE TEMP TABLE made_%s (a int PRIMARY KEY)', i); END LOOP; END $$",
    "CREATE TABLE numbers AS SELECT i, repeat('x', 1000) AS text FROM generate_series(1, 6000) AS i",
];

/// As a client asks for TLS.
pub const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// More than all buffers on the way to a client that does not read: 6 MB.
const MUCH: &str = "SELECT * FROM numbers";
/// Bytes of a parameter that is too large to be read whole.
const LARGE: usize = 2 << 20;

pub(super) const STATES: [(&str, State); 24] = [
    ("before the startup packet", before_startup),
    ("in the TLS handshake", in_tls_handshake),
    ("asked for a password", asked_for_password),
    ("in SCRAM", in_scram),
    ("idle", idle),
    ("in a simple query", in_a_query),
    ("in rows that nobody reads", rows_unread),
    ("in an idle transaction", in_transaction),
    ("in an aborted transaction", in_aborted_transaction),
    ("in a pipeline without Sync", pipeline_without_sync),
    ("behind a Flush", behind_flush),
    ("half a frame sent", half_a_frame),
    ("half a frame sent in a transaction", half_a_frame_in_transaction),
    ("in COPY IN", in_copy_in),
    ("in COPY OUT", in_copy_out),
    ("half of a large Bind sent", half_a_bind),
    ("half of a function call sent", half_a_function_call),
    ("pinned by a temporary table", pinned_by_table),
    ("pinned by an advisory lock", pinned_by_lock),
    ("with settings of its own", with_settings),
    ("while its connection is reset behind it", reset_behind_it),
    ("in session mode", session_idle),
    ("in session mode, in a transaction", session_in_transaction),
    ("behind its Terminate", behind_terminate),
];

/// Those that need the only connection of `narrow`, one after another.
pub(super) const STATES_IN_TURN: [(&str, State); 5] = [
    ("in line during the login", login_in_line),
    ("in line with a request", request_in_line),
    ("while its settings are replayed", settings_replayed),
    ("in line for a connection that is being reset", in_line_for_reset),
    ("while the connection is reset before its next", full_reset),
];

// ---------------------------------------------------------------- before the login is done

fn before_startup<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::connect(scene.main.address);
    let startup = scene.login().startup();
    victim.send(&startup[..below(random, startup.len())]);
    victim
}

fn in_tls_handshake<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::connect(scene.main.address);
    victim.send(&SSL_REQUEST);
    let mut answer = [0];
    victim.carrier.read_exact(&mut answer).unwrap();
    let mut session = rustls::ClientConnection::new(scene.tls.clone(), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    // All of it, and the rest of the handshake is the client's; or a part.
    let length = [hello.len(), 1 + below(random, hello.len() - 1)][below(random, 2)];
    victim.send(&hello[..length]);
    victim
}

fn asked_for_password<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::connect(scene.main.address);
    if below(random, 2) == 0 {
        victim.start_tls(scene);
    }
    victim.send(&scene.login().startup());
    victim.until(b'R', 1);
    victim
}

fn in_scram<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = asked_for_password(scene, random);
    let proof = proof(&mut victim, &scene.login());
    victim.send(&proof[..below(random, proof.len())]);
    victim
}

/// Begins SCRAM; what would prove the password.
fn proof(victim: &mut Victim<'_>, login: &Login) -> Vec<u8> {
    let mut scram = ScramSha256::new(login.password.as_bytes(), ChannelBinding::unsupported());
    let mut out = bytes::BytesMut::new();
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut out).unwrap();
    victim.send(&out);
    let challenge = victim.until(b'R', 1).remove(0);
    scram.update(&challenge.body[4..]).unwrap();
    out.clear();
    frontend::sasl_response(scram.message(), &mut out).unwrap();
    out.to_vec()
}

/// The first client with its settings: somebody must ask the database what it is to be told.
fn login_in_line<'a>(scene: &'a Scene<'_>, _: &mut u64) -> Victim<'a> {
    let turn = scene.turn();
    let mut holder = hold_narrow(scene);
    let login = scene.login().with("application_name", &format!("victim {}", scene.number()));
    let mut victim = Victim::connect(scene.narrow.address);
    victim.send(&login.startup());
    victim.until(b'R', 1);
    let proof = proof(&mut victim, &login);
    victim.send(&proof);
    in_line(scene, AT_NARROW + 1);
    victim.then(move || {
        holder.query("COMMIT");
        drop(turn);
    })
}

// ---------------------------------------------------------------- without a connection, or in line for one

fn idle<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    if below(random, 2) == 0 {
        assert_eq!(victim.run("SELECT 1"), "TDCZ");
    }
    victim
}

fn behind_terminate<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = idle(scene, random);
    victim.send(&terminate());
    victim
}

fn half_a_frame<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    send_half(&mut victim, &query("INSERT INTO lost VALUES ('half a frame')"), random);
    victim
}

fn half_a_frame_in_transaction<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = in_transaction(scene, random);
    send_half(&mut victim, &query("COMMIT"), random);
    victim
}

fn send_half(victim: &mut Victim<'_>, bytes: &[u8], random: &mut u64) {
    victim.send(&bytes[..1 + below(random, bytes.len() - 1)]);
}

fn request_in_line<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let turn = scene.turn();
    let mut victim = Victim::logged_in(scene, scene.narrow, random);
    let mut holder = hold_narrow(scene);
    victim.send(&query("INSERT INTO lost SELECT 'in line' FROM no_such_table"));
    in_line(scene, AT_NARROW + 1);
    victim.then(move || {
        holder.query("COMMIT");
        drop(turn);
    })
}

/// Somebody in a transaction on the only connection, and all bystanders in line behind.
fn hold_narrow(scene: &Scene<'_>) -> Wire {
    let mut holder = Wire::connect(scene.narrow.address, &scene.login()).unwrap();
    holder.query("BEGIN; SELECT 1");
    in_line(scene, AT_NARROW);
    holder
}

fn in_line(scene: &Scene<'_>, waiting: u64) {
    Levels::wait_until(scene.narrow.admin, &format!("{waiting} in line"), |levels| levels.waiting == waiting);
}

/// The victim's settings are put on a connection that had another's, which takes as long as a lock is held.
fn settings_replayed<'a>(scene: &'a Scene<'_>, _: &mut u64) -> Victim<'a> {
    let turn = scene.turn();
    let name = format!("victim_{}", scene.number());
    let mut superuser = scene.superuser();
    superuser.query(&format!("CREATE TEXT SEARCH CONFIGURATION {name} (COPY = simple)"));
    let mut victim = Victim::connect(scene.narrow.address);
    let login = scene.login().with("default_text_search_config", &format!("public.{name}"));
    authenticate(&mut victim.carrier, &login, &mut Vec::new()).unwrap();
    // Another's settings are on the connection now, and what its process has remembered of the name is worth nothing.
    Wire::connect(scene.narrow.address, &scene.login()).unwrap().query("SELECT 1");
    superuser.query(&format!("ALTER TEXT SEARCH CONFIGURATION {name} RENAME TO {name}_2"));
    superuser.query(&format!("ALTER TEXT SEARCH CONFIGURATION {name}_2 RENAME TO {name}"));
    superuser.query("BEGIN; LOCK TABLE pg_ts_config IN ACCESS EXCLUSIVE MODE");
    victim.send(&query("INSERT INTO lost SELECT 'replayed' FROM no_such_table"));
    let blocked = "SELECT 1 FROM pg_locks WHERE relation = 'pg_ts_config'::regclass AND NOT granted";
    wait_for_rows(&mut superuser, "replaying", blocked);
    victim.then(move || {
        superuser.query("COMMIT");
        drop(turn);
    })
}

// ---------------------------------------------------------------- in a request

fn in_a_query<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let number = scene.number();
    let mut superuser = scene.superuser();
    superuser.query(&format!("SELECT pg_advisory_lock({number})"));
    let mut victim = Victim::logged_in(scene, scene.main, random);
    let sql = format!("SELECT pg_advisory_xact_lock({number})");
    match below(random, 2) {
        0 => victim.send(&query(&sql)),
        _ => victim.send(&batch([parse("", &sql), bind("", "", &[]), execute("", 0), sync()])),
    }
    let blocked = format!("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {number} AND NOT granted");
    wait_for_rows(&mut superuser, "running", &blocked);
    victim.then(move || drop(superuser.query(&format!("SELECT pg_advisory_unlock({number})"))))
}

fn rows_unread<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    victim.send(&query(MUCH));
    victim.until(b'D', 3);
    victim
}

fn in_copy_out<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    victim.send(&query("COPY numbers TO STDOUT"));
    victim.until(b'd', 3);
    victim
}

fn in_copy_in<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    victim.send(&query("COPY lost FROM STDIN"));
    victim.until(b'G', 1);
    let rows = copy_data(&"copied\n".repeat(100)).repeat(20);
    send_half(&mut victim, &rows, random);
    victim
}

fn in_transaction<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    in_transaction_at(scene, scene.main, random)
}

fn in_transaction_at<'a>(scene: &'a Scene<'_>, place: Place, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, place, random);
    assert_eq!(victim.run("BEGIN"), "CZ");
    assert_eq!(victim.run("INSERT INTO lost VALUES ('in a transaction')"), "CZ");
    victim
}

fn in_aborted_transaction<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = in_transaction(scene, random);
    victim.send(&query("SELECT 1/0"));
    victim.until(b'E', 1);
    victim.until(b'Z', 1);
    victim
}

fn pipeline_without_sync<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    victim.send(&insert("in a pipeline").repeat(1 + below(random, 5)));
    victim
}

fn behind_flush<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    victim.send(&[insert("behind a Flush"), flush()].concat());
    assert_eq!(kinds(&victim.until(b'C', 1)), "12C");
    victim
}

/// Not committed without a Sync.
fn insert(text: &str) -> Vec<u8> {
    batch([parse_typed("", "INSERT INTO lost VALUES ($1)", &[25]), bind("", "", &[Some(text)]), execute("", 0)])
}

fn half_a_bind<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    let large = "x".repeat(LARGE);
    let all = batch([
        parse_typed("", "INSERT INTO lost VALUES (left($1, 20))", &[25]),
        bind("", "", &[Some(&large)]),
        execute("", 0),
        sync(),
    ]);
    victim.send(&all[..LARGE / 2 + below(random, LARGE / 2)]);
    victim
}

fn half_a_function_call<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    // textlen.
    let call = function_call(1257, &[&"x".repeat(100_000)]);
    send_half(&mut victim, &call, random);
    victim
}

// ---------------------------------------------------------------- with state on the connection

fn pinned_by_table<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    assert_eq!(victim.run("CREATE TEMP TABLE mine AS SELECT 'mine' AS a"), "CZ");
    victim
}

/// The lock is free again in bounded time.
fn pinned_by_lock<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let number = scene.number();
    let mut victim = Victim::logged_in(scene, scene.main, random);
    assert_eq!(victim.run(&format!("SELECT pg_advisory_lock({number})")), "TDCZ");
    victim.then(move || {
        let held =
            format!("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {number} HAVING count(*) = 0");
        wait_for_rows(&mut scene.superuser(), "unlocked", &held);
    })
}

fn with_settings<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    for sql in
        ["SET work_mem = '7MB'", "SET search_path TO nowhere", "SET default_transaction_read_only TO on", "LISTEN here"]
    {
        victim.send(&query(sql));
        victim.until(b'Z', 1);
    }
    victim
}

fn reset_behind_it<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.main, random);
    // The first is seen, and pins; the others make the reset a long one.
    assert_eq!(victim.run("CREATE TEMP TABLE mine (a int)"), "CZ");
    assert_eq!(victim.run("SELECT make_tables()"), "TDCZ");
    victim.send(&terminate());
    victim
}

fn in_line_for_reset<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let turn = scene.turn();
    let mut victim = Victim::logged_in(scene, scene.narrow, random);
    let mut holder = Wire::connect(scene.narrow.address, &scene.login()).unwrap();
    holder.query("CREATE TEMP TABLE mine (a int)");
    holder.query("SELECT make_tables()");
    in_line(scene, AT_NARROW);
    victim.send(&query("SELECT 'in line'"));
    in_line(scene, AT_NARROW + 1);
    holder.send(&terminate());
    drop(holder);
    victim.then(move || drop(turn))
}

fn full_reset<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let turn = scene.turn();
    let mut victim = Victim::logged_in(scene, scene.narrow, random);
    assert_eq!(victim.run("SELECT make_tables()"), "TDCZ");
    victim.then(move || drop(turn))
}

fn session_idle<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    let mut victim = Victim::logged_in(scene, scene.session, random);
    victim.send(&query("SET work_mem = '9MB'"));
    victim.until(b'Z', 1);
    assert_eq!(victim.run("CREATE TEMP TABLE mine (a int)"), "CZ");
    victim
}

fn session_in_transaction<'a>(scene: &'a Scene<'_>, random: &mut u64) -> Victim<'a> {
    in_transaction_at(scene, scene.session, random)
}
