"""SQLAlchemy Core over PyMySQL or mysqlclient, as the variant says: its own pool in between, its own types, its own savepoints;
stream_results; KILL QUERY over another connection of the pool."""

import datetime
import json
import re

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

import mysql_dbapi
import program
import sqlalchemy_core

# What it calls the driver, and what that must be told: libmariadb wants TLS unless told otherwise.
DRIVER, OPTIONS = {"over PyMySQL": ("pymysql", {}), "over mysqlclient": ("mysqldb", {"ssl": False})}[program.VARIANT]
TYPES = {
    "TINYINT": mysql.TINYINT(),
    "SMALLINT UNSIGNED": mysql.SMALLINT(unsigned=True),
    "INT": sa.Integer(),
    "BIGINT": sa.BigInteger(),
    "BIGINT UNSIGNED": mysql.BIGINT(unsigned=True),
    "FLOAT": sa.Float(),
    "DOUBLE": sa.Double(),
    "DECIMAL(40,10)": sa.Numeric(40, 10),
    "VARCHAR(50)": sa.String(50),
    "CHAR(5)": sa.CHAR(5),
    "TEXT": sa.Text(),
    "VARBINARY(20)": sa.VARBINARY(20),
    "BLOB": sa.LargeBinary(),
    "DATE": sa.Date(),
    "TIME(6)": mysql.TIME(fsp=6),
    "DATETIME(6)": mysql.DATETIME(fsp=6),
    "TIMESTAMP(6)": mysql.TIMESTAMP(fsp=6),
    "YEAR": mysql.YEAR(),
    "JSON": sa.JSON(none_as_null=True),
    "ENUM('good','bad')": mysql.ENUM("good", "bad"),
    "SET('a','b','c')": mysql.SET("a", "b", "c"),
}


class SqlAlchemy(sqlalchemy_core.Core, mysql_dbapi.MySql):
    errors = sa.exc.OperationalError
    savepoint = None

    def open(self):
        url = sqlalchemy_core.url(f"mysql+{DRIVER}")
        # MariaDB's JSON is the text that it was given.
        self.engine = sa.create_engine(url, connect_args=OPTIONS, json_serializer=serialized)

    def rows(self, sql, *parameters):
        if sql == "SAVEPOINT s":
            self.savepoint = self.connection.begin_nested()
            return []
        if sql == "ROLLBACK TO SAVEPOINT s":
            self.savepoint.rollback()
            return []
        return super().rows(sql, *parameters)

    def cancelled(self, asleep):
        with self.engine.connect() as connection:
            number = connection.connection.driver_connection.thread_id()

            def kill():
                with self.engine.connect() as other:
                    other.execute(sa.text(f"KILL QUERY {number}"))

            return self.stopped(kill, lambda: connection.execute(sa.text(asleep)))

    def code(self, error):
        return error.orig.args[0]

    def native(self, kind, text, data):
        match kind:
            case "TIME":
                return datetime.time.fromisoformat(text)
            case "JSON":
                return json.loads(text)
            case "SET":
                return set(text.split(","))
            case _:
                return super().native(kind, text, data)

    def shown(self, kind, value):
        # What its JSON has read.
        return program.canonical("json", value) if kind == "JSON" and value is not None else super().shown(kind, value)

    def statement(self, sql, parameters):
        text = sql.replace(":", r"\:")
        if parameters:
            text = re.sub(r"\$(\d)", r":p\1", text)
        statement = sa.text(text)
        # The one column of `kinds` that it is about, which comes first or is the second parameter.
        kind = next((kind for kind in TYPES if f"`{kind}`" in sql), None)
        if kind and sql.startswith("SELECT"):
            others = [sa.column("server", sa.String)] if "," in sql.split(f"`{kind}`", 1)[1] else []
            statement = statement.columns(sa.column("v", TYPES[kind]), *others)
        elif kind and len(parameters) > 1:
            statement = statement.bindparams(sa.bindparam("p2", type_=TYPES[kind]))
        return statement


def serialized(value):
    return json.dumps(value, ensure_ascii=False)


program.main(SqlAlchemy)
