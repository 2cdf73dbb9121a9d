"""What the drivers have in common that keep to Python's DB-API, in MySQL's words: values go through a table, and a query is stopped
by KILL QUERY over a second connection."""

import datetime
import decimal
import json
import struct

import dbapi
import program

BINARY = ("BLOB", "VARBINARY")


class MySql(dbapi.DbApi):
    # What a query that is stopped fails with.
    errors = Exception

    def of_a_type(self, kind, text, data):
        """A value as parameter, as the server's text, from text, and from a literal."""
        bare = kind.split("(")[0]
        is_binary = bare in BINARY
        from_text = "UNHEX($4)" if is_binary else "$4"
        self.rows(
            f"REPLACE INTO kinds (id, `{kind}`) VALUES ($1, $2), ($3, {from_text})",
            self.base, self.native(bare, text, data), self.base + 1, text,
        )
        quoted = text.replace("\\", "\\\\").replace("'", "''")
        literal = f"X'{text}'" if is_binary else f"'{quoted}'"
        self.rows(f"REPLACE INTO kinds (id, `{kind}`) VALUES ({self.base + 2}, {literal})")
        as_text = f"HEX(`{kind}`)" if is_binary else f"CAST(`{kind}` AS CHAR)"
        sql = f"SELECT {self.read(kind)}, {as_text} FROM kinds WHERE id BETWEEN $1 AND $2 ORDER BY id"
        (value, server), (second, _), (third, _) = self.rows(sql, self.base, self.base + 2)
        values = [self.shown(bare, value), text_of(server), self.shown(bare, second), self.shown(bare, third)]
        return " | ".join([kind, *values])

    def null_of_a_type(self, kind):
        self.rows(f"REPLACE INTO kinds (id, `{kind}`) VALUES ($1, $2)", self.base, None)
        value = self.rows(f"SELECT {self.read(kind)} FROM kinds WHERE id = $1", self.base)[0][0]
        return f"{kind} {self.shown(kind.split('(')[0], value)}"

    def native(self, kind, text, data):
        match kind:
            case "TINYINT" | "SMALLINT UNSIGNED" | "INT" | "BIGINT" | "BIGINT UNSIGNED" | "YEAR":
                return int(text)
            case "FLOAT" | "DOUBLE":
                return float(text)
            case "DECIMAL":
                return decimal.Decimal(text)
            case "BLOB" | "VARBINARY":
                return bytes.fromhex(text)
            case "DATE":
                return datetime.date.fromisoformat(text)
            case "TIME":
                return datetime.datetime.fromisoformat(f"2000-01-01 {text}") - datetime.datetime(2000, 1, 1)
            case "DATETIME" | "TIMESTAMP":
                return datetime.datetime.fromisoformat(text)
            case _:
                return text

    def read(self, kind):
        """How a column is asked for."""
        return f"`{kind}`"

    def bytes(self, value):
        return value

    def shown(self, kind, value):
        """A value as text, the same for all drivers."""
        match value:
            case None:
                return "null"
            case _ if kind == "FLOAT":
                return struct.pack(">f", float(value)).hex()
            case _ if kind == "DOUBLE":
                return struct.pack(">d", float(value)).hex()
            case _ if kind in BINARY:
                return bytes(value).hex()
            case _ if kind == "JSON":
                return json.dumps(json.loads(text_of(value)), ensure_ascii=False, separators=(",", ":"))
            case set() | frozenset():
                return ",".join(sorted(value))
            case datetime.timedelta():
                return program.fraction((datetime.datetime(2000, 1, 1) + value).strftime("%H:%M:%S.%f"))
            case datetime.datetime():
                return program.fraction(value.strftime("%Y-%m-%d %H:%M:%S.%f"))
            case decimal.Decimal():
                return format(value, "f")
            case str() if "." in value and kind in ("TIME", "DATETIME", "TIMESTAMP"):
                return program.fraction(value)
            case _:
                return text_of(value)

    def thread_id(self):
        return self.connection.thread_id()

    def connect(self):
        """A connection of the driver's."""
        raise NotImplementedError

    def open(self):
        self.connection = self.connect()

    def cancelled(self, asleep):
        number = self.thread_id()

        def kill():
            other = self.connect()
            other.cursor().execute(f"KILL QUERY {number}")
            other.close()

        return self.stopped(kill, lambda: self.rows(asleep))

    def stopped(self, stop, work):
        """Work that takes long, and what stops it meanwhile; false if it ran to its end."""
        with program.stopping(stop):
            try:
                work()
            except self.errors as error:
                if self.code(error) != 1317:
                    raise
                return True
        return False

    def code(self, error):
        return error.args[0]


def text_of(value):
    return value.decode() if isinstance(value, (bytes, bytearray)) else str(value)
