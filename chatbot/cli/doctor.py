"""`chatbot doctor`: diagnoses everything that bots need, and suggests fixes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import anyio
from cyclopts import Group, Parameter

from chatbot.cli.boundary import EXIT_USAGE
from chatbot.cli.check import identity_findings
from chatbot.cli.options import BOTS_YAML, ConfigFile, Format
from chatbot.cli.output import as_json, counted, exit_code, lines
from chatbot.config import Config, ServiceConfig, load_config
from chatbot.errors import ChatbotError, ConfigError
from chatbot.runtime.control_client import ask, find_daemon
from chatbot.runtime.doctor.finding import Finding, FindingState, failed, misconfigured, ok, warning
from chatbot.runtime.doctor.packages import check_packages
from chatbot.runtime.doctor.reachability import check_service
from chatbot.runtime.doctor.running_bots import check_running_bots
from chatbot.runtime.doctor.storage import check_files, check_store
from chatbot.runtime.logs import logging_to
from chatbot.runtime.plugins import load_plugins
from chatbot.runtime.run_directory import ControlDirectory
from chatbot.stores.probe import probe_store

QUIRKS_YAML: Final = Path("quirks.yaml")
_PROBE: Final = Group("Probe", help="Calibrate the emulator by a resource of your own.", sort_key=1)


def doctor(
    config: ConfigFile = BOTS_YAML,
    *,
    format: Format = "text",
    probe: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            group=_PROBE,
            help="Ask the resource what is not documented, with throw-away users and threads; says what it costs, and "
            "asks first.",
        ),
    ] = False,
    cleanup: Annotated[
        bool,
        Parameter(negative="", show_default=False, group=_PROBE, help="Delete what a probe that was killed has left."),
    ] = False,
    only: Annotated[
        list[str] | None, Parameter(negative="", group=_PROBE, help="Group to probe; may be repeated.")
    ] = None,
    skip: Annotated[
        list[str] | None, Parameter(negative="", group=_PROBE, help="Group to leave out; may be repeated.")
    ] = None,
    yes: Annotated[
        bool, Parameter(negative="", show_default=False, group=_PROBE, help="Probe without asking.")
    ] = False,
    quirks: Annotated[Path, Parameter(group=_PROBE, help="Where to write the quirks for the emulator.")] = QUIRKS_YAML,
    report: Annotated[
        Path | None, Parameter(group=_PROBE, help="Where to write a report without secrets, as JSON.")
    ] = None,
    journal: Annotated[
        Path | None,
        Parameter(
            group=_PROBE, help="Where to record what is created; .chatbot/probe.jsonl beside bots.yaml by default."
        ),
    ] = None,
) -> int:
    """Diagnose what bots need, and suggest fixes."""
    if probe or cleanup:
        from chatbot.cli import calibration  # here, because a diagnosis does not wait for it

        if cleanup:
            return calibration.run_cleanup(config, journal)
        options = calibration.ProbeOptions(config, only or (), skip or (), yes, quirks, report, journal, format)
        return calibration.run_probe(options)
    if only or skip or yes or report or journal or quirks != QUIRKS_YAML:
        print(
            "chatbot doctor: --only, --skip, --yes, --quirks, --report and --journal belong to --probe", file=sys.stderr
        )
        return EXIT_USAGE
    with logging_to(sys.stderr, format="console", level="error"):
        diagnosis = _Diagnosis(config)
        for finding in diagnosis.findings():
            diagnosis.collected.append(finding)
            if format == "text":
                print("\n".join(lines(finding)), flush=True)
    if format == "json":
        print(
            json.dumps(
                {"findings": [as_json(one) for one in diagnosis.collected], "is_well": not diagnosis.failures}, indent=2
            )
        )
    else:
        print(_verdict(diagnosis))
    return exit_code(diagnosis.collected)


@dataclass(slots=True)
class _Diagnosis:
    """One run of the checks, which stops where a failed check makes the next ones pointless."""

    config: Path
    collected: list[Finding] = field(default_factory=list)

    @property
    def failures(self) -> list[Finding]:
        return [one for one in self.collected if one.state is FindingState.FAILED]

    def findings(self) -> Iterator[Finding]:
        problems: tuple[str, ...] = ()
        settings = None
        try:
            settings = load_config(self.config, os.environ)
        except ConfigError as error:
            problems = error.problems
        yield from check_packages(extras=_extras(settings))
        if settings is None:
            yield from (misconfigured("configuration", problem) for problem in problems)
            yield warning("service", "not checked, and neither is the store: bots.yaml must be corrected first")
            return
        yield ok("configuration", f"{self.config}, {counted(len(settings.bots), 'bot')}")
        yield from check_files(settings.files)
        yield from _plugins(settings)
        yield from self._environment(settings)

    def _environment(self, config: Config) -> Iterator[Finding]:
        control = ControlDirectory(config.directory)
        try:
            address = find_daemon(control, self.config)
            status = None if address is None else anyio.run(ask, address, {"ask": "status"})
            info = None if address is None else control.running()
        except (ChatbotError, OSError) as error:
            yield failed("bots", str(error))
            status, info = None, None
        else:
            yield from check_running_bots(status, control)
        store = probe_store(config.store.get_secret_value(), base_dir=config.directory)
        yield from check_store(config, store, is_running=info is not None)
        yield from identity_findings(config, store)
        yield from check_service(config, info, store)


def _extras(config: Config | None) -> list[str]:
    is_entra = config is not None and isinstance(config.service, ServiceConfig) and config.service.entra is not None
    return ["entra"] if is_entra else []


def _plugins(config: Config) -> Iterator[Finding]:
    try:
        plugins = load_plugins(config)
    except ConfigError as error:
        yield from (misconfigured("plugins", problem) for problem in error.problems)
        return
    loaded = [one for each in plugins.values() for one in each]
    handlers = sum(len(list(one.handlers())) for one in loaded)
    yield ok("plugins", f"{counted(len(loaded), 'plugin')}, {counted(handlers, 'handler')}")


def _verdict(diagnosis: _Diagnosis) -> str:
    warnings = sum(one.state is FindingState.WARNING for one in diagnosis.collected)
    more = f", {counted(warnings, 'warning')}" if warnings else ""
    return f"\n{counted(len(diagnosis.failures), 'problem')}{more}." if diagnosis.failures else f"\nNo problems{more}."
