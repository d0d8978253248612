"""The table of allowed transitions, pair by pair, and that nothing changes a state beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from onereward_pack.nodes.errors import JournalError
from onereward_pack.nodes.fal import job_states
from onereward_pack.nodes.fal.job_states import State, TransitionError, create, move, state_of
from onereward_pack.nodes.fal.job_store import Journal

# State -> those that may follow; "none" is a job that is not in the journal.
ALLOWED = {
    "none": "sending sent",
    "sending": "sent unknown done flagged none",
    "unknown": "done flagged failed cancelled",
    "sent": "done flagged lost failed cancelled none",
    "done": "done lost none",
    "flagged": "flagged",
    "lost": "done flagged lost failed cancelled none",
    "failed": "done flagged failed none",
    "cancelled": "done flagged cancelled none",
}
STATES = [None, *State]
COLUMNS = {
    "key": "key", "server": "fal", "about": "", "session": "", "run": "", "created": 0, "lease": 0
}  # fmt: skip


def name(state: State | None) -> str:
    return state.value if state else "none"


@pytest.mark.parametrize("at", STATES, ids=name)
def test_only_the_transitions_of_the_table_are_made(tmp_path: Path, at: State | None) -> None:
    journal = Journal(tmp_path)
    for to in STATES:
        job = job_at(journal, at)
        allowed = name(to) in ALLOWED[name(at)].split()
        with journal.transaction() as db:
            if not allowed:
                with pytest.raises(TransitionError, match=f"Job {job} of the journal"):
                    move(db, job, to)
            elif at is not None:
                move(db, job, to)
            else:
                assert to is not None
                job = create(db, to, COLUMNS)
            assert state_of(db, job) == (to if allowed else at), to


def job_at(journal: Journal, state: State | None) -> int:
    with journal.transaction() as db:
        job = create(db, State.SENDING, COLUMNS)
        sql = f"UPDATE jobs SET state = '{state.value}'" if state else "DELETE FROM jobs"
        db.execute(f"{sql} WHERE id = ?", (job,))
    return job


def test_every_state_is_in_the_table_and_a_refusal_is_an_error_of_the_journal() -> None:
    assert set(job_states.TRANSITIONS) == set(STATES)
    assert issubclass(TransitionError, JournalError)


def test_no_other_module_writes_a_state() -> None:
    folder = Path(job_states.__file__).parent
    wrong = [
        file.name
        for file in folder.glob("*.py")
        if file.name != "job_states.py"
        and re.search(
            r"SET \(?state|INTO jobs|DELETE FROM jobs WHERE id =", file.read_text("utf-8")
        )
    ]
    assert wrong == []
