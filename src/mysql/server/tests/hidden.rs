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
    bench.runs("SELECT @@sql_mode, 'a@b.c'", &[]);
    // Its own it has set; once is enough.
    bench.runs("SELECT @A, @b, @c", &["SET @a = NULL, @c = NULL"]);
    bench.runs("SELECT @a, @b, @c", &[]);
    bench.runs("SET @a = @d", &["SET @d = NULL"]);
    // What its own code may have set is unset before that next time.
    bench.client = client(MODERN, 3);
    assert_eq!(texts(&bench.attach()), ["SET @a = NULL, @c = NULL"]);
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
    for text in ["CALL a.b.c()", "SELECT @`a b`", "XA START 'a'", "DO 1; CALL p()"] {
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
