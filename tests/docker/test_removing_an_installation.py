"""All that an installation made goes at its stop, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent.actions.remover import remove_installation
from agent.model.removal import Outcome
from tests.containers import ALPINE, STRESS, wait_until
from tests.docker.removals import OURS, outcomes, unremovable

if TYPE_CHECKING:
    from tests.docker.private_engine import PrivateEngine


class TestRemoveInstallation:
    def test_all_that_carry_the_label_themselves_go_in_whatever_state(
        self, engine: PrivateEngine
    ) -> None:
        label = ("--label", f"so1.installation={OURS}")
        running = engine.run(*label)
        paused = engine.run(*label)
        engine.docker("pause", paused)
        exited = engine.run(*label, command=("true",))
        created = engine.docker("create", *label, ALPINE, "true")
        stress = engine.run(*label, image=STRESS)
        said: list[str] = []
        removals = remove_installation(engine.host, OURS, progress=said.append)
        assert outcomes(removals) == dict.fromkeys(
            [running, paused, exited, created, stress], Outcome.REMOVED
        )
        assert said == ["Removing 5 of this installation's containers …"]
        assert engine.docker("ps", "-aq") == ""

    def test_a_protected_one_of_ours_stays_and_is_told_once(self, engine: PrivateEngine) -> None:
        label = ("--label", f"so1.installation={OURS}")
        protected = engine.run(*label, "--label", "so1.protect=true", "--name", "so1_contenedor_1")
        grafana = engine.run(*label, "--name", "Grafana")
        other = engine.run(*label)
        said: list[str] = []
        removals = remove_installation(engine.host, OURS, progress=said.append)
        assert outcomes(removals) == {other: Outcome.REMOVED}
        assert engine.exists(protected)
        assert engine.exists(grafana)
        but = "is this installation's, but protected"
        assert sorted(said) == [
            f"Grafana {but} (Grafana): left alone.",
            "Removing 1 of this installation's containers …",
            f"so1_contenedor_1 {but} (label so1.protect=true): left alone.",
        ]

    def test_nothing_else_goes(self, engine: PrivateEngine) -> None:
        claiming = "so1-claims-alpine:local"
        engine.docker(
            *("import", "-c", f"LABEL so1.installation={OURS}", "-", claiming),
            data=(engine.directory / "root.tar").read_bytes(),
        )
        survivors = [
            engine.run("--name", "so1_contenedor_1"),
            engine.run("--label", f"so1.installation={'f' * 32}"),
            engine.run("--label", f"so1.installation={OURS}x"),
            engine.run("--label", f"so1.installation.x={OURS}"),
            engine.run("--name", "grafana"),
            engine.run(image=claiming, command=("/bin/sleep", "infinity")),
        ]
        since = engine.now()
        assert remove_installation(engine.host, OURS, progress=print) == ()
        assert engine.events(since, "kill", "stop", "die", "destroy") == []
        assert all(engine.exists(one) for one in survivors)

    def test_one_whose_image_is_gone_proves_nothing_and_is_told(
        self, engine: PrivateEngine
    ) -> None:
        engine.docker(
            *("import", "-c", f"LABEL so1.installation={OURS}", "-", "so1-shortlived:local"),
            data=(engine.directory / "root.tar").read_bytes(),
        )
        orphan = engine.run(image="so1-shortlived:local", command=("/bin/true",))
        wait_until(lambda: engine.inspect(orphan)["State"]["Status"] == "exited", "it exited")
        engine.docker("image", "rm", "-f", engine.inspect(orphan)["Image"])
        said: list[str] = []
        assert remove_installation(engine.host, OURS, progress=said.append) == ()
        assert len(said) == 1
        assert "left alone" in said[0]
        assert engine.exists(orphan)

    def test_one_that_cannot_be_removed_is_told_and_the_others_go(
        self, engine: PrivateEngine
    ) -> None:
        label = ("--label", f"so1.installation={OURS}")
        fixed, other = engine.run(*label), engine.run(*label)
        with unremovable(engine, fixed):
            removals = remove_installation(engine.host, OURS, progress=print)
        assert outcomes(removals) == {fixed: Outcome.FAILED, other: Outcome.REMOVED}

    @pytest.mark.parametrize("installation", ["", "x", "a" * 65, "../", OURS.upper(), "*"])
    def test_what_is_no_installations_id_names_no_container(
        self, engine: PrivateEngine, installation: str
    ) -> None:
        unlabelled = engine.run("--label", f"so1.installation={installation}")
        assert remove_installation(engine.host, installation, progress=print) == ()
        assert engine.exists(unlabelled)
