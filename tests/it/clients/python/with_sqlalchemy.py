"""SQLAlchemy Core over psycopg 3, its own pool in between, its own types; stream_results, the driver's cancel."""

import threading

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

import program

TYPES = {
    "bool": sa.Boolean(),
    "int2": sa.SmallInteger(),
    "int4": sa.Integer(),
    "int8": sa.BigInteger(),
    "float4": sa.REAL(),
    "float8": sa.Double(),
    "numeric": sa.Numeric(),
    "text": sa.Text(),
    "varchar(10)": sa.String(10),
    "char(5)": sa.CHAR(5),
    "bytea": sa.LargeBinary(),
    "date": sa.Date(),
    "time": sa.Time(),
    "timestamp": sa.DateTime(),
    "timestamptz": sa.DateTime(timezone=True),
    "interval": sa.Interval(),
    "uuid": sa.Uuid(),
    "json": sa.JSON(none_as_null=True),
    "jsonb": pg.JSONB(none_as_null=True),
    "int4[]": pg.ARRAY(sa.Integer),
    "text[]": pg.ARRAY(sa.Text),
    "inet": pg.INET(),
    "mood": pg.ENUM("good", "bad", name="mood"),
}
ITEMS = sa.table("items", sa.column("id", sa.Integer), sa.column("v", sa.Text))


class SqlAlchemy(program.Driver):
    name, version = "SQLAlchemy", sa.__version__
    connection = None

    def open(self):
        url = sa.URL.create(
            "postgresql+psycopg", program.USER, program.PASSWORD, program.HOST, program.PORT, program.DATABASE)
        self.engine = sa.create_engine(url)

    def close(self):
        self.engine.dispose()

    def rows(self, sql, *parameters):
        if self.connection:
            return run(self.connection, sql, parameters)
        with self.engine.begin() as connection:
            return run(connection, sql, parameters)

    def begin(self):
        self.connection = self.engine.connect()

    def commit(self):
        self.connection.commit()
        self.end()

    def rollback(self):
        self.connection.rollback()
        self.end()

    def end(self):
        self.connection.close()
        self.connection = None

    def many(self, items):
        self.connection.execute(sa.insert(ITEMS), [{"id": key, "v": v} for key, v in items])

    def stream(self, sql):
        yield from self.connection.execution_options(yield_per=program.ROWS_AT_A_TIME).execute(sa.text(sql))

    def cancelled(self, asleep):
        with self.engine.connect() as connection:
            timer = threading.Timer(program.BEFORE_CANCEL_S, connection.connection.driver_connection.cancel_safe)
            timer.start()
            try:
                connection.execute(sa.text(asleep))
            except sa.exc.OperationalError as error:
                return self.code(error) == "57014"
            finally:
                # A request still under way would hit what comes next.
                timer.join()
        return False

    def code(self, error):
        return error.orig.sqlstate


def run(connection, sql, parameters):
    text = sql.replace(":", r"\:").replace("$", ":p")
    names = [f"p{n}" for n in range(1, len(parameters) + 1)]
    kind = next((kind for kind in TYPES if f"CAST($1 AS {kind})" in sql and len(parameters) == 1), None)
    statement = sa.text(text)
    if kind:
        statement = statement.bindparams(sa.bindparam("p1", type_=TYPES[kind]))
    result = connection.execute(statement, dict(zip(names, parameters)))
    return [tuple(row) for row in result] if result.returns_rows else []


program.main(SqlAlchemy)
