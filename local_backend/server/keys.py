"""The keys of clients. A secret is shown once, when it is made; what is stored is its SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from sqlalchemy import Engine, insert, select, update

from ...nodes.errors import InputError
from .database import KEYS

TOKEN_SECONDS = 3600
REMEMBERED = 3.0  # seconds; a key revoked by another process is believed as long
_MOST_REMEMBERED = 4096  # keys
_KEY = re.compile(r"([0-9a-f]{16}):([^\s:]+)", re.ASCII)
_TOKEN = re.compile(r"([0-9a-f]{16})\.([0-9]{1,12})\.([0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True)
class KeyRow:
    """What the operator sees of a key. Times are seconds since 1970."""

    id: str
    name: str
    created: float
    revoked: float | None


@dataclass(frozen=True)
class Token:
    """What a client of fal sends with its uploads in place of the key."""

    text: str
    expires: int  # seconds since 1970


class Keys:
    """The keys in the database. All heads see the same; any thread may ask."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._digests: OrderedDict[str, tuple[str, float]] = OrderedDict()  # and since when
        self._lock = Lock()

    def make(self, name: str) -> str:
        """A new key as "id:secret", for the operator's eyes.

        Raises:
            InputError: the name is not 1 to 64 printable characters.
        """
        if not (name.strip() and len(name) <= 64 and name.isprintable()):
            raise InputError(f"{name[:80]!r} cannot name a key. Give 1 to 64 printable characters.")
        key_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        row = {"id": key_id, "name": name, "digest": _digest(secret), "created": time.time()}
        with self._engine.begin() as connection:
            connection.execute(insert(KEYS).values(row))
        return f"{key_id}:{secret}"

    def check(self, authorization: str | None) -> str | None:
        """The id of the key in a header of the form `Key id:secret`; None unless it is good."""
        found = _KEY.fullmatch(_value(authorization, "key"))
        if found is None:
            return None
        digest = self._digest_of(found[1]) or ""
        return found[1] if hmac.compare_digest(_digest(found[2]), digest) else None

    def token(self, key_id: str) -> Token | None:
        """A token for uploads with that key, good for an hour; None if the key is not."""
        digest = self._digest_of(key_id)
        if digest is None:
            return None
        expires = int(time.time()) + TOKEN_SECONDS
        return Token(f"{key_id}.{expires}.{_seal(digest, key_id, expires)}", expires)

    def check_token(self, authorization: str | None) -> str | None:
        """The id of the key that a header of the form `Bearer token` stands for, or None."""
        found = _TOKEN.fullmatch(_value(authorization, "bearer"))
        if found is None:
            return None
        key_id, expires = found[1], int(found[2])
        digest = self._digest_of(key_id)
        good = hmac.compare_digest(found[3], _seal(digest or "", key_id, expires))
        return key_id if good and digest and time.time() < expires else None

    def remembers(self, authorization: str | None) -> bool:
        """Whether the checks of this header will, by all odds, not wait for the database."""
        text = _value(authorization, "key") or _value(authorization, "bearer")
        found = _KEY.fullmatch(text) or _TOKEN.fullmatch(text)
        return found is None or self._recall(found[1]) is not None

    def revoke(self, key_id: str) -> bool:
        """End a key, within five seconds at all heads. False if there is no such living key."""
        living = (KEYS.c.id == key_id) & KEYS.c.revoked.is_(None)
        with self._engine.begin() as connection:
            ended = connection.execute(update(KEYS).where(living).values(revoked=time.time()))
        with self._lock:
            self._digests.pop(key_id, None)
        return ended.rowcount == 1

    def rows(self) -> list[KeyRow]:
        """All keys, the oldest first."""
        columns = (KEYS.c.id, KEYS.c.name, KEYS.c.created, KEYS.c.revoked)
        with self._engine.begin() as connection:
            found = connection.execute(select(*columns).order_by(KEYS.c.created, KEYS.c.id))
            return [KeyRow(*row) for row in found]

    def any(self) -> bool:
        """Whether a key was ever made."""
        with self._engine.begin() as connection:
            return connection.execute(select(KEYS.c.id).limit(1)).first() is not None

    def _digest_of(self, key_id: str) -> str | None:
        """None for an unknown or revoked key; such are not remembered, as anyone can name them."""
        known = self._recall(key_id)
        if known is not None:
            return known
        asked = time.monotonic()  # before the question: a revocation meanwhile is not missed
        living = (KEYS.c.id == key_id) & KEYS.c.revoked.is_(None)
        with self._engine.begin() as connection:
            digest = connection.execute(select(KEYS.c.digest).where(living)).scalar()
        if digest is not None:
            with self._lock:
                self._digests[key_id] = (digest, asked)
                while len(self._digests) > _MOST_REMEMBERED:
                    self._digests.popitem(last=False)
        return digest

    def _recall(self, key_id: str) -> str | None:
        with self._lock:
            digest, since = self._digests.get(key_id, ("", 0.0))
            if digest and time.monotonic() - since < REMEMBERED:
                return digest
            self._digests.pop(key_id, None)
            return None


def _value(authorization: str | None, scheme: str) -> str:
    """What follows the scheme, without white space; empty for another scheme."""
    given, _, value = (authorization or "").strip().partition(" ")
    return value.strip() if given.lower() == scheme else ""


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _seal(digest: str, key_id: str, expires: int) -> str:
    text = f"upload {key_id} {expires}"
    return hmac.new(digest.encode(), text.encode(), hashlib.sha256).hexdigest()
