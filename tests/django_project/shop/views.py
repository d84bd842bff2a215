from django.core.cache import cache
from django.http import HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404

from shop.models import Order


def order(request, number):
    """An order, which is looked up once and cached."""
    found = cache.get(f"order-{number}")
    if found is None:
        found = {"number": number, "paid": get_object_or_404(Order, number=number).paid}
        cache.set(f"order-{number}", found)
    return JsonResponse(found)


def paid(request, number):
    """What the bank calls."""
    Order.objects.filter(number=number).update(paid=True)
    return HttpResponse("thanks")


def cached(request, name):
    return HttpResponse(cache.get(name, "nothing"))
