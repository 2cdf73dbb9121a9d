"""What applications do with psycopg 3, each step checked. Arguments: a connection string, and the proxy's or the server's."""

import sys
import threading

import psycopg
from psycopg import errors
from psycopg.rows import dict_row

DSN = sys.argv[1]


def autocommit():
    with psycopg.connect(DSN, autocommit=True) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        assert conn.execute("SELECT %s::int + %s", (1, 2)).fetchone() == (3,)
        assert conn.execute("SELECT %b::bytea", (b"\x00\xff",)).fetchone() == (b"\x00\xff",)
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        cur = conn.cursor(row_factory=dict_row)
        assert cur.execute("SELECT 1 AS a, NULL AS b").fetchone() == {"a": 1, "b": None}
        cur.execute("SELECT 1; SELECT 2")
        assert cur.fetchone() is not None and cur.nextset()


def transactions():
    with psycopg.connect(DSN) as conn:
        conn.execute("TRUNCATE items")
        conn.execute("INSERT INTO items VALUES (1, 'a')")
        conn.commit()
        conn.execute("INSERT INTO items VALUES (2, 'b')")
        conn.rollback()
        try:
            conn.execute("INSERT INTO items VALUES (1, 'again')")
            raise AssertionError("a duplicate was taken")
        except errors.UniqueViolation:
            conn.rollback()
        with conn.transaction():
            conn.execute("INSERT INTO items VALUES (3, 'c')")
            try:
                with conn.transaction():
                    conn.execute("INSERT INTO items VALUES (3, 'again')")
            except errors.UniqueViolation:
                pass
            conn.execute("INSERT INTO items VALUES (4, 'd')")
        assert conn.execute("SELECT id FROM items ORDER BY id").fetchall() == [(1,), (3,), (4,)]
        try:
            conn.execute("SELECT 1/0")
        except errors.DivisionByZero:
            pass
        try:
            conn.execute("SELECT 1")
            raise AssertionError("an aborted transaction went on")
        except errors.InFailedSqlTransaction:
            conn.rollback()
    for level in psycopg.IsolationLevel:
        with psycopg.connect(DSN) as conn:
            conn.isolation_level = level
            shown = conn.execute("SHOW transaction_isolation").fetchone()[0]
            assert shown.replace(" ", "_").upper() == level.name, (shown, level)


def prepared():
    """Prepared from the fifth execution on; of more than a hundred the oldest are deallocated."""
    with psycopg.connect(DSN, autocommit=True) as conn:
        for _ in range(12):
            assert conn.execute("SELECT %s::int * 2", (21,)).fetchone() == (42,)
        for n in range(130):
            for _ in range(7):
                assert conn.execute(f"SELECT {n} + %s::int", (n,)).fetchone() == (2 * n,)
        for n in range(130):
            assert conn.execute(f"SELECT {n} + %s::int", (1,), prepare=True).fetchone() == (n + 1,)
        # A statement that fails while it is prepared can be repeated.
        for _ in range(3):
            try:
                conn.execute("SELECT %s::int / 0", (1,), prepare=True)
            except errors.DivisionByZero:
                pass
    with psycopg.connect(DSN) as conn:
        conn.prepare_threshold = 0
        conn.prepared_max = 3
        for n in range(20):
            assert conn.execute(f"SELECT {n % 7}").fetchone() == (n % 7,)
            if n % 4 == 0:
                conn.commit()
            if n % 5 == 0:
                conn.rollback()


def changed_table():
    """A prepared statement whose table changes in between: psycopg clears its cache and goes on."""
    with psycopg.connect(DSN, autocommit=True) as conn:
        conn.execute("DROP TABLE IF EXISTS changing")
        conn.execute("CREATE TABLE changing AS SELECT 1 AS a")
        for _ in range(7):
            conn.execute("SELECT * FROM changing WHERE a = %s", (1,)).fetchall()
        conn.execute("ALTER TABLE changing ADD COLUMN b int")
        try:
            rows = conn.execute("SELECT * FROM changing WHERE a = %s", (1,)).fetchall()
            assert rows == [(1, None)]
        except errors.FeatureNotSupported:
            # "cached plan must not change result type": the server's own word, once.
            pass
        conn.execute("DEALLOCATE ALL")
        assert conn.execute("SELECT count(*) FROM changing").fetchone() == (1,)


def pipelines():
    with psycopg.connect(DSN, autocommit=True) as conn:
        with conn.pipeline():
            cursors = [conn.execute("SELECT %s::int", (n,)) for n in range(300)]
        assert [cursor.fetchone()[0] for cursor in cursors] == list(range(300))
        with conn.pipeline() as pipeline:
            first = conn.execute("SELECT 1")
            pipeline.sync()
            assert first.fetchone() == (1,)
            pipeline.sync()
            pipeline.sync()
        try:
            with conn.pipeline():
                conn.execute("SELECT 1/0")
                conn.execute("SELECT 2")
            raise AssertionError("no error")
        except errors.DivisionByZero:
            pass
        assert conn.execute("SELECT 3").fetchone() == (3,)
        with conn.pipeline(), conn.transaction():
            conn.execute("TRUNCATE items")
            conn.execute("INSERT INTO items VALUES (1, 'a')")
            conn.execute("INSERT INTO items VALUES (2, 'b')")
        try:
            with conn.pipeline(), conn.transaction():
                conn.execute("INSERT INTO items VALUES (3, 'c')")
                conn.execute("INSERT INTO items VALUES (1, 'again')")
        except errors.UniqueViolation:
            pass
        assert conn.execute("SELECT id FROM items ORDER BY id").fetchall() == [(1,), (2,)]


def server_cursors():
    with psycopg.connect(DSN) as conn:
        with conn.cursor("named") as cur:
            cur.itersize = 100
            cur.execute("SELECT generate_series(1, %s)", (1050,))
            assert sum(row[0] for row in cur) == 1050 * 1051 // 2
        with conn.cursor("scrolling", scrollable=True) as cur:
            cur.execute("SELECT generate_series(1, 10)")
            cur.scroll(5)
            assert cur.fetchone() == (6,)
            cur.scroll(0, mode="absolute")
            assert cur.fetchone() == (1,)
        conn.commit()
        with conn.cursor("held", withhold=True) as cur:
            cur.execute("SELECT generate_series(1, 10)")
            assert cur.fetchmany(3) == [(1,), (2,), (3,)]
            conn.commit()
            assert len(cur.fetchall()) == 7
    with psycopg.connect(DSN, autocommit=True) as conn, conn.cursor() as cur:
        assert [row[0] for row in cur.stream("SELECT generate_series(1, 500)")] == list(range(1, 501))


def copies():
    with psycopg.connect(DSN) as conn, conn.cursor() as cur:
        cur.execute("TRUNCATE items")
        with cur.copy("COPY items FROM STDIN") as copy:
            for n in range(10_000):
                copy.write_row((n, f"row {n}"))
        conn.commit()
        with cur.copy("COPY items TO STDOUT") as copy:
            assert sum(1 for _ in copy.rows()) == 10_000
        with cur.copy("COPY (SELECT * FROM items WHERE id < %s) TO STDOUT (FORMAT BINARY)", (10,)) as copy:
            copy.set_types(["int4", "text"])
            assert len(list(copy.rows())) == 10
        try:
            with cur.copy("COPY items FROM STDIN") as copy:
                copy.write_row((1, "a duplicate"))
        except errors.UniqueViolation:
            conn.rollback()
        try:
            with cur.copy("COPY items FROM STDIN") as copy:
                copy.write_row((10_001, "x"))
                raise ZeroDivisionError
        except ZeroDivisionError:
            conn.rollback()
        assert cur.execute("SELECT count(*) FROM items").fetchone() == (10_000,)


def many():
    with psycopg.connect(DSN) as conn, conn.cursor() as cur:
        cur.execute("TRUNCATE items")
        cur.executemany("INSERT INTO items VALUES (%s, %s)", [(n, str(n)) for n in range(1000)])
        cur.executemany("SELECT v FROM items WHERE id = %s", [(n,) for n in range(50)], returning=True)
        values = [cur.fetchone()[0]]
        while cur.nextset():
            values.append(cur.fetchone()[0])
        assert values == [str(n) for n in range(50)]
        try:
            cur.executemany("INSERT INTO items VALUES (%s, 'x')", [(2000,), (1,), (2001,)])
            raise AssertionError("no error")
        except errors.UniqueViolation:
            conn.rollback()


def side_by_side():
    """Several threads over fewer database connections, each seeing only its own."""
    failures = []

    def work(number):
        try:
            with psycopg.connect(DSN, autocommit=True, application_name=f"worker {number}") as conn:
                for n in range(30):
                    with conn.transaction():
                        row = conn.execute("SELECT %s::int, current_setting('application_name')", (n,)).fetchone()
                        assert row == (n, f"worker {number}"), row
        except Exception as error:  # noqa: BLE001
            failures.append(f"{number}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


for step in (
    autocommit,
    transactions,
    prepared,
    changed_table,
    pipelines,
    server_cursors,
    copies,
    many,
    side_by_side,
):
    print(step.__name__, flush=True)
    step()
