"""The JavaScript and the style of all views, and the page of the blind test outside of notebooks."""

from __future__ import annotations

import base64
import hashlib
import html
from pathlib import Path

HERE = Path(__file__).parent
CSS = (HERE / "listening.css").read_text("utf-8")
BLIND = ("blind/test.js", "blind/hosts.js")
"""The view of the blind test, the same in all its hosts."""


def module(*views: str) -> str:
    """The JavaScript module of a view: ``engine.js`` and the files ``views``."""
    return "".join((HERE / name).read_text("utf-8") for name in ("engine.js", *views))


def blind_page(title: str) -> tuple[str, str]:
    """(page, policy): the blind test as one HTML page, and the Content-Security-Policy that allows nothing else."""
    script = module(*BLIND)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; connect-src 'self'"
    head = f"<title>{html.escape(title)}</title><style>{CSS}</style>"
    return (
        '<!doctype html><html data-listening="page"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        f'<meta name="viewport" content="width=device-width">{head}</head>'
        f'<body class="page"><script type="module">{script}</script></body></html>'
    ), policy + "; img-src data:; base-uri 'none'; form-action 'none'"
