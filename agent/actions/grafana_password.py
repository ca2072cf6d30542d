"""Makes the configured admin password the one that Grafana asks for.

Grafana takes the password from its environment only when it makes its own database. On a volume
from an earlier start the old one holds, and somebody who has just set a better password would
believe in vain that `admin` no longer opens it.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request

from agent.place import SETTINGS

DEFAULT_PASSWORD = "admin"  # noqa: S105
"""The original's, and Grafana's own."""

_TIMEOUT_S = 10.0
_WARN_DEFAULT = (
    f"the admin password is still `admin`; set `admin_password` under [grafana] in {SETTINGS}."
)
_WARN_OTHER = (
    "it keeps another admin password than the configured one; `docker exec -it grafana_so1 "
    "grafana cli admin reset-admin-password NEW` sets it."
)


def settle_password(port: int, wanted: str) -> str:
    """Sees to it that `wanted` opens the Grafana on this host's `port`, and gives a warning or "".

    Where only the default password opens it, it is changed to `wanted`.
    """
    try:
        if _opens(port, wanted):
            return _WARN_DEFAULT if wanted == DEFAULT_PASSWORD else ""
        if wanted != DEFAULT_PASSWORD and _opens(port, DEFAULT_PASSWORD):
            body = {
                "oldPassword": DEFAULT_PASSWORD,
                "newPassword": wanted,
                "confirmNew": wanted,
            }
            changed = _ask(port, DEFAULT_PASSWORD, "PUT", "/api/user/password", body) == 200
            return "" if changed else _WARN_DEFAULT
    except (OSError, ValueError) as error:
        return f"its admin password could not be checked: {error}."
    return _WARN_OTHER


def _opens(port: int, password: str) -> bool:
    return _ask(port, password, "GET", "/api/user") == 200


def _ask(
    port: int, password: str, method: str, path: str, body: dict[str, str] | None = None
) -> int:
    """The status of one request to Grafana on the loopback address."""
    token = base64.b64encode(f"admin:{password}".encode()).decode("ascii")
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
    )
    # Root's environment may name a proxy, which has no business with this.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
