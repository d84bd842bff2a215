from django.urls import path
from shop import views

urlpatterns = [
    path("orders/<int:number>", views.order),
    path("paid/<int:number>", views.paid),
    path("cached/<name>", views.cached),
]
