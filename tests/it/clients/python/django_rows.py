"""What the programs over Django's database layer have in common: raw cursors for values, models for the rest."""

import django
from django.db import connection, models, transaction

import program


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


class Rows(program.Driver):
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
