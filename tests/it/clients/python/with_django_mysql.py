"""Django's database layer over mysqlclient, or over PyMySQL in its place, as the variant says: raw cursors for values, models for the
rest, its own savepoints; KILL QUERY over the connection of another thread."""

import django_settings
import mysql_dbapi
import program

django_settings.set_up("mysql")

import django_rows  # noqa: E402
from django.db import DatabaseError, connection, transaction  # noqa: E402


class Django(django_rows.Rows, mysql_dbapi.MySql):
    errors = DatabaseError
    savepoint = None

    def rows(self, sql, *parameters):
        if sql == "SAVEPOINT s":
            self.savepoint = transaction.savepoint()
            return []
        if sql == "ROLLBACK TO SAVEPOINT s":
            transaction.savepoint_rollback(self.savepoint)
            return []
        return super().rows(sql, *parameters)

    def cancelled(self, asleep):
        number = connection.connection.thread_id()

        def kill():
            # This thread's own.
            with connection.cursor() as cursor:
                cursor.execute(f"KILL QUERY {number}")
            connection.close()

        def work():
            with transaction.atomic():
                self.rows(asleep)

        return self.stopped(kill, work)


program.main(Django)
