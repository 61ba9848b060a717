"""A TCP proxy that delays all data in both directions: delay.py PORT TARGET_PORT MS.

It limits no bandwidth, and does not delay the connecting itself."""

import asyncio
import collections
import selectors
import sys


class Way(asyncio.Protocol):
    """One direction: passes the data on in order, after the delay."""

    def __init__(self, delay_s):
        self.delay_s, self.waiting, self.timer = delay_s, collections.deque(), None
        self.out = self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.later(data)

    def eof_received(self):
        self.later(None)
        return True

    def connection_lost(self, _):
        self.later(None)

    def later(self, data):
        self.waiting.append((asyncio.get_running_loop().time() + self.delay_s, data))
        self.pass_on()

    def pass_on(self):
        """Passes on the data that is due, and sets a timer for the rest."""
        loop = asyncio.get_running_loop()
        if self.timer or not self.out:
            return
        while self.waiting and self.waiting[0][0] <= loop.time():
            _, data = self.waiting.popleft()
            if data is None:
                self.out.close()
            elif not self.out.is_closing():
                self.out.write(data)
        if self.waiting:
            self.timer = loop.call_at(self.waiting[0][0], self.ring)

    def ring(self):
        self.timer = None
        self.pass_on()


async def main(port, target, delay_ms):
    loop = asyncio.get_running_loop()

    class Front(Way):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.opening = loop.create_task(self.open())

        async def open(self):
            self.out, far = await loop.create_connection(lambda: Way(self.delay_s), "127.0.0.1", target)
            far.out = self.transport
            far.pass_on()
            self.pass_on()

    server = await loop.create_server(lambda: Front(delay_ms / 1000), "127.0.0.1", port, backlog=1000)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    # select can wait for microseconds; epoll in Python only for whole milliseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
