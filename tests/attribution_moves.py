"""Rows of the adversarial table: processes away from where they were born, a cgroup that lies."""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.attribution_processes import beside, child_of, host_pid_inside
from tests.attribution_rows import ADMIN, FAMILY, AttributionRows, command_of
from tests.attribution_support import (
    Host,
    Told,
    directory_of,
    identifying_root,
    move,
    pids_below,
    state_of,
    text_of,
)
from tests.containers import Containers, docker, first_pid, wait_until


class MovedProcesses(AttributionRows):
    """Moved by hand, brought by nsenter, put in from the host."""

    def test_a_directory_that_lies_about_whose_it_is(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        """Whoever may make cgroups may give one another container's name."""
        victim = self.run(boxes, image)
        liar = self.run(boxes, image)
        inside = directory_of(liar) / f"docker-{victim}.scope"
        outside = identifying_root() / f"so1test-{uuid.uuid4().hex[:6]}" / f"docker-{victim}.scope"
        with beside("sleep", "9999") as pid:
            try:
                inside.mkdir()
                outside.mkdir(parents=True)
                move(first_pid(liar), inside)
                move(pid, outside)
                host.check(basis={first_pid(liar): "cgroup"}, absent=[pid])
            finally:
                move(pid, identifying_root())
                outside.rmdir()
                outside.parent.rmdir()

    def test_a_process_moved_by_hand_to_another_container(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        source, target = self.run(boxes, image), self.run(boxes, image)
        docker("exec", "-d", source, "sleep", "8805")
        moved = host_pid_inside(source, "8805")
        move(moved, directory_of(target))
        host.check(basis={moved: "moved", first_pid(target): "cgroup"})
        move(first_pid(source), directory_of(target))
        host.check(basis={first_pid(source): "moved", moved: "moved"})

    def test_a_process_moved_by_hand_to_the_host(
        self, host: Host, boxes: Containers, image: str, elsewhere: Path
    ) -> None:
        box = self.run(boxes, image, command=FAMILY)
        wait_until(lambda: len(pids_below(directory_of(box))) == 3, "the shell's children")
        pids = pids_below(directory_of(box))
        strays = {pid: Told(box, "strayed") for pid in pids}
        one = max(pids)
        move(one, elsewhere)
        host.check(extra={one: strays[one]})
        for pid in pids - {one}:
            move(pid, elsewhere)  # the first process too: its container's cgroup is empty now
        host.check(extra=strays)

    def test_a_stray_dies_with_its_container(
        self, host: Host, boxes: Containers, image: str, elsewhere: Path
    ) -> None:
        box = self.run(boxes, image)
        docker("exec", "-d", box, "sleep", "8806")
        stray = host_pid_inside(box, "8806")
        move(stray, elsewhere)
        host.check(extra={stray: Told(box, "strayed")})
        docker("rm", "-f", box)
        wait_until(lambda: state_of(stray) == "", "the stray is gone too")
        host.check(absent=[stray])

    def test_a_process_that_nsenter_brought(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        box = self.run(boxes, image)
        target = str(first_pid(box))
        with beside("nsenter", "-t", target, "-p", "-m", "--", "sleep", "8807") as nsenter:
            inside = child_of(nsenter)
            wait_until(lambda: b"8807" in command_of(inside), "nsenter's child runs")
            host.check(extra={inside: Told(box, "strayed")}, absent=[nsenter])

    def test_a_pid_namespace_made_inside_a_container_is_the_containers(
        self, host: Host, boxes: Containers, image: str, elsewhere: Path
    ) -> None:
        box = self.run(boxes, image, *ADMIN, command=("unshare", "-p", "-u", "-f", "sleep", "8808"))
        inner = child_of(first_pid(box))
        wait_until(lambda: text_of(Path(f"/proc/{inner}/comm")) == "sleep\n", "it runs")
        status = text_of(Path(f"/proc/{inner}/status"))
        levels = status.partition("NSpid:")[2].split("\n")[0].split()
        assert len(levels) == 3
        host.check(basis={inner: "cgroup"})
        move(inner, elsewhere)
        host.check(extra={inner: Told(box, "strayed")})
        other = self.run(boxes, image)
        move(inner, directory_of(other))
        host.check(basis={inner: "moved"})

    def test_a_stray_of_a_container_in_the_hosts_pid_namespace_is_dropped(
        self, host: Host, boxes: Containers, image: str, elsewhere: Path
    ) -> None:
        box = self.run(boxes, image, "--pid=host")
        docker("exec", "-d", box, "sleep", "8809")
        stray = host_pid_inside(box, "8809")
        move(stray, elsewhere)
        host.check(absent=[stray])

    def test_a_host_process_put_into_a_container_is_added(
        self, host: Host, boxes: Containers, image: str
    ) -> None:
        box = self.run(boxes, image)
        with beside("sleep", "9999") as pid:
            move(pid, directory_of(box))
            host.check(basis={pid: "added"})
