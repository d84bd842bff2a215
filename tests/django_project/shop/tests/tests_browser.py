"""A browser asks the live server."""

from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from selenium import webdriver
from selenium.webdriver.common.by import By

from caseexec import HTTPService, ServicesMixin
from shop.models import Order


class BrowserTests(ServicesMixin, StaticLiveServerTestCase):
    driver = HTTPService("chromedriver --port={port}", path="/status", scope="session")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        options = webdriver.ChromeOptions()
        for argument in ("--headless=new", "--no-sandbox", f"--user-data-dir={cls.driver.tmp}/{cls.__name__}"):
            options.add_argument(argument)
        cls.browser = webdriver.Remote(cls.driver.url, options=options)
        cls.addClassCleanup(cls.browser.quit)

    def test_an_order_is_shown(self):
        Order.objects.create(number=7, paid=True)
        self.browser.get(f"{self.live_server_url}/orders/7")
        self.assertIn('"paid": true', self.browser.find_element(By.TAG_NAME, "body").text)
