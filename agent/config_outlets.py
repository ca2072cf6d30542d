"""The settings of what leaves the host, and of what has to be proven before it acts."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from agent.config_forms import URL, AbsolutePath, Section, Url
from agent.place import PREFIX


class MetricsSettings(Section, frozen=True):
    """What Prometheus and its like may scrape; nothing while `listen` is empty."""

    listen: Annotated[
        str,
        msgspec.Meta(pattern=r"^(|127\.\d{1,3}\.\d{1,3}\.\d{1,3}:\d{1,5}|\[::1\]:\d{1,5})\Z"),
    ] = ""
    """Address and port, on this host only: `127.0.0.1:9436`, `[::1]:9436`."""
    containers: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    """The largest so many have series of their own."""
    commands: Annotated[int, msgspec.Meta(ge=0, le=1000)] = 20
    """So many of the host's commands by memory, and as many by CPU."""

    def __post_init__(self) -> None:
        if self.listen and not 1 <= self.address[1] <= 65535:
            raise ValueError(f"port {self.address[1]} of listen is not from 1 to 65535")
        if self.listen:
            try:
                ip_address(self.address[0])
            except ValueError:
                raise ValueError(f"{self.address[0]} of listen is no address") from None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of `listen`, which is not empty."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class FleetSettings(Section, frozen=True):
    """Where this host's facts and figures are shipped to; nowhere while `dsn` is empty."""

    dsn: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*\Z", max_length=2048)] = ""
    """libpq's connection string of the centre; several hosts are tried in order."""
    secret_file: AbsolutePath = "/etc/so1/fleet.secret"  # noqa: S105 - where it is, not it
    flush_s: Annotated[int, msgspec.Meta(ge=10, le=86_400)] = 300
    """From flush to flush, give or take a tenth."""
    resolution: Literal["5m", "60s"] = "5m"
    """The finest buckets of hosts and containers that are shipped; `60s` adds a level."""
    processes: Literal["", "top:20"] = ""
    """`top:20`: the processes of each bucket too, by number and name."""
    environment: AbsolutePath = f"{PREFIX}/fleet"
    """The Python environment that has the driver."""

    @property
    def options(self) -> frozenset[str]:
        """What this host ships beside what every host does, as `agent.fleet.streams` names it."""
        wanted = {"minutes": self.resolution == "60s", "processes": bool(self.processes)}
        return frozenset(name for name, is_wanted in wanted.items() if is_wanted)


class WebhookSettings(Section, frozen=True):
    """Where messages are posted to as JSON; nowhere while `url` is empty."""

    url: Annotated[str, msgspec.Meta(pattern=rf"^(|{URL})\Z", max_length=2048)] = ""
    key_file: AbsolutePath = "/etc/so1/notify.key"
    """Holds the key that messages are signed with."""
    ca_file: AbsolutePath | None = None
    """Certificates of authorities, instead of the system's."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0

    def __post_init__(self) -> None:
        if self.url:
            check_url(self.url)


class AlertmanagerSettings(Section, frozen=True):
    """Alertmanagers, each of which gets everything (several of one cluster); none while empty."""

    urls: Annotated[tuple[Url, ...], msgspec.Meta(max_length=8)] = ()
    """Without `/api/v2/alerts`."""
    ca_file: AbsolutePath | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 10.0

    def __post_init__(self) -> None:
        for url in self.urls:
            check_url(url)


def check_url(url: str) -> None:
    """Raises ValueError for a URL that nothing can be posted to, without the rest of it."""
    if not url.isascii():
        raise ValueError("the URL has more than ASCII: write é as %C3%A9, a host's name as xn--…")
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host:
        raise ValueError("the host of the URL is none")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError("the port of the URL is not from 1 to 65535")


class NotifySettings(Section, frozen=True):
    """Who is notified of what the rules report, and of the policy's own state."""

    journal: bool = False
    """Entries with fields in systemd's journal."""
    actions: bool = False
    """Also what was removed, stopped, restarted or paused."""
    per_minute: Annotated[int, msgspec.Meta(ge=1, le=600)] = 30
    """So many messages go to each receiver at most; more wait."""
    webhook: WebhookSettings = WebhookSettings()
    alertmanager: AlertmanagerSettings = AlertmanagerSettings()

    @property
    def wanted(self) -> bool:
        return self.journal or bool(self.webhook.url) or bool(self.alertmanager.urls)


class ProofSettings(Section, frozen=True):
    """Budgets of error. While one is spent nothing is removed, stopped, restarted or paused."""

    agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.95
    """At least this share of the processes on which both witnesses spoke have to agree."""
    loss: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.02
    """At most this share of BPF's records may be lost."""
    unexplained: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.10
    """At most this share of the containers' CPU may be nobody's."""
    canary: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05
    """At most so far off may what is measured of the canary be."""
    canary_hours: Annotated[int, msgspec.Meta(ge=0, le=24 * 31)] = 0
    """From canary to canary; 0: none."""
