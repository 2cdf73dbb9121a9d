"""psycopg 3: named cursors, cancel_safe()."""

import psycopg
from psycopg.types.json import Json, Jsonb

import dbapi
import program


class Psycopg(dbapi.DbApi):
    name, version = "psycopg", psycopg.__version__

    def open(self):
        self.connection = psycopg.connect(dbname=program.DATABASE, **program.DSN)

    def stream(self, sql):
        with self.connection.cursor("rows") as cursor:
            cursor.itersize = program.ROWS_AT_A_TIME
            yield from cursor.execute(sql)

    def cancelled(self, asleep):
        with program.stopping(self.connection.cancel_safe):
            try:
                self.rows(asleep)
            except psycopg.errors.QueryCanceled:
                return True
        return False

    def native(self, kind, text, data):
        value = program.native(kind, text, data)
        return {"json": Json, "jsonb": Jsonb}.get(kind, lambda value: value)(value)


program.main(Psycopg)
