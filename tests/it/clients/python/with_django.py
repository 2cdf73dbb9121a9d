"""Django's database layer over psycopg 3: raw cursors for values, models for the rest; the server's own time limit."""

import django
from django.conf import settings

import program

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": program.HOST,
            "PORT": program.PORT,
            "USER": program.USER,
            "PASSWORD": program.PASSWORD,
            "NAME": program.DATABASE,
        }
    },
    INSTALLED_APPS=[],
)
django.setup()

from django.db import DatabaseError, connection, models, transaction  # noqa: E402
from psycopg.types.json import Json, Jsonb  # noqa: E402


class Item(models.Model):
    id = models.IntegerField(primary_key=True)
    v = models.TextField()

    class Meta:
        app_label, db_table, managed = "drivers", "items", False


class Number(models.Model):
    n = models.IntegerField(primary_key=True)
    v = models.TextField()

    class Meta:
        app_label, db_table, managed = "drivers", "numbers", False


class Django(program.Driver):
    """A connection belongs to its thread, and each client has one."""

    name, version = "Django", django.__version__

    def open(self):
        connection.ensure_connection()

    def close(self):
        connection.close()

    def rows(self, sql, *parameters):
        with connection.cursor() as cursor:
            if parameters:
                cursor.execute(program.placeholders(sql), parameters)
            else:
                cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def begin(self):
        transaction.set_autocommit(False)

    def commit(self):
        transaction.commit()
        transaction.set_autocommit(True)

    def rollback(self):
        transaction.rollback()
        transaction.set_autocommit(True)

    def many(self, items):
        Item.objects.bulk_create([Item(id=key, v=v) for key, v in items])

    def stream(self, sql):
        # The same as the SQL, by the model.
        rows = Number.objects.order_by("n").iterator(chunk_size=program.ROWS_AT_A_TIME)
        return ((row.n, row.v) for row in rows)

    def cancelled(self, asleep):
        try:
            with transaction.atomic():
                self.rows(f"SET LOCAL statement_timeout = '{program.BEFORE_CANCEL_S}s'")
                self.rows(asleep)
        except DatabaseError as error:
            return self.code(error) == "57014"
        return False

    def code(self, error):
        return error.__cause__.sqlstate

    def native(self, kind, text, data):
        value = program.native(kind, text, data)
        return {"json": Json, "jsonb": Jsonb}.get(kind, lambda value: value)(value)


program.main(Django)
