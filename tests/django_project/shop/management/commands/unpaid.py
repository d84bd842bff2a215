from django.core.cache import cache
from django.core.management.base import BaseCommand

from shop.models import Order


class Command(BaseCommand):
    help = "Counts the orders that are not paid."

    def handle(self, **options):
        count = Order.objects.filter(paid=False).count()
        cache.set("unpaid", count)
        self.stdout.write(f"{count} unpaid")
