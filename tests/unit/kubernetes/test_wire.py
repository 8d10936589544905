"""HTTP on kept connections, against a server that answers byte for byte what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from adapters.kubernetes import wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Part = bytes | float | None
"""Bytes to send, seconds to wait, or None: close the connection."""


class Script:
    """One list of parts per request, in order; what was asked, and how many connections there were."""

    def __init__(self, *answers: Sequence[Part]) -> None:
        self._answers = list(answers)
        self.asked: list[bytes] = []
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while self._answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0
                )
                self.asked.append(head + await reader.readexactly(length))
                for part in self._answers.pop(0):
                    if part is None:
                        return
                    if isinstance(part, float):
                        await asyncio.sleep(part)
                    else:
                        writer.write(part)
                        await writer.drain()
            await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def pool(script: Script, *, limit: int = 4) -> AsyncIterator[wire.Pool]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script.serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = wire.Pool(wire.place(f"http://127.0.0.1:{port}/base", None, None), limit=limit, headers={"Accept": "a/b"})
    try:
        yield made
    finally:
        await made.close()
        server.close()


async def call(made: wire.Pool, method: str = "GET", path: str = "/x", body: bytes | None = None) -> wire.Answer:
    return await made.request(method, path, {"Authorization": "Bearer t"}, body, timeout_seconds=30)


async def test_a_call_is_one_message_and_the_connection_is_kept() -> None:
    script = Script([OK], [OK])
    async with pool(script) as made:
        assert (await call(made, "PUT", "/x", b"[1]")).payload == b"{}"
        await call(made)
    first = script.asked[0]
    assert first.startswith(b"PUT /base/x HTTP/1.1\r\nHost: 127.0.0.1:")
    assert first.endswith(b"\r\nAccept: a/b\r\nAuthorization: Bearer t\r\nContent-Length: 3\r\n\r\n[1]")
    assert b"Content-Length" not in script.asked[1]
    assert script.connections == 1


@pytest.mark.parametrize(
    ("answer", "payload"),
    [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 11\r\n\r\nhello world", b"hello world"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
            b"hello world",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1", b"1"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nRetry-After: 3\r\n\r\n", b""),
    ],
    ids=["length", "chunks", "information first", "no content", "empty"],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
async def test_answers_are_read_whole_however_they_are_cut_up(answer: bytes, payload: bytes, step: int) -> None:
    parts: list[Part] = []
    for start in range(0, len(answer), step):
        parts += [answer[start : start + step], 0.001]
    async with pool(Script(parts, [OK])) as made:
        found = await call(made)
        assert found.payload == payload
        assert found.headers.get("retry-after") == ("3" if found.status == 404 else None)
        assert (await call(made)).payload == b"{}", "the next one is not disturbed"


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * wire.MOST_HEAD_BYTES,
    ],
    ids=["not http", "no length", "negative", "huge", "too much", "no chunk", "chunk without end", "endless head"],
)
async def test_what_is_no_answer_is_an_error_and_the_connection_is_not_used_again(answer: bytes) -> None:
    script = Script([answer], [OK])
    async with pool(script) as made:
        with pytest.raises(wire.WireError):
            await call(made)
        assert (await call(made)).payload == b"{}"
    assert script.connections == 2


async def test_a_kept_connection_that_the_server_closed_is_replaced() -> None:
    script = Script([OK, None], [OK])
    async with pool(script) as made:
        await call(made)
        await asyncio.sleep(0.05)
        await call(made, "POST", "/x", b"{}")
    assert script.connections == 2


async def test_only_what_may_be_repeated_is_sent_again_when_the_server_closes_at_that_moment() -> None:
    script = Script([OK], [None], [OK], [OK], [None])
    async with pool(script) as made:
        await call(made)
        assert (await call(made, "PUT", "/x", b"{}")).status == 200
        await call(made)
        with pytest.raises(wire.LostError):
            await call(made, "POST", "/x", b"{}")
    assert [asked.split(b" ")[0] for asked in script.asked] == [b"GET", b"PUT", b"PUT", b"GET", b"POST"]


async def test_a_server_that_wants_to_close_is_obeyed() -> None:
    script = Script([OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")], [OK])
    async with pool(script) as made:
        await call(made)
        await call(made)
    assert script.connections == 2


async def test_an_answer_that_ends_in_the_middle_is_no_answer() -> None:
    async with pool(Script([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", None])) as made:
        with pytest.raises(wire.WireError) as lost:
            await call(made)
    assert not isinstance(lost.value, wire.LostError)


async def test_a_late_answer_never_reaches_another_call() -> None:
    script = Script([2.5, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate"], [OK])
    async with pool(script, limit=1) as made:
        with pytest.raises(TimeoutError):
            await made.request("GET", "/x", {}, None, timeout_seconds=1.0)
        assert (await call(made)).payload == b"{}"
    assert script.connections == 2


async def test_no_more_connections_than_allowed() -> None:
    script = Script(*([0.02, OK] for _ in range(9)))
    async with pool(script, limit=3) as made:
        await asyncio.gather(*(call(made) for _ in range(9)))
    assert script.connections == 3


async def test_closing_ends_the_calls_under_way() -> None:
    script = Script([60.0, OK])
    async with pool(script) as made:
        waiting = asyncio.create_task(call(made))
        async with asyncio.timeout(30):
            while not script.asked:  # noqa: ASYNC110 - the server rings no bell
                await asyncio.sleep(0.01)
        await made.close()
        with pytest.raises(OSError):
            await waiting


@pytest.mark.parametrize("value", ["t\r\nX: y", "t\n", "t\0"])
async def test_no_header_can_be_smuggled_in(value: str) -> None:
    async with pool(Script([OK])) as made:
        with pytest.raises(ValueError, match="line break"):
            await made.request("GET", "/x", {"Authorization": value}, None, timeout_seconds=30)


async def test_a_path_cannot_end_the_request_line() -> None:
    script = Script([OK])
    async with pool(script) as made:
        await call(made, "GET", "/x HTTP/1.1\r\nX: y/ä?dryRun=All")
    assert script.asked[0].startswith(b"GET /base/x%20HTTP/1.1%0D%0AX:%20y/%C3%A4?dryRun=All HTTP/1.1\r\n")


@pytest.mark.parametrize("url", ["", "unix:///x", "10.0.0.1:6443", "https://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        wire.place(url, None, None)


def test_an_address_is_taken_apart() -> None:
    assert wire.place("http://[::1]:8080/k8s/", None, None).authority == "[::1]:8080"
    assert wire.place("http://a.example", None, None) == wire.Place("a.example", 80, None, None, "")
