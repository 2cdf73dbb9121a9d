//! Results and parameters of prepared statements, in all of their types: scenarios 88, 90 and 92.

use crate::harness::mysql::Flavour;
use crate::harness::mysql::beside::both_sides;
use crate::harness::mysql::wire::{COM_STMT_CLOSE, COM_STMT_PREPARE, capability};

/// The forms in which a client may want its results.
const FORMS: [u32; 4] =
    [0, capability::DEPRECATE_EOF, capability::SESSION_TRACK, capability::DEPRECATE_EOF | capability::SESSION_TRACK];

/// What can't be prepared, and more parameters than there may be: the server's own words.
#[test]
fn my_088_what_can_not_be_prepared() {
    both_sides("my_088", 4, &["CREATE TABLE t (i int)"], |sides| {
        for form in FORMS {
            let mut talk = sides.talk_as(|login| login.without(capability::DEPRECATE_EOF).with(form));
            for sql in [
                "SELEC 1",
                "",
                "SELECT 1; SELECT 2",
                "PREPARE p FROM 'SELECT 1'",
                "SELECT * FROM nowhere",
                "EXECUTE p",
                "SELECT ? FROM",
            ] {
                let reply = talk.command(&[&[COM_STMT_PREPARE], sql.as_bytes()].concat());
                assert!(reply[0].error().is_some(), "{sql}: {reply:?}");
                talk.same("SELECT 1");
            }
            let many = format!("SELECT ?{}", ", ?".repeat(65_535));
            assert_eq!(talk.command(&[&[COM_STMT_PREPARE], many.as_bytes()].concat())[0].error().unwrap().code, 1390);
            talk.same("SELECT 1");
        }
    });
}

/// Every type, as a result and as a parameter.
#[test]
fn my_090_every_type() {
    let setup = [
        "CREATE TABLE t (a tinyint, b smallint unsigned, c mediumint, d int unsigned, e bigint, f float, g double, \
         h decimal(20, 5), i date, j time(6), k datetime(3), l timestamp NULL, m year, n char(5), o varbinary(300), \
         p mediumtext, q enum('x', 'y'), r set('u', 'v'), s bit(9), u json, v point)",
        "INSERT INTO t VALUES (-1, 65535, -8388608, 4294967295, -9223372036854775808, 1.5, 2.25, 12345.67890, '2024-02-29', \
         '-838:59:58.123456', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56', 2024, 'abc', REPEAT(X'00FE', 150), \
         REPEAT('ü', 70000), 'y', 'u,v', b'101010101', '{\"k\": [1, null]}', POINT(1, 2))",
        "INSERT INTO t (a) VALUES (NULL)",
        "CREATE TABLE w (i int, v text, d datetime, n decimal(10, 3), x double)",
    ];
    both_sides("my_090", 4, &setup, |sides| {
        for form in FORMS {
            let mut talk = sides.talk_as(|login| login.without(capability::DEPRECATE_EOF).with(form));
            let all = talk.prepare("SELECT * FROM t");
            let one = talk.prepare("SELECT ?, ? FROM t WHERE a IS NOT NULL");
            let insert = talk.prepare("INSERT INTO w VALUES (?, ?, ?, ?, ?)");
            let none = talk.prepare("SELECT i FROM w WHERE FALSE");
            for _ in 0..2 {
                talk.execute(all, &[]);
                // A number and a text.
                talk.execute(one, &[0, 1, 3, 0, 0xFD, 0, 7, 0, 0, 0, 2, b'a', b'b']);
                // The second one is NULL.
                talk.execute(one, &[2, 1, 3, 0, 0xFD, 0, 7, 0, 0, 0]);
                let mut row = vec![0, 1, 3, 0, 0xFD, 0, 12, 0, 0xF6, 0, 5, 0];
                row.extend([0xFE, 0xFF, 0xFF, 0xFF]);
                row.extend(b"\x05t\xC3\xBCxt");
                row.extend([7, 0xE8, 7, 2, 29, 12, 34, 56]);
                row.extend(b"\x06-1.250");
                row.extend(0.1_f64.to_le_bytes());
                talk.execute(insert, &row);
                talk.execute(none, &[]);
                talk.same("SELECT * FROM w");
            }
            for statement in [all, one, insert, none] {
                talk.use_statement(statement, COM_STMT_CLOSE, &[]);
            }
            if sides.server.flavour() == Flavour::MySql {
                let vector = talk.prepare("SELECT STRING_TO_VECTOR('[1, 2.5]'), TO_VECTOR('[3]')");
                talk.execute(vector, &[]);
            }
        }
    });
}

/// A procedure's results, one after another, and its OUT parameters, which are the last of them.
///
/// For clients that want EOF packets a server says which result those are behind the columns alone, and that more follows as well.
/// The proxy does not know it there: it says both behind the rows, where they read it too.
#[test]
fn my_092_out_parameters() {
    let setup = [
        "CREATE TABLE t (i int)",
        "CREATE PROCEDURE p(IN a int, OUT b int, INOUT c text) BEGIN SELECT a; SET b = a + 1, c = CONCAT(c, '!'); \
         SELECT c, b; INSERT INTO t VALUES (a); END",
        "CREATE PROCEDURE fails(OUT b int) BEGIN SELECT 1; SET b = 2; SELECT * FROM nowhere; END",
    ];
    both_sides("my_092", 4, &setup, |sides| {
        for form in FORMS {
            let mut talk = sides
                .talk_as(|login| login.without(capability::DEPRECATE_EOF).with(form | capability::PS_MULTI_RESULTS));
            let call = talk.prepare("CALL p(?, ?, ?)");
            // The second one is NULL.
            let arguments = b"\x02\x01\x03\0\x03\0\xFD\0\x07\0\0\0\x02hi";
            if form & capability::DEPRECATE_EOF != 0 {
                assert!(talk.execute(call, arguments).len() > 10);
                talk.same("SELECT MAX(i) FROM t");
            } else {
                let reply = talk.execute_proxied(call, arguments);
                let [.., row, end, ok] = &reply[..] else { panic!("{reply:?}") };
                assert_eq!((&row.payload[..], &end.payload[..3]), (&b"\0\0\x08\0\0\0\x03hi!"[..], &b"\xFE\0\0"[..]));
                assert_eq!((end.payload[3] & 0x08, end.payload[4] & 0x10, ok.first()), (0x08, 0x10, 0));
            }
            let fails = talk.prepare("CALL fails(?)");
            let reply = talk.execute(fails, b"\x01\x01\x03\0");
            assert_eq!(reply.last().unwrap().error().unwrap().code, 1146);
            talk.all(&["SELECT 1", "CALL p(1, @b, @c)", "SELECT @b"]);
        }
    });
}
