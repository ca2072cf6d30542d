"""The page of one tick, made when it is first asked for and kept until the next tick's figures.

A hundred who ask at once get the same bytes. `prometheus_client` is imported at the first request,
so that an agent that nobody scrapes does not carry it.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.export.figures import ExportedFigures

TEXT, OPENMETRICS = "text/plain", "application/openmetrics-text"
_VERSIONS = {TEXT: ("", "0.0.4"), OPENMETRICS: ("", "0.0.1", "1.0.0")}

Render = Callable[[ExportedFigures, bool], tuple[str, bytes]]
"""Figures, and whether as OpenMetrics: content type and text."""


def _render(figures: ExportedFigures, as_openmetrics: bool) -> tuple[str, bytes]:
    from agent.export import openmetrics  # noqa: PLC0415 - see above

    return openmetrics.render(figures, as_openmetrics)


class Page:
    """One thread shows figures, another gets them as text; neither waits for the other."""

    def __init__(self, render: Render = _render) -> None:
        self._render = render
        self._shown: ExportedFigures | None = None
        self._made_of: ExportedFigures | None = None
        self._made: dict[bool, tuple[str, bytes]] = {}

    def show(self, figures: ExportedFigures) -> None:
        """From now on the page is that of `figures`."""
        self._shown = figures

    def get(self, accept: str) -> tuple[str, bytes] | None:
        """Content type and text for an `Accept` header, None while there are no figures."""
        figures = self._shown
        if figures is None:
            return None
        if self._made_of is not figures:
            self._made_of, self._made = figures, {}
        as_openmetrics = wants_openmetrics(accept)
        made = self._made.get(as_openmetrics)
        if made is None:
            made = self._made[as_openmetrics] = self._render(figures, as_openmetrics)
        return made


def wants_openmetrics(accept: str) -> bool:
    """Whether an `Accept` header (RFC 9110, 12.5.1) prefers OpenMetrics to the text format."""
    quality = {TEXT: 0.0, OPENMETRICS: 0.0}
    for offer in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in offer.split(";"))
        values = dict(part.partition("=")[::2] for part in parameters)
        if kind in quality and values.get("version", "") in _VERSIONS[kind]:
            quality[kind] = max(quality[kind], _quality(values.get("q", "1")))
    return quality[OPENMETRICS] > 0 and quality[OPENMETRICS] >= quality[TEXT]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
