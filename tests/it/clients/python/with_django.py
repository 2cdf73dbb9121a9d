"""Django's database layer over psycopg 3: raw cursors for values, models for the rest; the server's own time limit."""

import django_settings
import program

django_settings.set_up("postgresql")

import django_rows  # noqa: E402
from django.db import DatabaseError, transaction  # noqa: E402
from psycopg.types.json import Json, Jsonb  # noqa: E402


class Django(django_rows.Rows):
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
