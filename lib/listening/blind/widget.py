"""The blind test as a widget, in JupyterLab and Voilà; its kernel needs no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import anywidget

from lib.listening.blind.answers import Refused
from lib.listening.blind.session import Session
from lib.listening.frontend import BLIND, CSS, module


class BlindTest(anywidget.AnyWidget):
    """The blind test in ``folder`` (`lib.listening.blind.design.write`), as `lib.listening.serve` shows it.

    Messages to and from the browser are those of `lib.listening.blind.session`.
    """

    _esm = module(*BLIND)
    _css = CSS

    def __init__(self, folder: Path | str, codes: Iterable[str] = ()):
        super().__init__()
        self._session = Session(Path(folder), codes)
        self.on_msg(self._received)

    def __repr__(self) -> str:
        return "BlindTest()"

    def _received(self, _, message: Mapping, buffers: object) -> None:
        number = message.get("id") if isinstance(message, Mapping) else None
        reply = {"id": number if isinstance(number, int | str) else None}
        if isinstance(message, Mapping) and message.get("type") == "sound":
            try:
                file = self._session.sound(message["code"], message["page"], message["slot"])
                return self.send(reply, [file.read_bytes()])
            except (Refused, OSError, LookupError, TypeError, ValueError, AttributeError):
                return self.send({**reply, "refused": "misunderstood"}, [b""])
        return self.send({**reply, **self._session.reply(message)})
