//! User variables that other clients' triggers have set, of which no server tells.

use super::*;

/// Another client has run a statement that may have had one fire.
fn bench() -> Bench {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.client = client(MODERN, 2);
    assert_eq!(bench.attach(), b"");
    bench.runs("INSERT INTO t VALUES (1)", &[]);
    bench.client = client(MODERN, 1);
    assert_eq!(bench.attach(), b"");
    bench
}

impl Bench {
    /// The client says so, behind these words of the proxy's, and all of it is done.
    fn runs(&mut self, text: &str, ahead: &[&str]) {
        let expected: Vec<&str> = ahead.iter().copied().chain([text]).collect();
        assert_eq!(texts(&self.says(&says(command::QUERY, text.as_bytes()))), expected);
        expected.iter().for_each(|_| _ = self.hears(&packets(1, &[ok(mark::OK, AUTO)])));
        assert!(self.server.owed.is_empty());
    }
}

#[test]
fn variables_of_others_are_unset() {
    let mut bench = bench();
    bench.runs("SELECT 1 FROM t", &[]);
    bench.runs("SET @b = 'a@b.c'", &[]);
    bench.runs("SELECT @@sql_mode, 'a@b.c', @a := 5", &[]);
    // Of its own it has set one; once is enough.
    bench.runs("SELECT @D, @b, @`a`, @`A.c`, 'see you @ noon'", &["SET @a.c = NULL, @d = NULL"]);
    bench.runs("SELECT @d, @b", &[]);
    bench.runs("SET @a = @e", &["SET @e = NULL"]);
    // What its own code may have set is unset before that next time.
    bench.client = client(MODERN, 3);
    assert_eq!(texts(&bench.attach()), ["SET @a.c = NULL, @d = NULL"]);
}

/// What the connection seems to have already another client's code may have overwritten.
#[test]
fn variables_of_ones_own_are_brought() {
    let mut bench = bench();
    let edit = |settings: &Settings| settings.edited(|values| _ = values.insert("@a".to_owned(), "'x'".to_owned()));
    let (wanted, applied) = (edit(bench.client.settings()), edit(&bench.server.applied));
    bench.server.has_now(applied, wanted, &mut bench.client);
    bench.runs("SELECT @a, @b", &["SET @a = 'x', @b = NULL"]);
    bench.runs("SELECT @a, @b", &[]);
    // As the connection changes hands: its own code may set it next.
    bench.server.client = Some(9);
    assert_eq!(texts(&bench.attach()), ["SET @a = 'x'"]);
    bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
    bench.runs("SELECT @a, @b", &["SET @b = NULL"]);
}

/// So many are told apart.
#[test]
fn very_many_variables() {
    let mut bench = bench();
    for number in 0..=256 {
        assert!(!bench.server.is_soiled);
        bench.runs(&format!("SELECT @a{number}"), &[&format!("SET @a{number} = NULL")]);
    }
    assert!(bench.server.is_soiled);
}

#[test]
fn nobody_elses_code_has_run() {
    let mut bench = Bench::new(MODERN, usize::MAX);
    bench.runs("INSERT INTO t VALUES (1)", &[]);
    bench.runs("SELECT @a", &[]);
    bench.client = client(MODERN, 2);
    assert_eq!(bench.attach(), b"");
    bench.runs("SELECT @a", &["SET @a = NULL"]);
}

/// What may look at anything finds a connection as new.
#[test]
fn code_that_can_not_be_seen() {
    for text in ["CALL a.b.c()", "SELECT * FROM information_schema.user_variables", "DO 1; CALL p()"] {
        let mut bench = bench();
        assert_eq!(texts(&bench.says(&says(command::QUERY, text.as_bytes()))), ["", AS_NEW], "{text}");
        bench.hears(&packets(1, &[ok(mark::OK, AUTO)]));
        assert_eq!(bench.hears(&packets(1, &[ok(mark::OK, AUTO)])), b"");
        assert_eq!(texts(&bench.says(b"")).last().map(String::as_str), Some(text));
    }
    // Not in a transaction, and not what is the client's own.
    let mut bench = bench();
    bench.says(&says(command::QUERY, b"BEGIN"));
    bench.hears(&packets(1, &[ok(mark::OK, AUTO | status::IN_TRANSACTION)]));
    let sent = texts(&bench.says(&says(command::QUERY, b"CALL a.b.c()")));
    assert!(!sent.contains(&String::new()) && sent.ends_with(&["CALL a.b.c()".to_owned()]));
}
