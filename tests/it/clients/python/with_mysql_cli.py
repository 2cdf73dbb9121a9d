"""A command line, mysql or mariadb (COMMAND_LINE is what starts it), as a script uses it: statements go in, rows as text come out, and
Ctrl-C stops a query. Parameters are put into the text. The variant is options more."""

import datetime
import decimal
import os
import re
import shlex
import signal
import subprocess

import mysql_dbapi
import program

COMMAND_LINE = shlex.split(os.environ["COMMAND_LINE"])
ESCAPED = {b"\\n": b"\n", b"\\t": b"\t", b"\\\\": b"\\", b"\\0": b"\0"}


class Failed(Exception):
    """The number of an error is its first argument."""


def version():
    said = subprocess.run([*COMMAND_LINE, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"\d+\.\d+\.\d{2,}|\d+\.\d+\.\d+", said.replace("Ver 15.1", "")).group()


class CommandLine(mysql_dbapi.MySql):
    name, version = "command-line", version()
    errors = Failed

    def open(self):
        command = [*COMMAND_LINE, "--protocol=tcp", "--batch", "--skip-column-names", "--force", "--unbuffered", "--quick"]
        command += shlex.split(program.VARIANT)
        command += ["--max-allowed-packet=64M", "--default-character-set=utf8mb4", "--database", program.DATABASE]
        command += ["--host", program.HOST, "--port", str(program.PORT), "--user", program.USER]
        environment = {**os.environ, "MYSQL_PWD": program.PASSWORD}
        # Its errors among the rows, where they belong.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
        )
        self.asked = 0

    def close(self):
        self.process.stdin.close()
        self.process.wait()

    def rows(self, sql, *parameters):
        values = iter(parameters)
        text = re.sub(r"\$\d", lambda _: literal(next(values)), sql) if parameters else sql
        return list(self.said(text))

    def said(self, sql):
        """The rows of a statement, which end with what is asked behind it."""
        self.asked += 1
        last = f"end of {self.asked}".encode()
        self.process.stdin.write(f"{sql};\nSELECT '{last.decode()}';\n".encode())
        self.process.stdin.flush()
        error = None
        while (line := self.process.stdout.readline().removesuffix(b"\n")) != last:
            if not line and self.process.poll() is not None:
                raise Failed(0, f"it ended: {self.process.returncode}")
            if found := re.match(rb"ERROR (\d+) \(", line):
                error = Failed(int(found[1]), line.decode())
            elif line.startswith((b"^C", b"Ctrl-C", b"Query was", b"--------------")) or (not line and b"SLEEP" in sql.encode()):
                continue
            else:
                yield [unescaped(column) for column in line.split(b"\t")]
        if error:
            raise error

    def begin(self):
        self.rows("BEGIN")

    def commit(self):
        self.rows("COMMIT")

    def rollback(self):
        self.rows("ROLLBACK")

    def many(self, items):
        values = ", ".join(f"({n}, '{v}')" for n, v in items)
        self.rows(f"INSERT INTO items VALUES {values}")

    def stream(self, sql):
        yield from self.said(sql)

    def cancelled(self, asleep):
        return self.stopped(lambda: self.process.send_signal(signal.SIGINT), lambda: self.rows(asleep))

    def shown(self, kind, value):
        if kind in mysql_dbapi.BINARY and isinstance(value, str):
            value = value.encode()
        return super().shown(kind, value)


def unescaped(column):
    if column == b"NULL":
        return None
    whole = re.sub(rb"\\[nt\\0]", lambda found: ESCAPED[found[0]], column)
    try:
        return whole.decode()
    except UnicodeDecodeError:
        return whole


def literal(value):
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"X'{value.hex()}'"
        case int() | float() | decimal.Decimal():
            return str(value)
        case datetime.timedelta():
            return f"'{(datetime.datetime(2000, 1, 1) + value).time()}'"
        case _:
            escaped = str(value).replace("\\", "\\\\").replace("'", "''")
            return f"'{escaped}'"


program.main(CommandLine)
