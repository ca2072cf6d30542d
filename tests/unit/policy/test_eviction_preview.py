"""Who goes next, and why: the policy's own word over the rows of a tick."""

from __future__ import annotations

from dataclasses import dataclass

from agent.config import PolicySettings
from agent.model.container import ContainerKey
from agent.policy.eviction_preview import Contender, contenders

SETTINGS = PolicySettings()


@dataclass(frozen=True)
class Row:
    """As a row of `container_totals`, governed and of the low tier unless said otherwise."""

    container_id: str
    held_mb: float
    tier: str = "low"
    governed: bool = True
    processes: int = 1
    cpu_percent: float = 0.0
    rss_mb: float = 1.0
    engine: str = "docker"

    @property
    def container_name(self) -> str:
        return f"so1_contenedor_{self.container_id}"

    @property
    def image(self) -> str:
        return "alpine:latest" if self.tier == "low" else "polinux/stress"


def ask(*rows: Row, disputed: str = "", gone: str = "") -> tuple[Contender, ...]:
    return contenders(rows, keys(disputed), keys(gone), SETTINGS)


def keys(letters: str) -> set[ContainerKey]:
    return {ContainerKey("docker", one) for one in letters}


def going(found: tuple[Contender, ...]) -> list[str]:
    return [one.container_id for one in found if one.goes]


def test_the_hungriest_beyond_those_that_stay_goes() -> None:
    found = ask(Row("a", 5), Row("b", 40), Row("c", 10), Row("d", 20))

    assert going(found) == ["b"]
    assert found[0].place == 1
    assert "beyond the 3 low that stay" in found[0].why


def test_within_those_that_stay_the_order_is_who_would_be_next() -> None:
    found = ask(Row("a", 5), Row("b", 40), Row("x", 1, tier="high"), Row("y", 9, tier="high"))

    assert going(found) == []
    places = {one.container_id: (one.tier, one.place) for one in found}
    assert places == {"b": ("low", 1), "a": ("low", 2), "y": ("high", 1), "x": ("high", 2)}
    assert {one.why for one in found if one.tier == "high"} == {"within the 2 high that stay"}


def test_a_container_that_the_witnesses_disagree_on_is_spared() -> None:
    found = ask(*(Row(name, held) for name, held in zip("abcd", (1, 2, 3, 90), strict=True)),
                disputed="d")  # fmt: skip

    assert going(found) == []
    assert next(one.why for one in found if one.container_id == "d").startswith("spared")


def test_one_that_has_gone_since_is_not_a_candidate() -> None:
    found = ask(Row("a", 1), Row("b", 2), Row("c", 3), Row("d", 90), gone="d")

    assert going(found) == []
    assert {one.container_id for one in found} == {"a", "b", "c"}


def test_of_one_without_a_process_it_is_not_known_whether_it_has_ended() -> None:
    found = ask(Row("a", 1), Row("b", 0, processes=0))

    assert going(found) == []
    assert (found[-1].container_id, found[-1].place) == ("b", 0)
    assert found[-1].why == "has no process: goes if it has ended"


def test_what_is_not_governed_is_no_candidate() -> None:
    assert ask(Row("a", 500, tier="none", governed=False)) == ()


def test_each_engine_keeps_its_own() -> None:
    held = zip("abcd", (1, 2, 3, 90), strict=True)
    mine = [Row(name, held_mb) for name, held_mb in held]
    theirs = [Row(name, held_mb=50, engine="podman") for name in "abc"]
    assert going(ask(*mine, *theirs)) == ["d"]
