"""SQLAlchemy Core over psycopg 3, its own pool in between, its own types; stream_results, the driver's cancel."""

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

import program
import sqlalchemy_core

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


class SqlAlchemy(sqlalchemy_core.Core):
    def open(self):
        self.engine = sa.create_engine(sqlalchemy_core.url("postgresql+psycopg"))

    def cancelled(self, asleep):
        with self.engine.connect() as connection:
            with program.stopping(connection.connection.driver_connection.cancel_safe):
                try:
                    connection.execute(sa.text(asleep))
                except sa.exc.OperationalError as error:
                    return self.code(error) == "57014"
        return False

    def code(self, error):
        return error.orig.sqlstate

    def statement(self, sql, parameters):
        text = sql.replace(":", r"\:").replace("$", ":p")
        kind = next((kind for kind in TYPES if f"CAST($1 AS {kind})" in sql and len(parameters) == 1), None)
        statement = sa.text(text)
        return statement.bindparams(sa.bindparam("p1", type_=TYPES[kind])) if kind else statement


program.main(SqlAlchemy)
