"""`python -m tests.scale`: what larger installations cost, and where they break, without network and machines.

It prints the tables of docs/concepts/scale.md. `--threads`, `--replicas`, `--bots` and `--messages` print one
installation instead; `--write` brings the page up to date.
"""

from __future__ import annotations

import argparse
import re

from chatbot.stores.shards import SHARDS
from tests.places import DOCS
from tests.scale import assumptions as assumed
from tests.scale.report import TABLES, Installation, machines_table, markdown, service_table, simulate

PAGE = DOCS / "concepts" / "scale.md"


def main() -> None:
    """Print figures, or write the page."""
    options = _arguments()
    if options.write:
        PAGE.write_text(up_to_date(PAGE.read_text("utf-8")), "utf-8")
    elif options.threads:
        _print(Installation(options.threads, options.replicas, options.bots, options.messages))
    else:
        for name, table in TABLES.items():
            print(f"{name}\n\n{markdown(table())}\n")


def up_to_date(page: str) -> str:
    """Return the page with its tables as they are now."""
    for name, table in TABLES.items():
        text = f"<!-- table: {name} -->\n\n{markdown(table())}\n\n<!-- end -->"
        page = re.sub(rf"<!-- table: {name} -->\n.*?<!-- end -->", lambda _, text=text: text, page, flags=re.DOTALL)
    return page


def _print(installation: Installation) -> None:
    figures = simulate(installation)
    for table in (service_table([installation]), machines_table([installation])):
        for name, value in zip(*table, strict=True):
            print(f"{name:45} {value}")
    print(f"{'Requests/s: list, polls, sends':45} ", end="")
    print(f"{figures.list_requests:,.1f}, {figures.polls:,.1f}, {2 * figures.messages:,.1f}")
    for operation, used in sorted(figures.used.items(), key=lambda item: -item[1]):
        print(f"{'Quota left: ' + operation.value:45} {1 - used:.0%}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.scale", description="Simulate larger installations. Without options: the tables."
    )
    parser.add_argument("--threads", type=int, default=0, help="simulate this many threads")
    parser.add_argument("--replicas", type=int, default=1, help=f"in so many replicas, at most {SHARDS} (%(default)s)")
    parser.add_argument("--bots", type=int, default=1, help="of so many bots, which share the threads (%(default)s)")
    parser.add_argument(
        "--messages",
        type=float,
        default=assumed.MESSAGES_AN_HOUR,
        help="messages of people in each thread, an hour (%(default)s)",
    )
    parser.add_argument("--write", action="store_true", help="write the tables into docs/concepts/scale.md")
    options = parser.parse_args()
    if min(options.threads or 1, options.replicas, options.bots) < 1 or options.messages <= 0:
        parser.error("threads, replicas, bots and messages are positive")
    return options


if __name__ == "__main__":
    main()
