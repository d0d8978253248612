"""What may be spent: the caps of a node, and the ceilings that the user set for this machine."""

from __future__ import annotations

from dataclasses import replace

from ..contracts import FalSpec
from ..errors import InputError

CEILINGS = {"run": "Ceiling for one run", "session": "Ceiling for a session"}


class Ceiling(float):
    """A cap in US dollars that no node set, so that no node can raise it."""


def below(spec: FalSpec, run_ceiling: float, session_ceiling: float) -> FalSpec:
    """The spec with each cap no higher than its ceiling; 0 is no ceiling, and no cap."""
    return replace(
        spec,
        run_cap=_lower(spec.run_cap, run_ceiling),
        session_cap=_lower(spec.session_cap, session_ceiling),
    )


def check_cap(which: str, spent: float, more: float | None, cap: float) -> None:
    """Raises InputError if `more` US dollars on top of `spent` would pass the cap; 0 = no cap.

    Args:
        which: "run" or "session".
    """
    if not (cap and more and spent + more > cap):
        return
    if isinstance(cap, Ceiling):
        limit = f'the ceiling of ${cap:g} that was set for this machine. Raise "{CEILINGS[which]}" '
        limit += "in Settings > OneReward"
    else:
        limit = f"the {which}_cap of ${cap:g}. Raise it on OneReward Fal Backend"
    raise InputError(
        f"This would cost about ${more:.3f}, and ${spent:.3f} of this {which} is spent or on "
        f"its way: more than {limit}, or use fewer pictures, variations or pixels. This was not "
        "sent."
    )


def how_to_lift(spec: FalSpec) -> str:
    """What to set so that nothing limits a run, as an order: "set ... to 0 on ..."."""
    caps = {"run": spec.run_cap, "session": spec.session_cap}
    ceilings = [f'"{CEILINGS[which]}"' for which in caps if isinstance(caps[which], Ceiling)]
    words = "set run_cap and session_cap to 0 on OneReward Fal Backend"
    if ceilings:
        words += f" and {' and '.join(ceilings)} to 0 in Settings > OneReward"
    return words


def _lower(cap: float, ceiling: float) -> float:
    if not ceiling:
        return cap
    return cap if 0 < cap < ceiling else Ceiling(ceiling)  # a cap that is no number is none
