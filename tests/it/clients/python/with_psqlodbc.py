"""psqlODBC by pyodbc: the variant is what its connection string says. It has no type of its own for much."""

import os

import pyodbc

import dbapi
import program

# Connections are given to the server when they are closed, not to a pool in the driver manager.
pyodbc.pooling = False
# libpq, which is below it, sends this; so texts of moments say the same as others'.
os.environ["PGTZ"] = "UTC"

AS_TEXT = {"bool", "numeric", "time", "timestamptz", "interval", "uuid", "json", "jsonb", "int4[]", "text[]", "mood"}


def connect():
    parts = {
        "DRIVER": os.environ["PSQLODBC"],
        "SERVER": program.HOST,
        "PORT": program.PORT,
        "UID": program.USER,
        "PWD": program.PASSWORD,
        "DATABASE": program.DATABASE,
    }
    return pyodbc.connect("".join(f"{key}={value};" for key, value in parts.items()) + program.VARIANT)


def driver_version():
    """As it says once it is connected: 13.02.0000."""
    connection = connect()
    try:
        return connection.getinfo(pyodbc.SQL_DRIVER_VER)
    finally:
        connection.close()


class PsqlOdbc(dbapi.DbApi):
    name, version = "psqlODBC", driver_version()
    mark = "?"

    def open(self):
        self.connection = connect()

    def many(self, items):
        self.connection.cursor().executemany("INSERT INTO items VALUES (?, ?)", items)

    def stream(self, sql):
        cursor = self.connection.cursor()
        cursor.execute(sql)
        while rows := cursor.fetchmany(program.ROWS_AT_A_TIME):
            yield from rows
        cursor.close()

    def cancelled(self, asleep):
        cursor = self.connection.cursor()
        with program.stopping(cursor.cancel):
            try:
                cursor.execute(asleep)
            except pyodbc.Error as error:
                self.connection.rollback()
                if self.code(error) != "57014":
                    raise
                return True
        self.connection.commit()
        return False

    def native(self, kind, text, data):
        return text if kind == "inet" else super().native(kind, text, data)

    def code(self, error):
        return error.args[0]

    def is_text(self, kind):
        return kind in AS_TEXT


program.main(PsqlOdbc)
