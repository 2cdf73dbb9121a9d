"""Django's database layer over mysqlclient, or over PyMySQL in its place, as the variant says: raw cursors for values, models for the
rest, its own savepoints; KILL QUERY over the connection of another thread."""

import threading

import django
from django.conf import settings

import mysql_dbapi
import program

OPTIONS = {}
if program.VARIANT == "over PyMySQL":
    import pymysql

    pymysql.install_as_MySQLdb()
else:
    # libmariadb wants TLS unless told otherwise.
    OPTIONS = {"ssl": False}

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.mysql",
            "HOST": program.HOST,
            "PORT": program.PORT,
            "USER": program.USER,
            "PASSWORD": program.PASSWORD,
            "NAME": program.DATABASE,
            "OPTIONS": OPTIONS,
        }
    },
    INSTALLED_APPS=[],
)
django.setup()

from django.db import DatabaseError, connection, models, transaction  # noqa: E402


class Item(models.Model):
    id = models.IntegerField(primary_key=True)
    v = models.CharField(max_length=100)

    class Meta:
        app_label, db_table, managed = "drivers", "items", False


class Number(models.Model):
    n = models.IntegerField(primary_key=True)
    v = models.CharField(max_length=100)

    class Meta:
        app_label, db_table, managed = "drivers", "numbers", False


class Django(mysql_dbapi.MySql):
    """A connection belongs to its thread, and each client has one."""

    name, version = "Django", django.__version__
    savepoint = None

    def open(self):
        connection.ensure_connection()

    def close(self):
        connection.close()

    def rows(self, sql, *parameters):
        if sql == "SAVEPOINT s":
            self.savepoint = transaction.savepoint()
            return []
        if sql == "ROLLBACK TO SAVEPOINT s":
            transaction.savepoint_rollback(self.savepoint)
            return []
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
        number = connection.connection.thread_id()

        def kill():
            # This thread's own.
            with connection.cursor() as cursor:
                cursor.execute(f"KILL QUERY {number}")
            connection.close()

        timer = threading.Timer(program.BEFORE_CANCEL_S, kill)
        timer.start()
        try:
            with transaction.atomic():
                self.rows(asleep)
        except DatabaseError as error:
            if self.code(error) != 1317:
                raise
            return True
        finally:
            # A request still under way would hit what comes next.
            timer.join()
        return False


program.main(Django)
