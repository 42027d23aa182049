"""A local exchange in Coinbase's format, cheap enough that it is never what a contestant waits for.

Alone: `python -m benchmarks.candle_server --days 90`; it prints its address and serves until its standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import accumulate
from urllib.parse import parse_qs, unquote

import httptools
import uvloop

from benchmarks.history import NATIVE, PRODUCTS, Candles, aggregated, minutes

MAX_CANDLES = 300
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found"}


class Book:
    """One product's candles of one granularity as JSON rows, newest first, ready to be cut."""

    def __init__(self, candles: Candles, step: int) -> None:
        columns = (candles.time, candles.low, candles.high, candles.open, candles.close, candles.volume)
        rows = [json.dumps(row, separators=(",", ":")).encode() for row in zip(*(c.tolist() for c in columns))]  # noqa: B905
        rows.reverse()
        self._text = b",".join(rows)
        self._offsets = [0, *accumulate(len(row) + 1 for row in rows)]
        self._newest = int(candles.time[-1])
        self._count = len(rows)
        self._step = step

    def body(self, first: int, last: int) -> tuple[bytes, int]:
        """Return the candles that open in [first, last], newest first, as JSON; and their number."""
        begin = max(0, -(-(self._newest - last) // self._step))
        end = min(self._count, (self._newest - first) // self._step + 1)
        if begin >= end:
            return b"[]", 0
        return b"[" + self._text[self._offsets[begin] : self._offsets[end] - 1] + b"]", end - begin


class Exchange:
    """Answers `/products/{product}/candles` strictly and `/stats` about itself."""

    def __init__(self, days: int) -> None:
        self._books: dict[tuple[str, int], Book] = {}
        for product in PRODUCTS:
            base = minutes(product, days)
            for step in NATIVE.values():
                self._books[product, step] = Book(aggregated(base, step), step)
        self._counts: Counter[str] = Counter()

    def answer(self, target: bytes) -> tuple[int, bytes]:
        """Return the status and the body for a request target."""
        url = httptools.parse_url(target)
        path = unquote(url.path.decode())
        if path == "/stats":
            return 200, json.dumps({**self._counts, "cpu_seconds": time.process_time()}).encode()
        self._counts["requests"] += 1
        status, body, count = self._candles(path, parse_qs((url.query or b"").decode()))
        self._counts["refused"] += status != 200  # noqa: PLR2004
        self._counts["candles"] += count
        return status, body

    def _candles(self, path: str, query: dict[str, list[str]]) -> tuple[int, bytes, int]:
        product = path.removeprefix("/products/").removesuffix("/candles")
        if product not in PRODUCTS or path != f"/products/{product}/candles":
            return 404, b'{"message":"NotFound"}', 0
        try:
            step = int(query["granularity"][0])
            first, last = _unix(query["start"][0]), _unix(query["end"][0])
        except (KeyError, ValueError):
            return 400, b'{"message":"granularity, start and end are wanted"}', 0
        book = self._books.get((product, step))
        if book is None:
            return 400, b'{"message":"Unsupported granularity"}', 0
        first += -first % step
        if (last - first) // step >= MAX_CANDLES:
            return 400, b'{"message":"granularity too small for the requested time range."}', 0
        return 200, *book.body(first, last)


def _unix(text: str) -> int:
    if text.isdigit():
        return int(text)
    moment = datetime.fromisoformat(text)
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp())


class _Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.close()

    def on_message_begin(self) -> None:
        self._target = b""

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_message_complete(self) -> None:
        status, body = self._exchange.answer(self._target)
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + body)
        if not self._parser.should_keep_alive():
            self._transport.close()


async def _serve(days: int) -> None:
    loop = asyncio.get_running_loop()
    exchange = Exchange(days)
    server = await loop.create_server(lambda: _Connection(exchange), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}", flush=True)
    async with server:
        # Whoever started this holds the other end: it closes when they end, however they end.
        await loop.run_in_executor(None, sys.stdin.buffer.read)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=90)
    uvloop.run(_serve(parser.parse_args().days))


if __name__ == "__main__":
    main()
