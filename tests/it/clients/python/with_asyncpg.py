"""asyncpg: prepared statements throughout; cursors prefetch; a timeout is a cancel. An event loop per client."""

import asyncio
import json

import asyncpg

import program

# As a variant in tests/it/drivers.rs has it: the types for which the driver would ask the catalog, with a SET around that.
AS_TEXT = ["mood", "int4[]", "text[]"] if program.VARIANT == "arrays and enums as text" else []


class Asyncpg(program.Driver):
    name, version = "asyncpg", asyncpg.__version__

    def open(self):
        self.loop = asyncio.new_event_loop()
        self.connection = self.wait(asyncpg.connect(database=program.DATABASE, **program.DSN))

    def close(self):
        self.wait(self.connection.close())
        self.loop.close()

    def wait(self, work):
        return self.loop.run_until_complete(work)

    def rows(self, sql, *parameters):
        return self.wait(self.connection.fetch(sql, *parameters))

    def begin(self):
        self.transaction = self.connection.transaction()
        self.wait(self.transaction.start())

    def commit(self):
        self.wait(self.transaction.commit())

    def rollback(self):
        self.wait(self.transaction.rollback())

    def many(self, items):
        self.wait(self.connection.executemany("INSERT INTO items VALUES ($1, $2)", items))

    def stream(self, sql):
        async def rows():
            return [row async for row in self.connection.cursor(sql, prefetch=program.ROWS_AT_A_TIME)]

        return self.wait(rows())

    def cancelled(self, asleep):
        try:
            self.wait(self.connection.execute(asleep, timeout=program.BEFORE_CANCEL_S))
        except asyncio.TimeoutError:
            return True
        return False

    def is_text(self, kind):
        return kind in AS_TEXT

    def native(self, kind, text, data):
        value = program.native(kind, text, data)
        return json.dumps(value) if kind in ("json", "jsonb") else value


program.main(Asyncpg)
