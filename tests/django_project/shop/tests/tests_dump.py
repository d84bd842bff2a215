"""Both databases are in one server, and begin with what the dump has, as project.with_dump says."""

from django.db import connection, connections
from django.test import TestCase

from shop.models import Order


class DumpTests(TestCase):
    databases = {"default", "archive"}

    def test_the_suppliers_are_there(self):
        for alias in self.databases:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT name FROM supplier")
                self.assertEqual(cursor.fetchall(), [("Medlar & Sons",)])

    def test_what_is_in_one_is_not_in_the_other(self):
        Order.objects.using("archive").create(number=7)
        self.assertEqual(Order.objects.count(), 0)
        self.assertEqual(connections["archive"].settings_dict["PORT"], connection.settings_dict["PORT"])
