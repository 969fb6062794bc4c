"""Check Python and the installed packages against chatbot's requirements."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Final

from packaging.requirements import Requirement

from chatbot.distribution import DISTRIBUTION, conflicting_distributions, install_command, repair
from chatbot.errors import ConfigError
from chatbot.runtime import event_loop
from chatbot.runtime.doctor.finding import Finding, failed, misconfigured, ok

_REPORTED_PACKAGES: Final = ("azure-communication-chat", "azure-communication-identity", "azure-core", "aiohttp")


def check_packages(
    *,
    extras: Sequence[str] = (),
    installed: Callable[[str], str] = version,
    asked: Sequence[str] | None = None,
    owners: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[Finding]:
    """Check Python and all required packages.

    Args:
        extras: Extras of chatbot that are needed, too.
        installed: Returns the version of a package; raises `PackageNotFoundError` if it is missing.
        asked: Requirements; by default those of chatbot.
        owners: Other distributions that provide the package `chatbot`; by default the installed ones.
        environ: Environment variables, which may select an event loop.
    """
    yield _python(environ)
    if others := conflicting_distributions() if owners is None else owners:
        yield failed("packages", repair(others))
    try:
        asked = requires(DISTRIBUTION) or () if asked is None else asked
    except PackageNotFoundError:
        yield failed("packages", f"{DISTRIBUTION} is not installed; this code runs from a directory", install_command())
        return
    needed = [Requirement(text) for text in asked]
    wrong = list(_wrong([one for one in needed if _is_needed(one, extras)], installed))
    yield from wrong
    if not wrong:
        known = ", ".join(f"{name} {installed(name)}" for name in (DISTRIBUTION, *_REPORTED_PACKAGES))
        yield ok("packages", known)


def _python(environ: Mapping[str, str]) -> Finding:
    python = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    try:
        return ok("python", f"{python}, event loop {event_loop.chosen(environ)}")
    except ConfigError as error:
        return misconfigured("python", str(error))


def _is_needed(requirement: Requirement, extras: Sequence[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _wrong(needed: Sequence[Requirement], installed: Callable[[str], str]) -> Iterator[Finding]:
    for one in needed:
        wanted = f"{one.name}{one.specifier}"
        try:
            found = installed(one.name)
        except PackageNotFoundError:
            yield failed("packages", f"{wanted} is not installed", f"pip install '{wanted}'")
            continue
        if not one.specifier.contains(found, prereleases=True):
            yield failed(
                "packages", f"{one.name} {found} is installed, but {wanted} is required", f"pip install '{wanted}'"
            )
