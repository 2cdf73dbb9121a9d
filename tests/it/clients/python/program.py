"""The program that tests/it/drivers.rs describes, for Python's drivers. A driver's file gives a class like `Driver`.

    python with_NAME.py HOST PORT USER PASSWORD DATABASE FOLDER FIRST CLIENTS VARIANT

FOLDER has the database's types and statements: types.tsv, statements.tsv.

Prints what each client saw, a line each: `line CLIENT TEXT`, at its end `digest CLIENT SHA-256`, or `failed CLIENT WHY`.
"""

import contextlib
import datetime
import decimal
import hashlib
import ipaddress
import json
import re
import struct
import sys
import threading
import traceback
import uuid

HOST, PORT, USER, PASSWORD, DATABASE, FOLDER, FIRST, CLIENTS, VARIANT = sys.argv[1:10]
PORT = int(PORT)
DSN = {"host": HOST, "port": PORT, "user": USER, "password": PASSWORD}


def table(name):
    with open(f"{FOLDER}/{name}.tsv", encoding="utf-8") as file:
        return [line.removesuffix("\n").split("\t") for line in file]


# What the database is asked, by name; parameters are $1 ...
SQL = dict(table("statements"))
BATCH = 1000
ROWS_AT_A_TIME = 500
# Attempts to cancel: the protocol does not say when a query has begun, so a request may come before it does.
CANCELS = 5
BEFORE_CANCEL_S = 0.15


class Driver:
    """What a client does by its driver. Outside of begin() to commit() or rollback() each call is a transaction."""

    name = version = None

    def __init__(self, number):
        self.base = number * 100_000
        self.open()

    def open(self):
        raise NotImplementedError

    def close(self):
        raise NotImplementedError

    def rows(self, sql, *parameters):
        """All rows of a query with parameters $1 ...; nothing for what returns none."""
        raise NotImplementedError

    def begin(self):
        raise NotImplementedError

    def commit(self):
        raise NotImplementedError

    def rollback(self):
        raise NotImplementedError

    def many(self, items):
        """Inserts (id, v) into `items`, in the driver's way for many; in a transaction."""
        raise NotImplementedError

    def stream(self, sql):
        """The rows of a query, ROWS_AT_A_TIME at a time; in a transaction."""
        raise NotImplementedError

    def cancelled(self, asleep):
        """Runs this statement, which takes long, and cancels it; false if it ran to its end."""
        raise NotImplementedError

    def code(self, error):
        """The SQLSTATE."""
        return error.sqlstate

    def is_text(self, kind):
        """A type that it is to be given, and asked for, as text."""
        return False

    def of_a_type(self, kind, text, data):
        """A value as parameter, as the server's text, from text, and from a literal."""
        return of_a_type(self, kind, text, data)

    def null_of_a_type(self, kind):
        value = self.rows(f"SELECT {read(self, kind)} FROM (SELECT {parameter(self, kind)} AS v) AS x", None)[0][0]
        return f"{kind} {canonical(kind, value)}"

    def bytes(self, value):
        return self.native("bytea", "\\x" + value.hex(), "")

    def native(self, kind, text, data):
        """The value of this text, as an application gives it to the driver. `data` is what JSON makes of it, if given."""
        return native(kind, text, data)


def program(driver):
    """The one program: its lines."""
    types = [(line + [""])[:3] for line in table("types")]
    for kind, text, data in types:
        yield driver.of_a_type(kind, text, data)
    for kind in dict.fromkeys(kind for kind, _, _ in types):
        yield driver.null_of_a_type(kind)
    total = 0
    for n in range(20):
        total += int(driver.rows(SQL["add"], n, 2 * n)[0][0])
    yield f"prepared {total}"

    base, last = driver.base, driver.base + 99_999
    driver.rows(SQL["clear"], base, last)
    driver.begin()
    driver.many([(base + n, f"item {n}") for n in range(BATCH)])
    driver.commit()

    def items():
        return driver.rows(SQL["items"], base, last)[0]

    def insert(n):
        driver.rows(SQL["insert"], base + n, f"item {n}")

    def error(work):
        try:
            work()
        except Exception as error:  # noqa: BLE001
            return f"error {driver.code(error)}"
        return "no error"

    yield "batch {} {}".format(*items())
    driver.begin()
    insert(BATCH)
    yield "inside {} {}".format(*items())
    driver.rollback()
    yield "rolled back {} {}".format(*items())

    driver.begin()
    insert(BATCH + 1)
    yield error(lambda: driver.rows(SQL["fails"], 0))
    yield error(lambda: driver.rows("SELECT 1"))
    driver.rollback()
    yield "after an error {} {}".format(*items())
    driver.begin()
    insert(BATCH + 1)
    driver.rows("SAVEPOINT s")
    yield error(lambda: insert(0))
    driver.rows("ROLLBACK TO SAVEPOINT s")
    insert(BATCH + 2)
    driver.commit()
    yield "after a savepoint {} {}".format(*items())
    yield error(lambda: driver.rows("SELEC 1"))
    yield error(lambda: driver.rows(SQL["missing"], 1))
    yield error(lambda: insert(0))

    digest, count = hashlib.sha256(), 0
    driver.begin()
    for n, v in driver.stream("SELECT n, v FROM numbers ORDER BY n"):
        digest.update(f"{n} {v}\n".encode())
        count += 1
    driver.commit()
    yield f"rows {count} {digest.hexdigest()}"

    yield "cancelled" if any(cancelled(driver) for _ in range(CANCELS)) else "not cancelled"
    yield "goes on {}".format(*driver.rows(SQL["one"], 42)[0])

    long = "".join(chr(ord("a") + n % 26) for n in range(1_000_000))
    back, md5 = driver.rows(SQL["text"], long)[0]
    yield f"text {len(back)} {md5} {hashlib.sha256(back.encode()).hexdigest()}"
    long = bytes(n * 7 % 256 for n in range(1_000_000))
    back, md5 = driver.rows(SQL["bytes"], driver.bytes(long))[0]
    yield f"bytea {len(back)} {md5} {hashlib.sha256(bytes(back)).hexdigest()}"

    driver.close()
    driver.open()
    yield "again {} {}".format(*driver.rows(SQL["one"], 42)[0], items()[0])
    driver.close()


@contextlib.contextmanager
def stopping(stop):
    """Stops the work inside, in a while."""
    timer = threading.Timer(BEFORE_CANCEL_S, stop)
    timer.start()
    try:
        yield
    finally:
        # A request still under way would hit what comes next.
        timer.join()


def cancelled(driver):
    """A cancel counts if the driver says so and the statement has done nothing."""
    key = driver.base + 50_000
    told = driver.cancelled(SQL["sleep"].replace("KEY", str(key)))
    done = driver.rows(SQL["slept"], key)
    driver.rows(SQL["forget"], key)
    return told and not done


def of_a_type(driver, kind, text, data):
    """A value as parameter, as the server's text, from text, and from a literal."""
    shown = {"timestamptz": "v AT TIME ZONE 'UTC'", "json": "CAST(v AS jsonb)"}.get(kind, "v")
    reading = read(driver, kind)
    sql = f"SELECT {reading}, CAST({shown} AS text) FROM (SELECT {parameter(driver, kind)} AS v) AS x"
    value, server = driver.rows(sql, text if driver.is_text(kind) else driver.native(kind, text, data))[0]
    from_text = driver.rows(f"SELECT {reading} FROM (SELECT CAST(CAST($1 AS text) AS {kind}) AS v) AS x", text)[0][0]
    quoted = text.replace("'", "''")
    literal = driver.rows(f"SELECT {reading} FROM (SELECT CAST('{quoted}' AS {kind}) AS v) AS x")[0][0]
    values = [canonical(kind, value), server, canonical(kind, from_text), canonical(kind, literal)]
    return " | ".join([kind, *values])


def parameter(driver, kind):
    return f"CAST(CAST($1 AS text) AS {kind})" if driver.is_text(kind) else f"CAST($1 AS {kind})"


def read(driver, kind):
    """How a value of a type is asked for."""
    if not driver.is_text(kind):
        return "v"
    return "to_json(v)" if kind.endswith("[]") else "CAST(v AS text)"


def native(kind, text, data):
    match kind:
        case "bool":
            return text == "true"
        case "int2" | "int4" | "int8":
            return int(text)
        case "float4" | "float8":
            return float(text)
        case "numeric":
            return decimal.Decimal(text)
        case "bytea":
            return bytes.fromhex(text[2:])
        case "date":
            return datetime.date.fromisoformat(text)
        case "time":
            return datetime.time.fromisoformat(text)
        case "timestamp":
            return datetime.datetime.fromisoformat(text)
        case "timestamptz":
            return datetime.datetime.fromisoformat(text + ":00")
        case "interval":
            days, hours, minutes, seconds = re.fullmatch(r"(\d+) day (\d+):(\d+):([\d.]+)", text).groups()
            return datetime.timedelta(days=int(days), hours=int(hours), minutes=int(minutes), seconds=float(seconds))
        case "uuid":
            return uuid.UUID(text)
        case "json" | "jsonb":
            return json.loads(text)
        case "int4[]" | "text[]":
            return json.loads(data)
        case "inet":
            return ipaddress.ip_address(text)
        case _:
            return text


def canonical(kind, value):
    """A value as text: PostgreSQL's own in most cases, bits for floats, JSON for arrays."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            if value != value:
                return "NaN"
            return struct.pack(">f" if kind == "float4" else ">d", value).hex()
        case decimal.Decimal():
            return format(value, "f")
        case bytes() | bytearray() | memoryview():
            return "\\x" + bytes(value).hex()
        case datetime.datetime():
            if value.tzinfo is None:
                return fraction(value.strftime("%Y-%m-%d %H:%M:%S.%f"))
            return fraction(value.astimezone(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")) + "+00"
        case datetime.time():
            return fraction(value.strftime("%H:%M:%S.%f"))
        case datetime.timedelta():
            hours, seconds = divmod(value.seconds, 3600)
            time = f"{hours:02}:{seconds // 60:02}:{seconds % 60:02}.{value.microseconds:06}"
            return f"{value.days} day {fraction(time)}"
        case str() if kind in ("json", "jsonb", "int4[]", "text[]"):
            return canonical(kind, json.loads(value))
        case list() | dict():
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
        case _:
            return str(value)


def fraction(text):
    return text.rstrip("0").rstrip(".")


def placeholders(sql, mark="%s"):
    """$1 ... as this, for drivers that take them in their order."""
    return re.sub(r"\$\d", mark, sql)


def main(driver_class, work=program):
    print("version", driver_class.name, driver_class.version)
    printing = threading.Lock()

    def say(text):
        # At once, for those who wonder what takes so long.
        with printing:
            print(text, flush=True)

    def client(number):
        digest = hashlib.sha256()
        try:
            for line in work(driver_class(number)):
                digest.update(f"{line}\n".encode())
                say(f"line {number} {line}")
            say(f"digest {number} {digest.hexdigest()}")
        except BaseException:  # noqa: BLE001
            say(f"failed {number} {traceback.format_exc()!r}")

    numbers = range(int(FIRST), int(FIRST) + int(CLIENTS))
    threads = [threading.Thread(target=client, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
