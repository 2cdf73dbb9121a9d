"""What the drivers have in common that keep to Python's DB-API: transactions begin by themselves."""

import program


class DbApi(program.Driver):
    inside = False
    # A parameter's place in a text.
    mark = "%s"

    def close(self):
        self.connection.close()

    def cursor(self, has_parameters):
        return self.connection.cursor()

    def rows(self, sql, *parameters):
        cursor = self.cursor(bool(parameters))
        try:
            if parameters:
                cursor.execute(program.placeholders(sql, self.mark), parameters)
            else:
                cursor.execute(sql)
            rows = cursor.fetchall() if cursor.description else []
        except Exception:
            if not self.inside:
                self.connection.rollback()
            raise
        finally:
            cursor.close()
        if not self.inside:
            self.connection.commit()
        return rows

    def begin(self):
        self.inside = True

    def commit(self):
        self.inside = False
        self.connection.commit()

    def rollback(self):
        self.inside = False
        self.connection.rollback()

    def many(self, items):
        self.connection.cursor().executemany("INSERT INTO items VALUES (%s, %s)", items)
