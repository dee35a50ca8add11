"""The server of blind tests: small, for a hundred at once, and no answer that it took is ever lost."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPError

from lib import ROOT
from lib.listening import serve
from lib.listening.blind.answers import read
from lib.profile.fields import Blind
from tests import browser
from tests.listening.heard import designed, excerpts, served

PEOPLE, MEGABYTES = 100, 100


@pytest.mark.parametrize(
    ("statement", "without"),
    [
        ("import lib.listening.serve", "torch numpy scipy pandas pydantic IPython"),
        ("from lib.listening import BlindTest", "torch scipy pandas"),
        ("import lib.listening.blind.prepare", "torch pandas"),
    ],
)
def test_neither_the_server_nor_a_participants_kernel_imports_torch(statement, without):
    call = f"import sys; {statement}; print(*{set(without.split())} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, check=False, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


@pytest.fixture
def folder(tmp_path):
    """A test of two pages."""
    blind = Blind(seconds=0.5, stems=("drums", "vocals"), questions=("target",))
    return designed(tmp_path, blind, excerpts(1, 1.0))


@pytest.fixture
def started(folder):
    """Start the server of `folder` on one port, again if need be: ``started()`` -> process."""
    port = browser.free_port()
    with contextlib.ExitStack() as stack:
        start = lambda *options: stack.enter_context(served(folder, port, *options))  # noqa: E731
        start.address = f"http://127.0.0.1:{port}"
        yield start


async def fetched(client: AsyncHTTPClient, address: str, message: dict | None = None) -> bytes:
    """A body; asked for again while the server is away, as the page's user would."""
    more = {"method": "POST", "body": json.dumps(message), "headers": {"Content-Type": "application/json"}}
    while True:
        try:
            return (await client.fetch(address, request_timeout=60, **(more if message else {}))).body
        except (OSError, HTTPError):
            await asyncio.sleep(0.3)


async def participant(client: AsyncHTTPClient, address: str, number: int, taken: dict) -> None:
    """Goes through the whole test; ``taken`` receives every answer that the server said it took."""
    code = f"P{number:03}"

    async def say(kind: str, **facts: object) -> dict:
        return json.loads(await fetched(client, f"{address}/reply", {"type": kind, "code": code, **facts}))

    await say("begin", new=True)
    page = (await say("level", level=-6))["page"]
    while page["view"] in ("training", "trial"):
        count, shown = len(page["letters"]), page["page"]
        sound = await fetched(client, f"{address}/sound/{code}/{page['sounds']}/{number % count}")
        assert sound[:4] == b"fLaC"
        kind = "trained" if page["view"] == "training" else "answer"
        values = [(number + slot + shown) % 101 for slot in range(count - 1)]
        facts = {"plays": [1] * count, "seconds": [2.0] * count, "elapsed": 9.0, "revision": 0, "values": values}
        reply = await say(kind, page=shown, **facts)
        assert reply.get("refused") in (None, "answered")  # taken before, and the reply was lost
        if kind == "answer":
            taken[code, shown] = values
        page = reply["page"]


async def rude(address: str, number: int) -> None:
    """Asks for a page or a sound, or begins an answer, and hangs up."""
    host, port = address.removeprefix("http://").split(":")
    lines = (
        "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        "GET /sound/P000/volume/0 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    )
    lines += ('POST /reply HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 500\r\n\r\n{"type"',)
    with contextlib.suppress(OSError):  # while the server is away
        _, writer = await asyncio.open_connection(host, port)
        writer.write(lines[number % 3].encode())
        await writer.drain()
        writer.close()


def test_a_hundred_at_once_lose_nothing_though_the_server_is_killed(started, folder):
    processes, taken = [started()], {}

    async def crowd() -> None:
        AsyncHTTPClient.configure(None, max_clients=PEOPLE)
        client = AsyncHTTPClient(force_instance=True)
        everybody = [participant(client, started.address, number, taken) for number in range(PEOPLE)]
        tasks = [asyncio.ensure_future(one) for one in [*everybody, *(rude(started.address, n) for n in range(60))]]
        while len(taken) < PEOPLE // 2:
            await asyncio.sleep(0.02)
        processes[0].send_signal(signal.SIGKILL)
        processes.append(await asyncio.to_thread(started))
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(crowd(), 240))
    assert len(taken) == PEOPLE * 2
    stored = {
        (path.stem, event["page"]): event["values"]
        for path in (folder / "answers").glob("*.jsonl")
        for event in read(path)
        if event["kind"] == "answer"
    }
    assert stored == taken
    status = Path(f"/proc/{processes[1].pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    assert peak < MEGABYTES


def request(address: str, text: str) -> str:
    """The first line of the answer to a request, and the rest."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(text.encode())
        parts = []
        with contextlib.suppress(ConnectionResetError):  # what is too large is not read to its end
            while part := connection.recv(1 << 16):
                parts.append(part)
    return b"".join(parts).decode()


def asked(path: str, host: str = "127.0.0.1", body: str = "", kind: str = "application/json") -> str:
    head = f"Host: {host}\r\nConnection: close\r\n"
    if not body:
        return f"GET {path} HTTP/1.1\r\n{head}\r\n"
    return f"POST {path} HTTP/1.1\r\n{head}Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}"


def test_strangers_get_nothing(started, monkeypatch):
    monkeypatch.setenv("LISTENING_TOKEN", "")
    started()
    message = '{"type": "welcome"}'
    for text, status in (
        (asked("/"), 200),
        (asked("/", host="localhost:80"), 200),
        (asked("/", host="elsewhere.example"), 404),  # whose name was made to resolve to this machine
        (asked("/reply", body=message), 200),
        (asked("/reply", body=message, kind="text/plain"), 415),  # another site's form
        (asked("/reply", body="{"), 400),
        (asked("/reply", body="[" * 50_000), 400),
        (asked("/reply", body="7"), 200),
        (asked("/design.json"), 404),
        (asked("/sound/../design.json"), 404),
        (asked("/sound/%2e%2e/0/0"), 404),
        (asked("/sound/P01/0/99999999999"), 404),
    ):
        assert request(started.address, text).startswith(f"HTTP/1.1 {status} "), text[:60]
    page = request(started.address, asked("/"))
    assert "default-src 'none'" in page and "no-store" in page
    assert "200" not in request(started.address, asked("/reply", body="x" * 200_000)).split("\r\n")[0]


def test_on_a_network_all_need_the_link_with_its_token(started, monkeypatch):
    monkeypatch.setenv("LISTENING_TOKEN", "secret-of-the-day")
    process = started("--network", "127.0.0.1")
    for path, status in (("/", 403), ("/?token=wrong", 403), ("/?token=secret-of-the-day", 200)):
        answer = request(started.address, asked(path, host="any.example"))
        assert answer.startswith(f"HTTP/1.1 {status} ") and (status == 200 or "Please use the whole link" in answer)
    command = Path(f"/proc/{process.pid}/cmdline").read_text()
    assert "secret" not in command  # everyone on the machine can read it


def test_wrong_calls_are_one_line(tmp_path, capsys, monkeypatch):
    for arguments, said in (
        ([], "name a profile"),
        (["demo", "--stimuli", "x"], "name a profile"),
        (["demo", "--port", "0"], "--port from 1"),
        (["demo", "--network", "0.0.0.0 --token="], "--network takes"),
    ):
        with pytest.raises(SystemExit, match="2"):
            serve.main(arguments)
        assert said in capsys.readouterr().err
    assert serve.main([str(tmp_path), "--codes", str(tmp_path / "none")]) == 2
    assert "--codes" in capsys.readouterr().err
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert serve.main(["--stimuli", os.devnull]) == 2
