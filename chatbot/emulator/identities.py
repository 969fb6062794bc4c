"""Users of the resource and their access tokens.

A token is a signed JWT with the claims of a real one; it is checked by signature, expiry and the user's
generation, which every revocation raises. Signed with the access key (HS256), so a new key makes old tokens
worthless, as rotating the real keys does. (The format of real tokens is documented as not contractual.)
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chatbot.emulator.errors import ErrorResponse, not_owned
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import Assignment, User
from chatbot.emulator.state import WorldState

TEAMS_USER = "8:orgid:"
CHAT_SCOPES = frozenset({"chat", "chat.join", "chat.join.limited"})

ENTRA_AUDIENCE = "https://communication.azure.com/"
_ACCESS, _ENTRA = b"token:", b"entra:"  # purposes of derived keys: a token of one kind is not valid as the other


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims of a token issued by the emulator."""

    user: str
    scopes: frozenset[str]
    expires: int
    generation: int


@dataclass(frozen=True, slots=True)
class Token:
    """A new token and its expiry in milliseconds."""

    text: str
    expires: int


class IdentityStore:
    """Creates and deletes users, issues, checks and revokes tokens."""

    def __init__(self, state: WorldState, quirks: Quirks) -> None:
        self._state = state
        self.quirks = quirks
        self._known: dict[str, Claims] = {}
        self._known_for = state.resource
        self.takes_entra = False

    def create(self, now: int, custom_id: str = "") -> User:
        """Create a user of the resource, or return the one with this custom id."""
        if custom_id:
            for user in self._state.users.values():
                if user.custom_id == custom_id and user.deleted is None:
                    return user
        user = User(id=self._state.new_user_id(), created=now, custom_id=custom_id)
        self._state.put(user)
        return user

    def get(self, user_id: str) -> User:
        """Return an existing user; raise the service's error for unknown ones."""
        user = self._state.users.get(user_id)
        if user is None or user.deleted is not None:
            raise not_owned()
        return user

    def issue(self, user_id: str, scopes: Sequence[str], minutes: int, now: int) -> Token:
        """Issue a token for a user, valid for `minutes`."""
        user = self.get(user_id)
        return self._mint(user.id, scopes, now + minutes * 60_000, now, user.generation)

    def note_token(self, user_id: str, now: int) -> None:
        """Record when a user's latest token was issued; versions since 2025 return it."""
        user = self.get(user_id)
        if user.last_token // 1000 != now // 1000:
            self._state.put(replace(user, last_token=now))

    def exchange(self, teams_user: str, expires_seconds: int, now: int) -> Token:
        """Issue a token for a Teams user with the expiry of the Entra token; chat does not accept it."""
        expires = min(expires_seconds * 1000, now + 86_400_000)
        return self._mint(f"{TEAMS_USER}{teams_user}", ["teams.calls"], expires, now, 0)

    def assignment(self, tenant: str, user: str) -> Assignment | None:
        """What allows a Teams user to use this resource, if anything does."""
        assignment = self._state.assignments.get((tenant.lower(), user.lower()))
        return None if assignment is None or assignment.is_removed else assignment

    def exchange_extension(self, tenant: str, user: str, expires_seconds: int, now: int) -> tuple[str, Token]:
        """The id that a Teams user has in this resource, and a token for calls; chat knows no such user."""
        expires = min(expires_seconds * 1000, now + 86_400_000)
        user_id = f"8:acs:{self._state.resource.id}_{tenant}_{user}"
        return user_id, self._mint(user_id, ["voip"], expires, now, 0)

    def _mint(self, user: str, scopes: Sequence[str], expires: int, now: int, generation: int) -> Token:
        issued = now // 1000
        claims = {
            "skypeid": user.removeprefix("8:"),
            "scp": 1792,
            "csi": str(issued),
            "exp": expires // 1000,
            "rgn": "amer",
            "acsScope": ",".join(scopes),
            "resourceId": self._state.resource.id,
            "resourceLocation": "unitedstates",
            "iat": issued,
            "gen": generation,
        }
        return Token(self._sign(claims), expires)

    def revoke(self, user_id: str, now: int) -> None:
        """Revoke all tokens issued so far."""
        user = self.get(user_id)
        self._state.put(replace(user, generation=user.generation + 1, revoked=now))

    def delete(self, user_id: str, now: int) -> User | None:
        """Delete a user; return None if it was deleted before and the quirk accepts that."""
        known = self._state.users.get(user_id)
        if known is not None and known.deleted is not None and self.quirks.delete_user_again == "no-content":
            return None
        user = self.get(user_id)
        self._state.put(replace(user, generation=user.generation + 1, revoked=now, deleted=now))
        return user

    def check(self, token: str, now: int) -> Claims:
        """Return the claims of a valid token; 401 otherwise."""
        if self._known_for is not self._state.resource:
            self._known, self._known_for = {}, self._state.resource
        claims = self._known.get(token) or self._read(token)
        if claims.expires <= now // 1000:
            raise unauthorized()
        if claims.user.startswith(TEAMS_USER):
            return claims
        user = self._state.users.get(claims.user)
        if user is None or (claims.generation < user.generation and self._is_effective(user, claims, now)):
            raise unauthorized()
        return claims

    def issue_entra(
        self, expires: int, audience: str = ENTRA_AUDIENCE, *, app: str = "", user: str = "", tenant: str = ""
    ) -> str:
        """Issue a token in place of one of Microsoft Entra ID, signed with a secret of this emulator.

        Args:
            expires: seconds since the epoch.
            audience: what it is for.
            app: the application it was issued to; without one, the exchange of a Teams user's token takes any.
            user: the Teams user it was issued for; without one, the exchange takes any.
            tenant: the tenant of that user, which Teams Phone extensibility asks for.
        """
        named = {name: value for name, value in (("appid", app), ("oid", user), ("tid", tenant)) if value}
        return self._sign({"aud": audience, "exp": expires, "iss": "emulator", **named}, _ENTRA)

    def entra_claims(self, token: str, now: int) -> Mapping[str, Any]:
        """Return the claims of a token of `issue_entra`; None for any other token, such as a user's access token.

        Also None if it has expired, or if this emulator does not accept such tokens.
        """
        signed, _, signature = token.rpartition(".")
        if not self.takes_entra or not token.isascii():
            return {}
        if not hmac.compare_digest(signature, self._signature(signed, _ENTRA)):
            return {}
        claims: Mapping[str, Any] = json.loads(_unpack(signed.partition(".")[2]))
        return claims if claims["exp"] > now // 1000 else {}

    def _is_effective(self, user: User, claims: Claims, now: int) -> bool:
        quirks = self.quirks
        delay = quirks.revocation_delay_seconds if user.deleted is None else quirks.deletion_delay_seconds
        return claims.generation < user.generation - 1 or now >= user.revoked + delay * 1000

    def _sign(self, claims: dict[str, Any], purpose: bytes = _ACCESS) -> str:
        kid = hashlib.sha1(self._key(), usedforsecurity=False).hexdigest().upper()
        head = {"alg": "HS256", "kid": kid, "x5t": _pack(bytes.fromhex(kid)), "typ": "JWT"}
        signed = ".".join(_pack(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
        return f"{signed}.{self._signature(signed, purpose)}"

    def _read(self, token: str) -> Claims:
        signed, _, signature = token.rpartition(".")
        if not token.isascii() or not hmac.compare_digest(signature, self._signature(signed)):
            raise unauthorized()
        payload = json.loads(_unpack(signed.partition(".")[2]))
        claims = Claims(
            user=f"8:{payload['skypeid']}",
            scopes=frozenset(payload["acsScope"].split(",")),
            expires=payload["exp"],
            generation=payload["gen"],
        )
        if len(self._known) > 10_000:
            self._known.clear()
        self._known[token] = claims
        return claims

    def _signature(self, signed: str, purpose: bytes = _ACCESS) -> str:
        return _pack(hmac.digest(self._key(purpose), signed.encode(), "sha256"))

    def _key(self, purpose: bytes = _ACCESS) -> bytes:
        return purpose + self._state.resource.access_key.encode()


def unauthorized() -> ErrorResponse:
    """401 with an empty body, as reported for bad and for foreign tokens; expired ones are unknown (U3)."""
    return ErrorResponse(401, "Unauthorized", None)


def _pack(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unpack(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
