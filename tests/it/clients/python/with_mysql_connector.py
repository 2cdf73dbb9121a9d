"""MySQL Connector/Python, all in Python; by its prepared cursor if the variant says so."""

import socket

import mysql.connector

import mysql_dbapi
import program

PREPARED = "prepared" in program.VARIANT


class Connector(mysql_dbapi.MySql):
    name, version = "mysql-connector-python", mysql.connector.__version__

    def connect(self):
        connection = mysql.connector.connect(database=program.DATABASE, ssl_disabled=True, use_pure=True, **program.DSN)
        # A statement is closed by a packet that gets no answer, and the next one would wait 40 ms for an acknowledgement.
        connection._socket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def cursor(self, has_parameters):
        # Some statements without can't be prepared.
        return self.connection.cursor(prepared=PREPARED and has_parameters)

    def many(self, items):
        cursor = self.cursor(True)
        cursor.executemany("INSERT INTO items VALUES (%s, %s)", items)
        cursor.close()

    def stream(self, sql):
        cursor = self.cursor(True)
        cursor.execute(sql)
        while rows := cursor.fetchmany(program.ROWS_AT_A_TIME):
            yield from rows
        cursor.close()

    def read(self, kind):
        # The binary protocol's YEAR it can't read.
        return f"`{kind}` + 0" if kind == "YEAR" else super().read(kind)

    def thread_id(self):
        return self.connection.connection_id


program.main(Connector)
