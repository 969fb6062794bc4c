"""The dashboard, the alert rules and the table of metrics speak of metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from chatbot.bot.monitoring import EventHandled
from chatbot.bot.status import BotStatus, RunningHandler
from chatbot.cluster.member import Moves
from chatbot.model import UserId
from chatbot.runtime.observe.counters import BotCounters, Stopwatch
from chatbot.runtime.observe.metrics import render
from chatbot.runtime.observe.sharing import SharingStatus
from chatbot.runtime.observe.status import ServedBot, Status

DOCS = Path(__file__).parents[4] / "docs" / "monitoring"
METRIC = re.compile(r"\bchatbot_[a-z_]+\b")


@pytest.fixture
def known() -> set[str]:
    """Every series of a status in which there is one of each."""
    counters = BotCounters()
    counters.count_call("send_message", "ok", 1.0)
    counters.observe(EventHandled("plugin.handler", 1.0))
    counters.token_expires_on = 10.0
    report = BotStatus(
        "echo", UserId("8:acs:1"), 1, 0.0, {}, None, 0, None, {"send": 1}, (RunningHandler("", "x", 1),), {}
    )
    bot = ServedBot(report, counters.read(), 0)
    sharing = SharingStatus(True, 1, (), 0, Moves(), 0, Stopwatch().read(), 0.0)
    status = Status("1", 1, 0.0, 1.0, "https://x", False, 1, 1, (bot,), (), sharing=sharing)
    families = list(text_string_to_metric_families(render(status).decode()))
    samples = {sample.name for family in families for sample in family.samples}
    return samples | {family.name for family in families}


def test_the_dashboard_asks_for_metrics_that_there_are(known: set[str]) -> None:
    panels = json.loads((DOCS / "dashboard.json").read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in METRIC.findall(target["expr"])}

    assert len(asked) > 12
    assert asked <= known


def test_the_alerts_ask_for_metrics_that_there_are_and_say_what_to_do(known: set[str]) -> None:
    (group,) = yaml.safe_load((DOCS / "alerts.yaml").read_text())["groups"]
    asked = {name for rule in group["rules"] for name in METRIC.findall(rule["expr"])}

    assert len(asked) > 8
    assert asked <= known
    assert all(rule["annotations"]["summary"] and rule["annotations"]["action"] for rule in group["rules"])


def test_the_page_lists_every_metric_and_no_other(known: set[str]) -> None:
    listed = set(METRIC.findall((DOCS.parent / "reference" / "metrics.md").read_text()))
    bases = {name for name in known if name.startswith("chatbot_")}
    bases = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in bases}

    assert listed <= known
    assert {name.removesuffix("_total") for name in bases} == {name.removesuffix("_total") for name in listed}
