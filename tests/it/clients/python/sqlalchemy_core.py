"""What the programs over SQLAlchemy Core have in common: its own pool in between, its transactions, its inserts; stream_results."""

import sqlalchemy as sa

import program

ITEMS = sa.table("items", sa.column("id", sa.Integer), sa.column("v", sa.Text))


def url(driver):
    return sa.URL.create(driver, program.USER, program.PASSWORD, program.HOST, program.PORT, program.DATABASE)


class Core(program.Driver):
    name, version = "SQLAlchemy", sa.__version__
    connection = None

    def close(self):
        self.engine.dispose()

    def rows(self, sql, *parameters):
        if self.connection:
            return self.run(self.connection, sql, parameters)
        with self.engine.begin() as connection:
            return self.run(connection, sql, parameters)

    def run(self, connection, sql, parameters):
        values = {f"p{n}": value for n, value in enumerate(parameters, 1)}
        result = connection.execute(self.statement(sql, parameters), values)
        return [tuple(row) for row in result] if result.returns_rows else []

    def statement(self, sql, parameters):
        """With parameters :p1 ..., of types of its own."""
        raise NotImplementedError

    def begin(self):
        self.connection = self.engine.connect()

    def commit(self):
        self.connection.commit()
        self.end()

    def rollback(self):
        self.connection.rollback()
        self.end()

    def end(self):
        self.connection.close()
        self.connection = None

    def many(self, items):
        self.connection.execute(sa.insert(ITEMS), [{"id": key, "v": v} for key, v in items])

    def stream(self, sql):
        yield from self.connection.execution_options(yield_per=program.ROWS_AT_A_TIME).execute(sa.text(sql))
