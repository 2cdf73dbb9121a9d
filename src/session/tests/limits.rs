//! Limits of time: what is over its time is stopped, or ends with its session, and nothing is taken for longer than it was.

use super::*;

/// What the client says, what the database answers, how long it may take from then on, and what the client is told last.
struct Stalled<'a> {
    rules: Rules,
    secret: &'a [u8],
    asks: &'a [(u8, &'a [u8])],
    sent: &'a str,
    answers: &'a [(u8, &'a [u8])],
    told: &'a str,
}

/// Within its limit, the time in which a cancel must show, and a look of the worker's.
const AT_MOST: Duration = Duration::from_millis(1000 + 5000 + 500);
const ONE_SECOND: Option<Duration> = Some(Duration::from_secs(1));
const TRANSACTION_MAX: Rules = Rules { transaction_max: ONE_SECOND, ..NO_LIMITS };
const QUERY_TIMEOUT: Rules = Rules { query_timeout: ONE_SECOND, ..NO_LIMITS };

async fn ends_in_time(stalled: Stalled<'_>) {
    let Stalled { rules, secret, asks, sent, answers, told } = stalled;
    run(async {
        let mut f = Fixture::new(rules);
        let (mut client, session) = f.client();
        client.send(asks).await;
        let mut database = f.database(secret).await;
        database.expect(sent).await;
        database.send(answers).await;
        let began = Instant::now();
        for (kind, _) in answers {
            client.expect(std::str::from_utf8(&[*kind]).unwrap()).await;
        }
        let [severity, code, message] = client.last_error().await;
        assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "57014"), "{message}");
        assert!(message.contains(told), "{message}");
        assert!((Duration::from_secs(1)..=AT_MOST).contains(&began.elapsed()), "{told}: {:?}", began.elapsed());
        assert_eq!(within(session).await.unwrap(), End::Told);
        database.closed().await;
        assert!(began.elapsed() <= AT_MOST, "its locks are free: {:?}", began.elapsed());
        f.nothing_is_left(database).await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_that_its_client_leaves_open_ends_in_time() {
    let (rules, told) = (TRANSACTION_MAX, "transaction_max");
    let flushed = [&EXTENDED[..], &[(b'H', b"")]].concat();
    let complete: [(u8, &[u8]); 3] = [(b'1', b""), (b'2', b""), (b'C', b"INSERT 0 1\0")];
    let copy: [(u8, &[u8]); 2] = [(b'Q', b"COPY t FROM STDIN\0"), (b'd', b"1\n")];
    let failed: [(u8, &[u8]); 2] = [(b'E', ERROR), (b'Z', b"E")];
    for secret in [&b""[..], b"secret"] {
        for (asks, sent, answers) in [
            // It has all its answers, and the Sync is missing.
            (&flushed[..], "PBEH", &complete[..]),
            // Without a Flush the database keeps them.
            (&EXTENDED[..], "PBE", &[]),
            // A cancel is heard when the next data come.
            (&copy[..], "Qd", &[(b'G', b"\0\0\0")]),
            (&[(b'Q', b"BEGIN; SELECT 1/0\0")], "Q", &failed[..]),
            // The database runs it, whoever asks for what.
            (&[(b'Q', b"BEGIN; SELECT pg_sleep(600)\0")], "Q", &[]),
        ] {
            let stalled = Stalled { rules: rules.clone(), secret, asks, sent, answers, told };
            ends_in_time(stalled).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_query_that_can_not_be_cancelled_ends_in_time() {
    let extended = [&EXTENDED[..], &[(b'S', b"")]].concat();
    for secret in [&b""[..], b"secret"] {
        for (asks, sent) in [(&[(b'Q', &b"SELECT pg_sleep(600)\0"[..])][..], "Q"), (&extended[..], "PBES")] {
            let (rules, told, answers) = (QUERY_TIMEOUT, "query_timeout", &[][..]);
            ends_in_time(Stalled { rules, secret, asks, sent, answers, told }).await;
        }
    }
}

/// Of a result in the middle of which no word can be said.
#[tokio::test(start_paused = true)]
async fn a_transaction_of_a_client_that_does_not_read_ends_in_time() {
    run(async {
        let mut f = Fixture::new(TRANSACTION_MAX);
        let (mut client, session) = f.client();
        client.send(&[(b'Q', b"SELECT 1\0")]).await;
        let mut database = f.database(b"secret").await;
        database.expect("Q").await;
        let began = Instant::now();
        let rows = vec![0; 1 << 20];
        let head = [&b"D"[..], &(1_u32 << 21).to_be_bytes(), &rows].concat();
        // It is taken to its end by nobody, or thrown away.
        let _ = within(database.0.write_all(&head)).await;
        assert!(began.elapsed() <= AT_MOST, "{:?}", began.elapsed());
        f.nothing_is_left(database).await;
        client.closed().await;
        assert_eq!(within(session).await.unwrap(), End::Told);
    })
    .await;
}

/// What the proxy has rolled back holds nothing but its connection. Its client is told at its next request, and not driven
/// out for that before as much time has gone by again.
#[tokio::test(start_paused = true)]
async fn a_client_is_told_of_a_rollback_behind_its_back_and_goes_on() {
    let rules = Rules { transaction_max: Some(Duration::from_secs(60)), ..NO_LIMITS };
    run(async {
        let mut f = Fixture::new(rules);
        let (mut client, session) = f.client();
        let mut database = None;
        for round in 0..3 {
            client.send(&[(b'Q', b"BEGIN\0")]).await;
            let mut peer = match database.take() {
                None => f.database(b"secret").await,
                Some(peer) => peer,
            };
            peer.expect("Q").await;
            let began = Instant::now();
            peer.send(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]).await;
            client.expect("CZ").await;
            // The rollback, and what leaves the client in a failed transaction.
            peer.expect("Q").await;
            peer.send(&[(b'C', b"ROLLBACK\0"), (b'C', b"BEGIN\0"), (b'E', ERROR), (b'Z', b"E")]).await;
            if round == 2 {
                let [severity, code, _] = client.last_error().await;
                assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "57014"));
                let lasted = began.elapsed();
                assert!((119..=121).contains(&lasted.as_secs()), "{lasted:?}");
                peer.closed().await;
                database = Some(peer);
                break;
            }
            tokio::time::sleep(Duration::from_secs(50)).await;
            client.send(&[(b'Q', b"SELECT 1\0")]).await;
            peer.expect("Q").await;
            let aborted = b"SERROR\0VERROR\0C25P02\0Mcurrent transaction is aborted\0\0";
            peer.send(&[(b'E', aborted), (b'Z', b"E")]).await;
            let (kind, body) = client.next().await.unwrap();
            assert_eq!(kind, b'E');
            assert!(body.escape_ascii().to_string().contains("VERROR\\x00C57014"), "{}", body.escape_ascii());
            client.expect("Z").await;
            client.send(&[(b'Q', b"ROLLBACK\0")]).await;
            peer.expect("Q").await;
            peer.send(&[(b'C', b"ROLLBACK\0"), (b'Z', b"I")]).await;
            client.expect("CZ").await;
            database = Some(peer);
        }
        assert_eq!(within(session).await.unwrap(), End::Told);
        f.nothing_is_left(database.unwrap()).await;
    })
    .await;
}

/// A statement that ends before the cancel meets it has no error to tell: the transaction is rolled back behind it.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_a_cancel_has_missed_is_rolled_back() {
    run(async {
        let mut f = Fixture::new(TRANSACTION_MAX);
        let (mut client, session) = f.client();
        client.send(&[(b'Q', b"BEGIN; SELECT pg_sleep(2)\0")]).await;
        let mut database = f.database(b"secret").await;
        database.expect("Q").await;
        // The cancel is sent when the transaction has lasted for a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        database.send(&[(b'C', b"BEGIN\0"), (b'C', b"SELECT 1\0"), (b'Z', b"T")]).await;
        client.expect("CCZ").await;
        database.expect("Q").await;
        database.send(&[(b'C', b"ROLLBACK\0"), (b'C', b"BEGIN\0"), (b'E', ERROR), (b'Z', b"E")]).await;
        client.send(&[(b'Q', b"COMMIT\0")]).await;
        database.expect("Q").await;
        database.send(&[(b'E', ERROR), (b'Z', b"E")]).await;
        client.expect("EZ").await;
        client.send(&[(b'Q', b"ROLLBACK\0")]).await;
        database.expect("Q").await;
        database.send(&[(b'C', b"ROLLBACK\0"), (b'Z', b"I")]).await;
        client.expect("CZ").await;
        client.send(&bare("X")).await;
        assert_eq!(within(session).await.unwrap(), End::Goodbye);
        assert_eq!(f.figures(), IDLE);
    })
    .await;
}

/// One that the database does not let go of is not rolled back again and again: its session ends.
#[tokio::test(start_paused = true)]
async fn a_transaction_that_can_not_be_rolled_back_ends_in_time() {
    run(async {
        let mut f = Fixture::new(TRANSACTION_MAX);
        let (mut client, session) = f.client();
        client.send(&[(b'Q', b"BEGIN\0")]).await;
        let mut database = f.database(b"secret").await;
        database.expect("Q").await;
        let began = Instant::now();
        database.send(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]).await;
        client.expect("CZ").await;
        database.expect("Q").await;
        database.send(&[(b'E', ERROR), (b'Z', b"T")]).await;
        let [severity, code, _] = client.last_error().await;
        assert_eq!((severity.as_str(), code.as_str()), ("FATAL", "57014"));
        assert!(began.elapsed() <= AT_MOST, "{:?}", began.elapsed());
        assert_eq!(within(session).await.unwrap(), End::Told);
        while let Some((kind, _)) = database.next().await {
            assert_ne!(kind, b'Q', "once is enough");
        }
        f.nothing_is_left(database).await;
    })
    .await;
}

/// The time that the proxy's own words take ahead of a transaction is none of its own.
#[tokio::test(start_paused = true)]
async fn a_transaction_behind_words_that_took_long_is_not_too_long() {
    run(async {
        let mut f = Fixture::new(TRANSACTION_MAX);
        let (mut one, first) = f.client();
        one.send(&[(b'Q', b"SET work_mem = '1MB'\0")]).await;
        let mut database = f.database(b"secret").await;
        database.expect("Q").await;
        database.send(&[(b'C', b"SET\0"), (b'Z', b"I")]).await;
        one.expect("CZ").await;
        let (mut other, second) = f.client();
        other.send(&[(b'Q', b"BEGIN\0")]).await;
        // Away with the other client's setting: that takes its time.
        database.expect("PBES").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        database.send(&[(b'1', b""), (b'2', b""), (b'C', b"RESET\0"), (b'Z', b"I")]).await;
        database.expect("Q").await;
        database.send(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]).await;
        other.expect("CZ").await;
        other.send(&[(b'Q', b"COMMIT\0")]).await;
        database.expect("Q").await;
        database.send(&[(b'C', b"COMMIT\0"), (b'Z', b"I")]).await;
        other.expect("CZ").await;
        for (client, session) in [(&mut one, first), (&mut other, second)] {
            client.send(&bare("X")).await;
            assert_eq!(within(session).await.unwrap(), End::Goodbye);
        }
    })
    .await;
}

/// Nor is the time that a reset takes behind the last one, if it ends with its connection.
#[tokio::test(start_paused = true)]
async fn a_transaction_behind_a_reset_that_hangs_is_not_too_long() {
    run(async {
        let config = PoolConfig { reset: crate::config::ResetPolicy::Full, ..PoolConfig::default() };
        let mut f = Fixture::with(TRANSACTION_MAX, config);
        f.endpoint.pools.set_budget(2);
        let (mut one, session) = f.client();
        let (mut other, _other_session) = f.client();
        let answer: [(u8, &[u8]); 2] = [(b'C', b"SELECT 1\0"), (b'Z', b"I")];
        let mut databases = Vec::new();
        for client in [&mut one, &mut other] {
            client.send(&[(b'Q', b"SELECT 1\0")]).await;
            let mut database = f.database(b"secret").await;
            database.expect("Q").await;
            databases.push(database);
        }
        let [first, second] = databases.as_mut_slice() else { panic!() };
        for (database, client) in [(&mut *second, &mut other), (&mut *first, &mut one)] {
            database.send(&answer).await;
            client.expect("CZ").await;
            database.expect("Q").await;
        }
        // The reset of one of them comes to its end, the other does not.
        second.send(&answer).await;
        first.closed().await;
        one.send(&[(b'Q', b"BEGIN\0")]).await;
        second.expect("Q").await;
        second.send(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]).await;
        one.expect("CZ").await;
        one.send(&[(b'Q', b"SELECT 2\0")]).await;
        let (_, asked) = second.next().await.unwrap();
        assert_eq!(asked, b"SELECT 2\0");
        second.send(&[(b'C', b"SELECT 1\0"), (b'Z', b"T")]).await;
        one.expect("CZ").await;
        one.send(&bare("X")).await;
        assert_eq!(within(session).await.unwrap(), End::Goodbye);
    })
    .await;
}

/// What is over in time is over: the next transaction has a time of its own.
#[tokio::test(start_paused = true)]
async fn a_cancelled_query_is_told_and_its_session_goes_on() {
    run(async {
        let mut f = Fixture::new(QUERY_TIMEOUT);
        let (mut client, session) = f.client();
        let mut database = None;
        for _ in 0..5 {
            client.send(&[(b'Q', b"SELECT pg_sleep(600)\0")]).await;
            let mut peer = match database.take() {
                None => f.database(b"secret").await,
                Some(peer) => peer,
            };
            peer.expect("Q").await;
            // The cancel takes its time.
            tokio::time::sleep(Duration::from_secs(4)).await;
            peer.send(&[(b'E', b"SERROR\0VERROR\0C57014\0Mcanceling statement\0\0"), (b'Z', b"I")]).await;
            client.expect("EZ").await;
            database = Some(peer);
        }
        client.send(&bare("X")).await;
        assert_eq!(within(session).await.unwrap(), End::Goodbye);
        assert_eq!(f.figures(), IDLE);
    })
    .await;
}

/// A pinned client that asks for nothing is told, once its time is up, and its connection is let go. Others, and one that asks
/// now and then, stay; the shorter of two limits counts.
#[tokio::test(start_paused = true)]
async fn a_pinned_client_may_not_be_idle_for_ever() {
    let minutes = |number: u64| Some(Duration::from_secs(60 * number));
    for (pinned, idle, code) in [(1, None, "57P05"), (1, minutes(2), "57P05"), (2, minutes(1), "57P05")] {
        let rules = Rules { pin_idle_timeout: minutes(pinned), idle_client_timeout: idle, ..NO_LIMITS };
        run(async {
            let mut f = Fixture::new(rules);
            let (mut client, session) = f.client();
            let mut database = None;
            for text in [&b"SELECT 1\0"[..], b"LOAD 'x'\0", b"SELECT 1\0"] {
                client.send(&[(b'Q', text)]).await;
                let mut peer = match database.take() {
                    None => f.database(&[]).await,
                    Some(peer) => peer,
                };
                peer.expect("Q").await;
                peer.send(&[(b'C', b"SELECT 1\0"), (b'Z', b"I")]).await;
                client.expect("CZ").await;
                database = Some(peer);
                tokio::time::sleep(Duration::from_secs(50)).await;
            }
            let began = Instant::now();
            let [severity, found, message] = client.last_error().await;
            assert_eq!((severity.as_str(), found.as_str()), ("FATAL", code));
            let setting = if pinned == 1 { "(pin_idle_timeout)" } else { "(idle_client_timeout)" };
            assert!(message.contains(setting), "{message}");
            let lasted = began.elapsed();
            assert!((9..=11).contains(&lasted.as_secs()), "{lasted:?}");
            assert_eq!(within(session).await.unwrap(), End::Told);
            let mut database = database.unwrap();
            database.closed().await;
            f.nothing_is_left(database).await;
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_not_pinned_may_be_idle() {
    run(async {
        let mut f = Fixture::new(Rules { pin_idle_timeout: ONE_SECOND, ..NO_LIMITS });
        let (mut client, session) = f.client();
        client.send(&[(b'Q', b"BEGIN\0")]).await;
        let mut database = f.database(&[]).await;
        database.expect("Q").await;
        database.send(&[(b'C', b"BEGIN\0"), (b'Z', b"T")]).await;
        client.expect("CZ").await;
        // In a transaction other limits count.
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.send(&[(b'Q', b"COMMIT\0")]).await;
        database.expect("Q").await;
        database.send(&[(b'C', b"COMMIT\0"), (b'Z', b"I")]).await;
        client.expect("CZ").await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        client.send(&[(b'X', b"")]).await;
        assert_eq!(within(session).await.unwrap(), End::Goodbye);
        assert_eq!(f.figures(), IDLE);
    })
    .await;
}
