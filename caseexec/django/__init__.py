"""At home in Django: settings made of running services.

Nothing else in caseexec imports Django.
"""

from caseexec.django.mixin import ServiceSettingsMixin

__all__ = ["ServiceSettingsMixin"]
