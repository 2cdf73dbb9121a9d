"""pg8000, all in Python: no cursors on the server but those of SQL, no cancel but the server's own time limit."""

import pg8000
import pg8000.dbapi

import dbapi
import program


class Pg8000(dbapi.DbApi):
    name, version = "pg8000", pg8000.__version__

    def open(self):
        self.connection = pg8000.dbapi.connect(database=program.DATABASE, **program.DSN)

    def stream(self, sql):
        self.rows(f"DECLARE rows CURSOR FOR {sql}")
        while rows := self.rows(f"FETCH {program.ROWS_AT_A_TIME} FROM rows"):
            yield from rows

    def cancelled(self, asleep):
        self.begin()
        self.rows(f"SET LOCAL statement_timeout = '{program.BEFORE_CANCEL_S}s'")
        try:
            self.rows(asleep)
        except pg8000.dbapi.DatabaseError as error:
            return self.code(error) == "57014"
        finally:
            self.rollback()
        return False

    def code(self, error):
        return error.args[0]["C"]

    def native(self, kind, text, data):
        # What it has no type of its own for.
        return text if kind in ("json", "jsonb", "inet") else program.native(kind, text, data)


program.main(Pg8000)
