"""Django's ORM over mysqlclient, or over PyMySQL in its place, as the variant says: models, relations, batches, savepoints."""

import datetime

import django
from django.db import IntegrityError, connection, models, transaction

import django_settings
import orm

# This file: relations are followed backwards between models of an application.
django_settings.set_up("mysql", [__name__], USE_TZ=False)


class Author(models.Model):
    id = models.AutoField(primary_key=True)
    owner = models.IntegerField()
    name = models.CharField(max_length=60)
    rating = models.DecimalField(max_digits=12, decimal_places=4, null=True)
    seen = models.DateTimeField(null=True)
    born = models.DateField(null=True)
    active = models.BooleanField(default=True)
    photo = models.BinaryField(null=True)

    class Meta:
        app_label, db_table = __name__, "authors"


class Tag(models.Model):
    id = models.AutoField(primary_key=True)
    owner = models.IntegerField()
    word = models.CharField(max_length=30)

    class Meta:
        app_label, db_table = __name__, "tags"


class Book(models.Model):
    id = models.AutoField(primary_key=True)
    author = models.ForeignKey(Author, models.CASCADE, related_name="books")
    title = models.CharField(max_length=100)
    price = models.DecimalField(max_digits=10, decimal_places=2, null=True)
    tags = models.ManyToManyField(Tag, db_table="book_tags")

    class Meta:
        app_label, db_table = __name__, "books"


class Models(orm.Orm):
    """A connection belongs to its thread, and each client has one."""

    name, version = "Django", django.__version__

    def open(self):
        connection.ensure_connection()

    def close(self):
        connection.close()

    def own(self, **where):
        return Author.objects.filter(owner=self.owner, **where)

    def count(self, **where):
        return self.own(**where).count()

    def create(self, name, **values):
        return Author.objects.create(owner=self.owner, name=name, **values)

    def round(self, number):
        with transaction.atomic():
            author = self.create(**orm.AUTHOR)
            key = author.id
            books = [author.books.create(title=title, price=price) for title, price in orm.BOOKS]
            yield f"created {[book.author_id - key for book in books]}"
        author = self.own(name=orm.NAME).get()
        yield f"{author.id - key} {orm.shown(author, author.books.order_by('id'))}"

        Author.objects.bulk_create([Author(owner=self.owner, name=f"item {number} {n}") for n in range(orm.MANY)])
        yield f"many {self.count()}"
        names = [
            {"name__startswith": f"item {number} 1"},
            {"name__contains": "100%"},
            {"name__icontains": "a_b's \\"},
            {"name__contains": "_"},
            {"born__isnull": True},
        ]
        yield f"like {[self.count(**name) for name in names]}"

        with transaction.atomic():
            one = Author.objects.filter(id=key)
            added = one.update(rating=models.F("rating") + 1)
            same = one.update(active=True)
            yield f"updated {added} {same} {one.get().rating}"

        with transaction.atomic():
            author.refresh_from_db()
            author.born = datetime.date(1969, 12, 31)
            author.save()
            try:
                with transaction.atomic():
                    self.create(f"before {number}")
                    self.create(f"item {number} 5")
            except IntegrityError as error:
                yield f"savepoint {error.args[0]}"
            with transaction.atomic():
                self.create(f"after {number}")
        names = [{"name__in": [f"before {number}", f"after {number}"]}, {"born__isnull": True}]
        yield f"saved {[self.count(**name) for name in names]}"
        try:
            with transaction.atomic():
                self.create(f"never {number}")
                author.active = False
                author.save()
                raise KeyError(key)
        except KeyError:
            yield f"rolled back {self.count()} {self.count(active=False)}"
        try:
            with transaction.atomic():
                Book.objects.create(author_id=-1, title="Nobody's")
        except IntegrityError as error:
            yield f"nobody's {error.args[0]}"

        # Without checks of foreign keys, and with them again.
        with connection.constraint_checks_disabled():
            self.create(f"alone {number}")
        yield f"alone {self.count(name=f'alone {number}')}"
        with transaction.atomic():
            author = Author.objects.select_for_update().get(id=key)
            author.rating = author.rating * 2
            author.save(update_fields=["rating"])
            author.refresh_from_db()
            yield f"locked {author.rating}"
        sums = Book.objects.filter(author__owner=self.owner).values("author")
        sums = sums.annotate(models.Count("id"), models.Sum("price"), models.Min("price"))
        yield f"sums {[tuple(map(str, list(row.values())[1:])) for row in sums]}"

        book = author.books.order_by("id")[0]
        book.tags.add(*[Tag.objects.create(owner=self.owner, word=word) for word in orm.WORDS])
        tags = list(book.tags.order_by("id"))
        yield f"tags {[tag.word for tag in tags]}"
        tags.pop(1).delete()
        yield f"tags {[tag.word for tag in book.tags.order_by('id').iterator()]}"
        for tag in tags:
            tag.delete()
        with connection.cursor() as cursor:
            cursor.execute(orm.ISOLATION)
            yield f"isolation {cursor.fetchone()[1]}"
        author.delete()
        Author.objects.filter(id__in=list(self.own().values_list("id", flat=True))).delete()
        yield f"deleted {self.count()}"


orm.main(Models)
