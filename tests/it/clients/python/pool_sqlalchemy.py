"""SQLAlchemy's own pool, for tests/it/drivers/pools.rs. Reads a command a line, and answers each with a line,
`ok PID VALUE` or `error PID SQLSTATE MESSAGE`; the process id is that of the physical connection.

    python pool_sqlalchemy.py URL

    ask SQL           borrows, runs one statement, gives back
    transaction SQL   borrows, runs the statement in one transaction until it fails, rolls back, gives back
"""

import sys

import sqlalchemy as sa

TIMES_MAX = 1000


def answer(command, sql):
    pid = 0
    try:
        with engine.connect() as connection:
            pid = connection.connection.driver_connection.info.backend_pid
            for _ in range(TIMES_MAX if command == "transaction" else 1):
                value = connection.execute(sa.text(sql)).scalar()
            connection.commit()
            return f"ok {pid} {value}"
    except sa.exc.DBAPIError as error:
        code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        return f"error {pid} {code} {error.orig}".replace("\n", " ")


engine = sa.create_engine(sys.argv[1])
for line in sys.stdin:
    print(answer(*line.rstrip("\n").split(" ", 1)), flush=True)
