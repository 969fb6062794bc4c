"""`python -m tests.simulation`: replicas on virtual time, with everything that can happen to them, by a seed.

`--seeds 100` plays the stories of a hundred seeds. Exit code 0: nothing was lost, doubled, out of order or done by two
at once; 1: something was. Then the story is shortened as far as it still fails, and printed with its trace and with the
command that plays it again. `--variant all` breaks one rule after the other on purpose, and shows which seed finds it;
exit code 1 if fewer than 95 of 100 are found, or one that is harmless by design is taken for a failure.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Final

import structlog
from rich.console import Console
from rich.table import Table

from tests.simulation.story import Story, shrunk, story_of
from tests.simulation.variants import VARIANTS, Variant
from tests.simulation.world import Outcome, play

SHARE_FOUND: Final = 0.95
"""The share of the broken variants that must be found."""

LINES: Final = 40
"""How much of a trace is shown: what came before the first problem."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the simulation with the options of the command line."""
    options = _arguments(arguments)
    structlog.configure(processors=[_drop])
    if options.variant == "all":
        return _try_all(options)
    variant = next((one for one in VARIANTS if one.name == options.variant), None)
    with variant.patch() if variant else nullcontext():
        return _play_seeds(options)


def _drop(*_arguments: object) -> str:
    raise structlog.DropEvent


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description="Simulate replicas that share a store, with all that can happen."
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from this one on (%(default)s)")
    parser.add_argument("--replicas", type=int, default=3, help="how many replicas there are (%(default)s)")
    names = [variant.name for variant in VARIANTS]
    parser.add_argument(
        "--variant", choices=["all", *names], metavar="NAME", help=f"what to break: all, or one of {', '.join(names)}"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for `--variant all` (%(default)s)")
    parser.add_argument("--steps", help="play only the steps with these numbers, as in 3,7,9")
    parser.add_argument("--trace", action="store_true", help="print the whole trace")
    options = parser.parse_args(arguments)
    if options.replicas < 2:
        parser.error("--replicas must be at least 2")
    return options


# ── seeds ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _story(options: argparse.Namespace, seed: int) -> Story:
    story = story_of(seed, options.replicas)
    return story.only([int(number) for number in options.steps.split(",")]) if options.steps else story


def _play_seeds(options: argparse.Namespace) -> int:
    begun, counts, found = time.perf_counter(), Counter[str](), list[int]()
    for seed in range(options.seed, options.seed + options.seeds):
        outcome = play(_story(options, seed))
        counts.update(outcome.counts)
        print(
            f"seed {seed}: {outcome.digest}, {outcome.seconds:.0f} s of virtual time, {_verdict(outcome)}", flush=True
        )
        if options.trace:
            print("\n".join(outcome.lines))
        if outcome.problems:
            found.append(seed)
            _explain(options, outcome)
    seconds = time.perf_counter() - begun
    names = ("messages", "replies", "commits", "requests", "claims", "retakes", "releases", "doubled sends", "healed")
    print(f"{options.seeds} seeds in {seconds:.0f} s, {len(found)} with problems {found or ''}".rstrip())
    print(", ".join(f"{counts[name]:,} {name}" for name in names))
    return 1 if found else 0


def _verdict(outcome: Outcome) -> str:
    return f"PROBLEMS: {', '.join(sorted(outcome.kinds))}" if outcome.problems else "clean"


def _explain(options: argparse.Namespace, outcome: Outcome) -> None:
    """Shorten a story that fails, and print it."""
    kind = outcome.problems[0].kind
    story = shrunk(outcome.story, lambda shorter: kind in play(shorter).kinds)
    outcome = play(story)
    print(f"\n{len(story.steps)} steps are enough:")
    print("\n".join(map(str, story.steps)))
    print("\nThe last lines of the trace before the problem:")
    place = next((place for place, line in enumerate(outcome.lines) if " PROBLEM " in line), len(outcome.lines))
    print("\n".join(outcome.lines[max(0, place - LINES) : place + 1]))
    print("\n" + "\n".join(map(str, outcome.problems)))
    print(f"\nTo repeat it:\n{_command(options, story)}\n", flush=True)


def _command(options: argparse.Namespace, story: Story) -> str:
    steps = ",".join(map(str, story.numbers))
    variant = f" --variant '{options.variant}'" if options.variant else ""
    replicas = f" --replicas {story.replicas}" if story.replicas != 3 else ""
    return f"python -m tests.simulation --seed {story.seed}{replicas} --steps {steps}{variant}"


# ── variants ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _try_all(options: argparse.Namespace) -> int:
    """Play seeds with each variant until one finds it; print a table."""
    console, table = Console(width=140), Table("variant", "found by seed", "seconds", "first problem", "steps enough")
    end = time.perf_counter() + options.minutes * 60
    found, wrong, left = 0, 0, [variant for variant in VARIANTS if not variant.is_harmless]
    for number, variant in enumerate(left):
        begun = time.perf_counter()
        share = (end - begun) / (len(left) - number)
        outcome = _find(variant, options, begun + 3 * share)
        seconds = time.perf_counter() - begun
        found += outcome is not None
        table.add_row(variant.name, *_row(variant, outcome, seconds))
        print(f"{variant.name}: {'not found' if outcome is None else f'seed {outcome.story.seed}'}", flush=True)
    for variant in VARIANTS:
        if variant.is_harmless:
            begun = time.perf_counter()
            outcome = _find(variant, options, begun + 60, seeds=options.seeds if options.seeds > 1 else 8)
            wrong += outcome is not None
            kind = outcome.problems[0].kind if outcome else "nothing, as it must be"
            seed = str(outcome.story.seed) if outcome else "harmless"
            table.add_row(variant.name, seed, f"{time.perf_counter() - begun:.1f}", kind, "")
    console.print(table)
    print(f"{found} of {len(left)} broken variants found; {wrong} harmless ones taken for failures")
    return 0 if found >= SHARE_FOUND * len(left) and not wrong else 1


def _find(variant: Variant, options: argparse.Namespace, end: float, *, seeds: int = 1_000_000) -> Outcome | None:
    with variant.patch():
        for seed in range(options.seed, options.seed + seeds):
            outcome = play(story_of(seed, options.replicas))
            if outcome.problems:
                return outcome
            if time.perf_counter() > end:
                return None
    return None


def _row(variant: Variant, outcome: Outcome | None, seconds: float) -> list[str]:
    if outcome is None:
        return ["not found", f"{seconds:.1f}", "", ""]
    kind = outcome.problems[0].kind
    with variant.patch():
        story = shrunk(outcome.story, lambda shorter: kind in play(shorter).kinds)
    return [str(outcome.story.seed), f"{seconds:.1f}", kind, f"{len(story.steps)} of {len(outcome.story.steps)}"]


if __name__ == "__main__":
    raise SystemExit(main())
