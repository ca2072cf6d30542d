"""Who the processes were that no snapshot saw: names, bounded lists, and sums that stay whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.analysis.cpu_accounting import settle_accounts
from agent.analysis.short_lived import MOST, largest
from agent.model.accounts import CpuAccounts
from agent.model.bpf import BpfView, CgroupEvents, CommandFigures, CommandKey, Seam
from agent.model.container import DOCKER, OTHERS, ContainerKey, ShortLivedCommand

BOX, OTHER = ContainerKey(DOCKER, "a" * 64), ContainerKey(DOCKER, "b" * 64)
OWNER = {10: BOX, 11: BOX, 20: OTHER}


def view(read_ns: int, figures: dict[CommandKey, CommandFigures], short: CgroupEvents) -> BpfView:
    return BpfView(
        read_ns=read_ns,
        cgroup_ids={},
        exiting={},
        moved_cpu_ns={},
        totals={10: short, 20: CgroupEvents()},
        parents={10: 1, 20: 1},
        born=frozenset(),
        gone=frozenset(),
        lost=0,
        seam=Seam(),
        short_lived=figures,
    )


def figures(count: int, cpu_ns: int, *peaks: tuple[int, int]) -> CommandFigures:
    return CommandFigures(count, cpu_ns, peaks)


def test_a_container_has_the_commands_of_all_its_cgroups_since_the_last_tick() -> None:
    sh, nested = CommandKey(10, "sh", "sleep"), CommandKey(11, "sh", "sleep")
    elsewhere, unknown = CommandKey(20, "sh", "sleep"), CommandKey(99, "sh", "sleep")
    first = view(100, {sh: figures(3, 30, (90, 700))}, CgroupEvents(cpu_short_ns=30, short_exits=3))
    usage = {BOX: 1000, OTHER: 1000}
    _, accounts = settle_accounts(CpuAccounts(), first, OWNER, {}, usage)
    second = view(
        200,
        {
            sh: figures(5, 70, (90, 700), (150, 400)),
            nested: figures(1, 5, (160, 600)),
            elsewhere: figures(9, 90, (150, 9)),
            unknown: figures(9, 90, (150, 9)),
        },
        CgroupEvents(cpu_short_ns=75, short_exits=6),
    )
    shares, _ = settle_accounts(accounts, second, OWNER, {}, usage)
    assert shares[BOX].commands == (ShortLivedCommand("sh", "sleep", 3, 45, 600),)
    assert shares[BOX].short_lived_ns == 45


def test_what_nobody_named_is_the_others() -> None:
    rows = largest([ShortLivedCommand("sh", "true", 2, 20, 500)], 5, 50)
    assert rows == (
        ShortLivedCommand("sh", "true", 2, 20, 500),
        ShortLivedCommand("", OTHERS, 3, 30, None),
    )
    assert largest([], 0, 0) == ()


def test_a_long_list_keeps_those_that_cost_most() -> None:
    named = [ShortLivedCommand("sh", f"c{cost}", 1, cost, 1) for cost in range(100)]
    rows = largest(named, 100, sum(range(100)))
    assert [row.cpu_ns for row in rows[:-1]] == list(range(99, 99 - MOST, -1))
    assert rows[-1] == ShortLivedCommand("", OTHERS, 100 - MOST, sum(range(100 - MOST)), None)


def test_a_record_that_was_made_fresh_counts_from_nothing() -> None:
    assert figures(2, 9).since(figures(7, 70)) == figures(2, 9)
    assert figures(7, 70).since(figures(2, 9)) == figures(5, 61)


COMMANDS = st.lists(
    st.builds(
        ShortLivedCommand,
        st.sampled_from("ab"),
        st.text(max_size=3),
        st.integers(1, 50),
        st.integers(0, 10**9),
        st.integers(0, 10**6),
    ),
    max_size=40,
)


@given(COMMANDS, st.integers(0, 3000), st.integers(0, 10**11))
def test_the_rows_cpu_is_the_containers_whatever_was_named(
    named: list[ShortLivedCommand], count: int, cpu_ns: int
) -> None:
    rows = largest(named, count, cpu_ns)
    assert sum(row.cpu_ns for row in rows) == cpu_ns
    assert len(rows) <= MOST + 1
    assert sum(row.processes for row in rows) >= count
