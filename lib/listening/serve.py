"""Serve a blind test to listeners: ``python -m lib.listening.serve [PROFILE | --stimuli FOLDER | DESIGN]``.

One small process without torch: stimuli are prepared as files by another one, and every answer is on disk before the
next page appears.
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tornado.web import Application, HTTPError, RequestHandler

from lib import ROOT, UserError
from lib.listening.blind.answers import Refused
from lib.listening.blind.session import Session
from lib.listening.frontend import blind_page

LOOPBACK = "127.0.0.1"
LARGEST = 100_000
"""Bytes of an answer."""
CHUNK = 1 << 16


def main(arguments: Sequence[str]) -> int:
    """Exit status: 0 stopped, 2 a wrong call, or a test that cannot be prepared."""
    parser = argparse.ArgumentParser(prog="python -m lib.listening.serve", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", help="a profile, or the folder of a design, whose answers continue")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as listening.blind.test=abx")
    parser.add_argument("--stimuli", metavar="FOLDER", help="your own: ITEM/reference.wav, ITEM/METHOD.wav, test.yaml")
    parser.add_argument("--codes", type=Path, metavar="FILE", help="codes given out, one a line; no others may begin")
    parser.add_argument("--port", type=int, default=8866, help="default: 8866")
    parser.add_argument(
        "--network",
        metavar="ADDRESS",
        help="address of this machine to listen on (0.0.0.0: all). Participants then need a token: LISTENING_TOKEN, or "
        "a random one, which is printed. There is no encryption: outside a trusted network, use a TLS proxy or an SSH "
        "tunnel",
    )
    call = parser.parse_args(arguments)
    if not 1 <= call.port <= 65535:
        parser.error("--port from 1 to 65535")
    if call.network is not None and not re.fullmatch(r"[0-9A-Za-z.:-]+", call.network):
        parser.error("--network takes an address of this machine, such as 0.0.0.0")
    if bool(call.what) == bool(call.stimuli):
        parser.error("name a profile, the folder of a design, or --stimuli FOLDER")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        codes = _codes(call.codes)
        if not (folder := prepared(call.what, call.stimuli, call.overrides)):
            return 2
        token = os.environ.get("LISTENING_TOKEN") or secrets.token_urlsafe(16) if call.network else ""
        asyncio.run(serve(Session(folder, codes), call.network or LOOPBACK, call.port, token))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"port {call.port}: {error.strerror}; choose another with --port", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same call continues this test")
    return 0


def prepared(what: str | None, stimuli: str | None, overrides: Sequence[str]) -> Path | None:
    """The folder of a design, prepared by a process of its own, whose memory ends with it; None if that fails."""
    if what and os.path.isfile(os.path.join(what, "design.json")):
        return Path(what)
    given = ["--stimuli", stimuli] if stimuli else [str(what)]
    command = [sys.executable, "-m", "lib.listening.blind.prepare", *given, *overrides]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    *said, folder = done.stdout.splitlines() or [""]
    for line in said:
        print(line, flush=True)
    return Path(folder) if done.returncode == 0 else None


def _codes(path: Path | None) -> list[str]:
    try:
        return path.read_text("utf-8").split() if path else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--codes: {path} cannot be read: {error}") from None


async def serve(session: Session, host: str, port: int, token: str) -> None:
    """Serve until the process ends. Raises: OSError if the port is taken."""
    application(session, token).listen(port, host, max_body_size=LARGEST, idle_connection_timeout=600)
    print(f"Answers: {session.folder / 'answers'}")
    print(f"Listening test: {address(host, port, token)}", flush=True)
    await asyncio.Event().wait()


def application(session: Session, token: str = "") -> Application:
    """The page, the messages and the sounds of a test. Without a token, only browsers on this machine are served."""
    page, policy = blind_page(session.setup["title"] or "Listening test")
    shared = {"session": session, "token": token, "page": page, "policy": policy}
    routes = [("/", _Page, shared), ("/reply", _Reply, shared), (r"/sound/([^/]+)/(\w+)/(\d+)", _Sound, shared)]
    # another site's page may have its name resolve to this machine
    hosts = r".*" if token else r"(127\.0\.0\.1|localhost)"
    made = Application(log_function=lambda handler: None)
    made.add_handlers(hosts, routes)
    return made


class _Handler(RequestHandler):
    def initialize(self, session: Session, token: str, page: str, policy: str) -> None:
        self.session, self.token, self.page, self.policy = session, token, page, policy

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")

    def prepare(self) -> None:
        given = self.get_query_argument("token", "")
        if self.token and not hmac.compare_digest(given.encode(), self.token.encode()):
            raise HTTPError(403)

    def write_error(self, status_code: int, **facts: object) -> None:
        said = {403: "This link is not complete. Please use the whole link that you were given."}
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(f"<!doctype html><title>Listening test</title><p>{said.get(status_code, 'There is nothing here.')}")


class _Page(_Handler):
    def get(self) -> None:
        self.set_header("Content-Security-Policy", self.policy)
        self.finish(self.page)


class _Reply(_Handler):
    def post(self) -> None:
        if self.request.headers.get("Content-Type") != "application/json":  # which other sites' pages cannot send
            raise HTTPError(415)
        try:
            message = json.loads(self.request.body)
        except (ValueError, RecursionError):
            raise HTTPError(400) from None
        reply = self.session.reply(message)
        _log(message, reply)
        self.finish(reply)


class _Sound(_Handler):
    async def get(self, code: str, page: str, slot: str) -> None:
        try:
            path = self.session.sound(code, page, int(slot))
        except (Refused, UserError, OSError, LookupError, ValueError):
            raise HTTPError(404) from None
        self.set_header("Content-Type", "audio/flac")
        with open(path, "rb") as content:
            while chunk := content.read(CHUNK):
                self.write(chunk)
                await self.flush()


def _log(message: object, reply: dict) -> None:
    """Who begins, who ends and what fails, on the experimenter's console."""
    page = reply.get("page", {})
    said = {"volume": "begins", "done": "is done"}.get(page.get("view"), "")
    said = f"{reply['refused']}: {reply.get('detail', '')}" if reply.get("refused") in ("disk", "damaged") else said
    if said:
        code = page.get("code") or str(isinstance(message, dict) and message.get("code"))[:64]
        print(f"{time.strftime('%H:%M:%S')} {code!r} {said}", flush=True)


def address(host: str, port: int, token: str) -> str:
    """The URL for participants."""
    named = socket.gethostname() if host == "0.0.0.0" else host
    return f"http://{named}:{port}/" + (f"?token={token}" if token else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
