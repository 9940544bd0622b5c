"""Whether nextpnr-xilinx routed what it says it routed.

It goes on to write its result after a check that failed, so that its exit code alone proves little: the last round of its
router must leave no wire to two nets, and the pass that follows must find every path.

As a program: ``python3 route_log.py NEXTPNR.log`` ends with code 1 and the reasons, also where timing is not met.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

__all__ = ["RouteError", "check_route", "check_timing"]

COMPLETE = "Info: Routing complete."
SHOWN = 3
_ROUND = re.compile(r"^Info:\s+iter=(\d+) wires=\d+ overused=(\d+) overuse=(\d+).* archfail=(\S+)\s*$", re.MULTILINE)
_BAD = re.compile(r"^(?:ERROR: .*|(?:Warning|Info|ERROR):.*(?:[Ff]ailed to (?:find a )?route|[Uu]nrout|[Ss]kipping arc"
                  r"|left for external|validity check failed|[Cc]ombinator(?:ial|ic) loop).*)$", re.MULTILINE)
_CLOCK = re.compile(r"^Info: Max frequency for clock\s+'([^']+)': (.*)$", re.MULTILINE)


class RouteError(ValueError):
    """A log that does not show a complete, legal routing."""


def check_route(text: str) -> None:
    """Raises :class:`RouteError` unless ``text``, nextpnr-xilinx's log, shows that every path was routed, each on its own
    wires."""
    wrong = [line.strip() for line in _BAD.findall(text)][:SHOWN]
    rounds = list(_ROUND.finditer(text))
    if not rounds:
        wrong.append("no round of the router is in the log")
    else:
        last = rounds[-1]
        if (last[2], last[3], last[4]) != ("0", "0", "0"):
            wrong.append(f"the router's last round, {last[1]}, leaves {last[2]} wires overused and {last[4]} illegal")
        if COMPLETE not in text[last.end():]:
            wrong.append(f'"{COMPLETE}" does not follow the last round')
    if wrong:
        raise RouteError("; ".join(wrong))


def check_timing(text: str) -> None:
    """Raises :class:`RouteError` unless the log's last word on every clock is that it is fast enough."""
    last = dict(_CLOCK.findall(text))
    slow = [f"{clock}: {said}" for clock, said in last.items() if "PASS" not in said]
    if slow or not last:
        raise RouteError(f"timing is not met: {'; '.join(slow) or 'no clock is timed'}")


if __name__ == "__main__":
    log = Path(sys.argv[1]).read_text(errors="replace")
    try:
        check_route(log)
        check_timing(log)
    except RouteError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
