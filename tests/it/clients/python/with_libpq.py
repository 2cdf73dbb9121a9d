"""libpq, called as others call it who name their statements: ActiveRecord (Ruby), Prisma's engine, PDO (PHP), and an
application that writes PREPARE and EXECUTE itself. psycopg gives the functions, and makes texts of values and values of texts.

Each client counts its own names from the beginning, so all clients have the same names for other statements.
"""

import contextlib
import re
from collections import OrderedDict

import psycopg
from psycopg import adapt, errors, generators, pq
from psycopg.types.json import Json, Jsonb

import program

# Statements that are kept; far less than their defaults (ActiveRecord 1,000, Prisma 100), so that many make room for others.
KEPT = 5


class Libpq(program.Driver):
    name, version = "libpq", pq.version_pretty(pq.version())
    # What the application asks for when it logs in.
    options = ""
    startup = ()
    results = pq.Format.TEXT

    def open(self):
        self.connection = psycopg.connect(dbname=program.DATABASE, options=self.options, autocommit=True, **program.DSN)
        self.pgconn = self.connection.pgconn
        self.statements = OrderedDict()
        self.count = 0
        for sql in self.startup:
            self.simple(sql)

    def close(self):
        self.connection.close()

    def simple(self, sql):
        self.pgconn.send_query(sql.encode())
        return self.result()

    def result(self):
        """What comes of what has been sent. Not by the calls that wait themselves: some keep all other threads waiting."""
        *_, result = self.connection.wait(generators.execute(self.pgconn))
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result)
        return result

    def values(self, result):
        transformer = adapt.Transformer(self.connection)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple) if result.nfields else []

    def texts(self, parameters):
        transformer = adapt.Transformer(self.connection)
        return transformer.dump_sequence(parameters, [adapt.PyFormat.TEXT] * len(parameters))

    def rows(self, sql, *parameters):
        if not parameters:
            return self.values(self.simple(sql))
        return self.values(self.run(sql, self.texts(parameters)))

    def run(self, sql, parameters):
        """A statement with parameters, by a name."""
        self.pgconn.send_query_prepared(self.named(sql), parameters, result_format=self.results)
        return self.result()

    def named(self, sql):
        """The name of this statement, which is prepared now or has been before; the one used longest ago makes room."""
        if sql not in self.statements:
            if len(self.statements) >= KEPT:
                self.forget(self.statements.popitem(last=False)[1])
            name = self.next_name()
            self.prepare(name, sql)
            self.statements[sql] = name
        self.statements.move_to_end(sql)
        return self.statements[sql]

    def prepare(self, name, sql):
        self.pgconn.send_prepare(name, sql.encode())
        self.result()

    def forget(self, name):
        # Whatever comes of it: in a failed transaction it is refused.
        with contextlib.suppress(psycopg.Error):
            self.simple(f"DEALLOCATE {name.decode()}")

    def begin(self):
        self.simple("BEGIN")

    def commit(self):
        self.simple("COMMIT")

    def rollback(self):
        self.simple("ROLLBACK")

    def many(self, items):
        for item in items:
            self.rows("INSERT INTO items VALUES ($1, $2)", *item)

    def stream(self, sql):
        self.simple(f"DECLARE rows CURSOR FOR {sql}")
        while portion := self.rows(f"FETCH {program.ROWS_AT_A_TIME} FROM rows"):
            yield from portion

    def cancelled(self, asleep):
        with program.stopping(self.pgconn.get_cancel().cancel):
            try:
                self.simple(asleep)
            except errors.QueryCanceled:
                return True
        return False

    def native(self, kind, text, data):
        value = program.native(kind, text, data)
        return {"json": Json, "jsonb": Jsonb}.get(kind, lambda value: value)(value)


class ActiveRecord(Libpq):
    """`a1`, `a2` ..., the SETs of its adapter, with some of the `variables` that database.yml often has, and its questions."""

    TYPES = "'int2', 'int4', 'int8', 'oid', 'float4', 'float8', 'numeric', 'bool', 'timestamp', 'timestamptz'"
    startup = (
        "set client_encoding to 'unicode'",
        "SET client_min_messages TO 'warning'",
        "SET standard_conforming_strings = on",
        "SET intervalstyle = iso_8601",
        "SET SESSION timezone TO 'UTC'",
        "SET SESSION statement_timeout TO '90s'",
        "SET SESSION lock_timeout TO 90000",
        f"SELECT t.oid, t.typname FROM pg_type as t WHERE t.typname IN ({TYPES})",
        "SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype, t.typbasetype FROM pg_type as t"
        " LEFT JOIN pg_range as r ON oid = rngtypid WHERE t.typname IN ('bool', 'text', 'mood') OR t.typtype IN ('r', 'e', 'd')"
        " OR t.typinput = 'array_in(cstring,oid,integer)'::regprocedure OR t.typelem != 0",
        "SHOW max_identifier_length",
    )

    def next_name(self):
        self.count += 1
        return b"a%d" % self.count

    def values(self, result):
        # An interval in ISO 8601 is one that psycopg does not read.
        return [tuple(interval(value) for value in row) for row in super().values(result)]

    def is_text(self, kind):
        return kind == "interval"


def interval(value):
    """An interval of ISO 8601 in PostgreSQL's own style, in which no connection is to say one."""
    if not isinstance(value, str):
        return value
    assert not re.fullmatch(r"\d+ day [\d:.]+", value), "intervalstyle has been lost"
    found = re.fullmatch(r"P(\d+)DT(\d+)H(\d+)M(\d+)(\.\d+)?S", value)
    if not found:
        return value
    days, hours, minutes, seconds, fraction = found.groups("")
    return f"{days} day {int(hours):02}:{int(minutes):02}:{int(seconds):02}{fraction}"


class Prisma(Libpq):
    """`s0`, `s1` ..., for each statement, without parameters too; described, with binary results, and closed by protocol."""

    options = '-c search_path="public"'
    results = pq.Format.BINARY

    def next_name(self):
        self.count += 1
        return b"s%d" % (self.count - 1)

    def prepare(self, name, sql):
        super().prepare(name, sql)
        self.pgconn.send_describe_prepared(name)
        self.result()

    def forget(self, name):
        self.pgconn.send_close_prepared(name)
        self.result()

    def rows(self, sql, *parameters):
        if sql.startswith(("FETCH", "SAVEPOINT", "ROLLBACK")):
            return super().rows(sql, *parameters)
        return self.values(self.run(sql, self.texts(parameters)))

    def is_text(self, kind):
        # Binary values of types that psycopg does not know.
        return kind == "mood"


class PrismaForPgbouncer(Prisma):
    """With `pgbouncer=true` in its URL: each query in a transaction, in which all statements are deallocated first."""

    options = ""
    startup = ('SET search_path = "public"',)

    def begin(self):
        super().begin()
        self.simple("DEALLOCATE ALL")
        self.statements.clear()
        self.count = 0

    def rows(self, sql, *parameters):
        if self.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            return super().rows(sql, *parameters)
        self.begin()
        try:
            found = super().rows(sql, *parameters)
        except psycopg.Error:
            self.rollback()
            raise
        self.commit()
        return found


class Pdo(Libpq):
    """`pdo_stmt_00000001` ..., prepared by protocol for each execution and deallocated by SQL, in transactions as well."""

    def run(self, sql, parameters):
        self.count += 1
        name = b"pdo_stmt_%08x" % self.count
        self.prepare(name, sql)
        try:
            self.pgconn.send_query_prepared(name, parameters)
            return self.result()
        finally:
            self.forget(name)


class Sql(Libpq):
    """PREPARE, EXECUTE and DEALLOCATE as SQL, the values as literals."""

    def next_name(self):
        self.count += 1
        return b"q%d" % self.count

    def prepare(self, name, sql):
        self.simple(f"PREPARE {name.decode()} AS {sql}")

    def run(self, sql, parameters):
        escape = pq.Escaping(self.pgconn).escape_literal
        literals = b", ".join(b"NULL" if value is None else bytes(escape(value)) for value in parameters)
        return self.simple(f"EXECUTE {self.named(sql).decode()}({literals.decode()})")


AS = {
    "as ActiveRecord": ActiveRecord,
    "as Prisma": Prisma,
    "as Prisma with pgbouncer=true": PrismaForPgbouncer,
    "as PDO": Pdo,
    "PREPARE and EXECUTE": Sql,
}
program.main(AS[program.VARIANT])
