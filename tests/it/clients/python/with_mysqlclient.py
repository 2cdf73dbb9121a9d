"""mysqlclient, over libmariadb: parameters are put into the text; rows by an unbuffered cursor. Compressed, if the variant says so."""

import importlib.metadata

import MySQLdb
import MySQLdb.cursors

import mysql_dbapi
import program


class MySqlClient(mysql_dbapi.MySql):
    name, version = "mysqlclient", importlib.metadata.version("mysqlclient")

    def connect(self):
        # libmariadb wants TLS unless told otherwise.
        options = {"compress": True} if "compress" in program.VARIANT else {}
        return MySQLdb.connect(database=program.DATABASE, charset="utf8mb4", ssl=False, **options, **program.DSN)

    def stream(self, sql):
        cursor = self.connection.cursor(MySQLdb.cursors.SSCursor)
        cursor.execute(sql)
        while rows := cursor.fetchmany(program.ROWS_AT_A_TIME):
            yield from rows
        cursor.close()


program.main(MySqlClient)
