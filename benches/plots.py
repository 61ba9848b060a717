"""Plots of the benchmark as SVG: throughput against connections, message size and round-trip time."""

import asyncio
import contextlib
import multiprocessing
import pathlib

import rows
from parts import ROOT, SESSIONS, free_port, listens, until

PLACE = ROOT / "docs/performance"
MESSAGES = 20_000
COLOURS = {"us": "#c0392b", "wire (smtp-source)": "#2c3e50", "bare sender": "#7f8c8d"}


def figures(port, n, size, sessions):
    more = f"[preparation]\nmessage_limit_kib = 4096\n[relay]\nhost = \"127.0.0.1\"\nport = {port}\nconnections = {sessions}\n"
    return {
        "us": rows.us(port, n, more=more, size=size)["per_s"],
        "wire (smtp-source)": rows.wire(port, n, size, sessions)["per_s"],
        "bare sender": rows.bare(port, n, size, sessions)["per_s"],
    }


def draw(port, size):
    PLACE.mkdir(parents=True, exist_ok=True)
    by_connections = {c: figures(port, MESSAGES, size, c) for c in (1, 2, 5, 10, 20, 50)}
    svg("connections", "connections", "messages per second, by connections", by_connections)
    by_size = {s: figures(port, MESSAGES, s, SESSIONS) for s in (1500, 4600, 15_000, 50_000)}
    svg("message-size", "bytes of a message", "messages per second, by the size of a message", by_size)
    by_trip = {}
    for ms in (1, 5, 20, 50):
        with delayed(port, ms) as slow:
            by_trip[ms] = figures(slow, 60 * SESSIONS, size, SESSIONS)
    svg("round-trip", "round-trip time, ms", "messages per second, by round-trip time", by_trip)
    return {"connections": by_connections, "message size": by_size, "round trip": by_trip}


@contextlib.contextmanager
def delayed(port, ms):
    """A proxy that brings everything half a round trip later, each way."""
    slow = free_port()
    process = multiprocessing.Process(target=lambda: asyncio.run(proxy(slow, port, ms / 2000)))
    process.start()
    until("the proxy", lambda: listens(slow))
    try:
        yield slow
    finally:
        process.terminate()
        process.join()


async def proxy(listen, port, delay_s):
    async def pump(reader, writer):
        queue, loop = asyncio.Queue(), asyncio.get_running_loop()

        async def deliver():
            while True:
                due, data = await queue.get()
                await asyncio.sleep(due - loop.time())
                if not data:
                    return writer.close()
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                queue.put_nowait((loop.time() + delay_s, data))
        queue.put_nowait((loop.time() + delay_s, b""))
        with contextlib.suppress(ConnectionError):
            await delivering

    async def serve(reader, writer):
        onward = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, onward[1]), pump(onward[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", listen)
    await server.serve_forever()


def svg(name, across, title, points):
    """Lines over evenly spaced positions, with both scales named."""
    width, height, left, bottom = 640, 360, 70, 50
    xs, lines = list(points), {line: [points[x][line] for x in points] for line in COLOURS}
    top = max(max(values) for values in lines.values()) * 1.1
    at = lambda i, value: (left + i * (width - left - 30) / (len(xs) - 1), height - bottom - value / top * (height - bottom - 40))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">']
    out.append(f'<rect width="{width}" height="{height}" fill="white"/><text x="{left}" y="22" font-size="14">{title}</text>')
    for step in range(5):
        value = top / 1.1 * step / 4
        y = at(0, value)[1]
        out.append(f'<line x1="{left}" x2="{width - 30}" y1="{y:.0f}" y2="{y:.0f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.0f}" text-anchor="end">{value:,.0f}</text>')
    for i, x in enumerate(xs):
        out.append(f'<text x="{at(i, 0)[0]:.0f}" y="{height - bottom + 18}" text-anchor="middle">{x:,}</text>')
    out.append(f'<text x="{(left + width) / 2:.0f}" y="{height - 10}" text-anchor="middle">{across}</text>')
    for number, (line, values) in enumerate(lines.items()):
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(i, value) for i, value in enumerate(values)))
        out.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[line]}" stroke-width="2"/>')
        out.append(f'<text x="{width - 180}" y="{50 + 16 * number}" fill="{COLOURS[line]}">{line}</text>')
    pathlib.Path(PLACE, f"{name}.svg").write_text("\n".join([*out, "</svg>\n"]))
