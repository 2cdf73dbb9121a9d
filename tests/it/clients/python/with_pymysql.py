"""PyMySQL: parameters are put into the text; rows by an unbuffered cursor."""

import pymysql
import pymysql.cursors

import mysql_dbapi
import program


class PyMySql(mysql_dbapi.MySql):
    name, version = "PyMySQL", pymysql.VERSION_STRING

    def connect(self):
        return pymysql.connect(database=program.DATABASE, **program.DSN)

    def stream(self, sql):
        with self.connection.cursor(pymysql.cursors.SSCursor) as cursor:
            cursor.execute(sql)
            while rows := cursor.fetchmany(program.ROWS_AT_A_TIME):
                yield from rows


program.main(PyMySql)
