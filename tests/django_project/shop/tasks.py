from celery import shared_task

from shop.models import Order


@shared_task
def pay(number):
    Order.objects.filter(number=number).update(paid=True)
    return Order.objects.filter(paid=True).count()


@shared_task
def shout(word):
    return word.upper()
