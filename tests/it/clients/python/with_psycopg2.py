"""psycopg2: parameters are put into the text; named cursors, cancel()."""

import psycopg2
import psycopg2.errors
import psycopg2.extras

import dbapi
import program

psycopg2.extras.register_uuid()


class Psycopg2(dbapi.DbApi):
    name, version = "psycopg2", psycopg2.__version__.split()[0]

    def open(self):
        self.connection = psycopg2.connect(dbname=program.DATABASE, **program.DSN)

    def stream(self, sql):
        with self.connection.cursor("rows") as cursor:
            cursor.itersize = program.ROWS_AT_A_TIME
            cursor.execute(sql)
            yield from cursor

    def cancelled(self, asleep):
        with program.stopping(self.connection.cancel):
            try:
                self.rows(asleep)
            except psycopg2.errors.QueryCanceled:
                return True
        return False

    def code(self, error):
        return error.pgcode

    def native(self, kind, text, data):
        if kind == "inet":
            return text
        value = program.native(kind, text, data)
        return psycopg2.extras.Json(value) if kind in ("json", "jsonb") else value


program.main(Psycopg2)
