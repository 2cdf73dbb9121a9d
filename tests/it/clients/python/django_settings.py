"""Django's settings, for the programs over it: set before there are models, and before what imports django_rows.py."""

import django
from django.conf import settings

import program

# libmariadb wants TLS unless told otherwise.
OPTIONS = {"ssl": False} if program.VARIANT == "over mysqlclient" else {}


def set_up(engine, applications=(), **more):
    if program.VARIANT == "over PyMySQL":
        import pymysql

        pymysql.install_as_MySQLdb()
    database = {
        "ENGINE": f"django.db.backends.{engine}",
        "HOST": program.HOST,
        "PORT": program.PORT,
        "USER": program.USER,
        "PASSWORD": program.PASSWORD,
        "NAME": program.DATABASE,
        "OPTIONS": OPTIONS,
    }
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=applications, **more)
    django.setup()
