import unittest

from selenium import webdriver
from selenium.webdriver.common.by import By

from caseexec import HTTPService, ServicesMixin

PAGE = """
    <!doctype html><title>Shop</title><body style="font-family: sans-serif; margin: 2em">
    <h1>Quinces</h1><p>Three left.</p><button onclick="this.innerText = 'Sold'">Buy</button>
"""


class BrowserTests(ServicesMixin, unittest.TestCase):
    # One driver for all classes; each of them opens a browser of its own.
    driver = HTTPService("chromedriver --port={port}", path="/status", scope="session", if_missing="skip")
    site = HTTPService("{python} -m http.server {port} --bind {host} --directory {tmp}")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(f"{cls.site.tmp}/index.html", "w") as page:
            page.write(PAGE)
        options = webdriver.ChromeOptions()
        # Only root, and a container, need --no-sandbox.
        for argument in ("--headless=new", "--no-sandbox", "--window-size=480,360"):
            options.add_argument(argument)
        options.add_argument(f"--user-data-dir={cls.driver.tmp}/{cls.__name__}")
        cls.browser = webdriver.Remote(cls.driver.url, options=options)
        cls.addClassCleanup(cls.browser.quit)

    def test_a_click_buys(self):
        self.browser.get(self.site.url)
        self.browser.find_element(By.TAG_NAME, "button").click()
        self.assertEqual(self.browser.find_element(By.TAG_NAME, "button").text, "Sold")
        self.browser.save_screenshot(f"{self.site.tmp}/sold.png")


if __name__ == "__main__":
    unittest.main()
