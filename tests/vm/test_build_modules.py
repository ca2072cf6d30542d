"""bash/load_modules.sh before it loads: what it builds, and what keeps it from it."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.vm.loader import (
    BUILD,
    HEADERS_MISSING,
    KERNEL,
    LOCKED,
    PROJECT,
    RELEASE,
    TOOLS,
    as_found,
    built,
    laid,
    mokutil,
    over,
    refused,
    script,
    signing_key,
    succeeded,
)

__all__ = ["as_found", "built", "mokutil"]


@pytest.mark.parametrize("missing", ["make", "gcc", "insmod"])
def test_a_missing_program_is_named_before_anything_is_built(tmp_path: Path, missing: str) -> None:
    # What is no program any more is not found in the path.
    hidden = {shutil.which(missing) or "", *map(str, Path("/usr/bin").glob(f"{missing}-[0-9]*"))}
    done = script(
        prefix=laid({target: Path("/dev/null") for target in hidden}),
        SO1_BUILD_ROOT=tmp_path / "empty",
    )
    line = refused(done, TOOLS)
    assert missing in line
    assert "sudo apt-get install" in line
    assert not list(tmp_path.glob("empty/*/.aside*"))


def test_missing_headers_are_named_with_their_package(tmp_path: Path) -> None:
    done = script(SO1_BUILD_ROOT=tmp_path, KDIR=tmp_path / "none")
    assert f"sudo apt-get install -y linux-headers-{RELEASE}" in refused(done, HEADERS_MISSING)


def test_a_locked_down_kernel_without_a_key_is_told_before_anything_is_built(
    tmp_path: Path, mokutil: Path
) -> None:
    lockdown, enforce = tmp_path / "lockdown", tmp_path / "enforce"
    lockdown.write_text("none [integrity] confidentiality\n")
    enforce.write_text("Y\n")
    for prefix, why in (
        (over(lockdown=lockdown), "This kernel is locked down"),
        (over(sig_enforce=enforce), "This kernel is locked down"),
        (over(lockdown=lockdown, mokutil=mokutil), "Secure Boot is on"),
    ):
        line = refused(script(prefix=prefix, SO1_BUILD_ROOT=tmp_path / "empty"), LOCKED)
        assert why in line
        assert "openssl req" in line
        assert "mokutil --import" in line
    assert not (tmp_path / "empty").exists()


def test_a_key_that_the_firmware_does_not_know_is_told_before_anything_is_built(
    tmp_path: Path, mokutil: Path
) -> None:
    lockdown = tmp_path / "lockdown"
    lockdown.write_text("none [integrity] confidentiality\n")
    key, certificate = signing_key(tmp_path)
    done = script(
        prefix=over(lockdown=lockdown, mokutil=mokutil),
        SO1_BUILD_ROOT=tmp_path / "empty",
        SO1_SIGN_KEY=key,
        SO1_SIGN_CERT=certificate,
    )
    assert f"mokutil --import {certificate}" in refused(done, LOCKED)
    assert not (tmp_path / "empty").exists()


def test_a_kernel_that_takes_no_more_modules_is_told_so(tmp_path: Path) -> None:
    disabled = tmp_path / "disabled"
    disabled.write_text("1\n")
    done = script(prefix=over(modules_disabled=disabled))
    assert "kernel.modules_disabled" in refused(done, KERNEL)


@pytest.mark.full
def test_it_builds_from_a_read_only_checkout_once(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    subprocess.run(["mount", "--bind", PROJECT, checkout], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", checkout], check=True)
        path = checkout / "bash" / "load_modules.sh"
        started = time.monotonic()
        first = succeeded(script(path=path, SO1_BUILD_ROOT=tmp_path / "build"))
        assert "built" in first.stderr
        building_s = time.monotonic() - started
        (directory,) = tmp_path.glob("build/*/*/")
        second = succeeded(script(path=path, SO1_BUILD_ROOT=tmp_path / "build"))
        assert "built" not in second.stderr
        assert {file.name for file in directory.iterdir()} == {
            *("sysinfo.ko", "continfo.ko", "sysinfo.srcversion", "continfo.srcversion"),
            *("build.log", "SHA256SUMS"),
        }
        print(f"built in {building_s:.0f} s")
    finally:
        subprocess.run(["umount", checkout], check=True)


@pytest.mark.full
def test_an_error_in_the_sources_is_shown_and_leaves_no_half_build(tmp_path: Path) -> None:
    for part in ("bash", "kernel"):
        shutil.copytree(PROJECT / part, tmp_path / part)
    source = tmp_path / "kernel" / "modules" / "sysinfo.c"
    source.write_text(source.read_text() + "\nnot C at all;\n")
    done = script(path=tmp_path / "bash" / "load_modules.sh", SO1_BUILD_ROOT=tmp_path / "build")
    assert "error:" in refused(done, BUILD)
    assert not list(tmp_path.glob("build/*/*/"))
    assert (tmp_path / "build" / RELEASE / "failed.log").exists()


@pytest.mark.full
def test_a_locked_down_kernel_is_given_signed_modules(tmp_path: Path) -> None:
    lockdown, silent = tmp_path / "lockdown", tmp_path / "mokutil"
    lockdown.write_text("none [integrity] confidentiality\n")
    silent.write_text("#!/bin/sh\n")
    silent.chmod(0o755)
    key, certificate = signing_key(tmp_path)
    succeeded(
        script(
            prefix=over(lockdown=lockdown, mokutil=silent),
            SO1_BUILD_ROOT=tmp_path / "build",
            SO1_SIGN_KEY=key,
            SO1_SIGN_CERT=certificate,
        )
    )
    for module in tmp_path.glob("build/*/*/*.ko"):
        signer = subprocess.run(["modinfo", "-F", "signer", module], capture_output=True, text=True)
        assert signer.stdout.strip() == "so1-test"


@pytest.mark.full
def test_the_sources_compile_without_a_warning(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "kernel" / "modules", tmp_path / "modules")
    done = subprocess.run(
        ["make", "-C", tmp_path / "modules", "check"], capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "CHECK" in said
    assert "warning" not in said.lower()
