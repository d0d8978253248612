"""Spend limits: those of a node, and those that the user set for this machine."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from ..contracts import FalSpec
from ..errors import InputError
from .job_states import SPENT, marks

SETTINGS = {"run": "Ceiling for one run", "session": "Ceiling for a session"}


@dataclass(frozen=True)
class SpendLimits:
    """US dollars that one run of a node, and all since the program started, may cost; 0 = any."""

    run: float
    session: float


class MachineLimit(float):
    """A spend limit in US dollars that no node set, so that no node can raise it."""


def limited(spec: FalSpec, run_limit: float, session_limit: float) -> FalSpec:
    """The spec with each limit no higher than the machine's; 0 is no limit."""
    return replace(
        spec,
        run_cap=_lower(spec.run_cap, run_limit),
        session_cap=_lower(spec.session_cap, session_limit),
    )


def limits_of(spec: FalSpec) -> SpendLimits:
    """What the widgets run_cap and session_cap say, or the machine."""
    return SpendLimits(spec.run_cap, spec.session_cap)


def check_limit(which: str, spent: float, more: float | None, limit: float) -> None:
    """Raises InputError if `more` US dollars on top of `spent` would pass the limit; 0 = no limit.

    Args:
        which: "run" or "session".
    """
    if not (limit and more and spent + more > limit):
        return
    if isinstance(limit, MachineLimit):
        name = f'the ceiling of ${limit:g} that was set for this machine. Raise "{SETTINGS[which]}"'
        name += " in Settings > OneReward"
    else:
        name = f"the {which}_cap of ${limit:g}. Raise it on OneReward Fal Backend"
    raise InputError(
        f"This would cost about ${more:.3f}, and ${spent:.3f} of this {which} is spent or on "
        f"its way: more than {name}, or use fewer pictures, variations or pixels. This was not "
        "sent."
    )


def how_to_lift(spec: FalSpec) -> str:
    """What to set so that nothing limits a run, as an order: "set ... to 0 on ..."."""
    limits = {"run": spec.run_cap, "session": spec.session_cap}
    machines = [which for which, limit in limits.items() if isinstance(limit, MachineLimit)]
    settings = [f'"{SETTINGS[which]}"' for which in machines]
    text = "set run_cap and session_cap to 0 on OneReward Fal Backend"
    if settings:
        text += f" and {' and '.join(settings)} to 0 in Settings > OneReward"
    return text


def _lower(limit: float, machines: float) -> float:
    if not machines:
        return limit
    # A limit that is no number is none.
    return limit if 0 < limit < machines else MachineLimit(machines)


def spent_where(db: sqlite3.Connection, where: str, value: str | float) -> float:
    """US dollars of all jobs for which `where` holds: the one query of what was spent. A job whose
    bill is not known counts as estimated, if it may be billed.
    """
    each = f"coalesce(cost, CASE WHEN state IN ({marks(SPENT)}) THEN estimate END)"
    query = f"SELECT total({each}) FROM jobs WHERE {where}"
    return float(db.execute(query, (*SPENT, value)).fetchone()[0])
