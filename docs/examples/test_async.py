import asyncio
import unittest

from caseexec import ServicesMixin, TCPService


class ReconnectTests(ServicesMixin, unittest.IsolatedAsyncioTestCase):
    files = TCPService("{python} -u -m http.server {port} --bind {host} --directory {tmp}")

    async def connect(self):
        _, writer = await asyncio.open_connection(self.files.host, self.files.port)
        writer.close()
        await writer.wait_closed()

    async def test_while_it_is_down(self):
        async with self.files.astopped():
            with self.assertRaises(ConnectionRefusedError):
                await self.connect()
        await self.connect()

    async def test_after_a_restart(self):
        await self.files.arestart()
        await self.connect()


if __name__ == "__main__":
    unittest.main()
