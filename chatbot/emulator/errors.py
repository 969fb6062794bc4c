"""The service's error responses, with recorded texts.

Operations raise them; `serialization.py` writes them into the envelope of Chat or of Identity. Where no recording and
no report says what the service answers, a quirk decides.
"""

from __future__ import annotations

NO_PERMISSION = "The initiator doesn't have the permission to perform the requested operation."


class ErrorResponse(Exception):
    """An error response: an HTTP status, a code, and optionally a message and a target.

    Identity's refusals of unreadable bodies and of tokens come before the api-version is read: they carry no
    `api-supported-versions` (recorded), and are not `is_versioned`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str | None = None,
        target: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        is_versioned: bool = True,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.target = target
        self.headers = headers
        self.is_versioned = is_versioned


def bad_request(message: str | None = None) -> ErrorResponse:
    """Return chat's error for an unreadable request, often without a message (Communication issue 379)."""
    return ErrorResponse(400, "BadRequest", message)


def thread_not_found() -> ErrorResponse:
    """Recorded for a well-formed but unknown id."""
    return ErrorResponse(404, "NotFound", "The specified thread id was not found.")


def message_not_found() -> ErrorResponse:
    """Recorded for receipts of unknown messages: no message text."""
    return ErrorResponse(404, "NotFound")


def forbidden(message: str | None = NO_PERMISSION) -> ErrorResponse:
    """Return the error for an operation that the caller is not allowed to do."""
    return ErrorResponse(403, "Forbidden", message)


def refused(reading: str) -> ErrorResponse:
    """A removed participant, or a deleted thread, as a quirk reads the service: `forbidden`, `not-found`, …."""
    if reading == "not-found":
        return thread_not_found()
    if reading == "server-error":  # recorded in 2024, for a removal by the one removed
        text = "The server could not fulfill the request due to some unexpected failure."
        return ErrorResponse(500, "InternalServerError", text)
    return forbidden()


def bad_message_id(text: str) -> ErrorResponse:
    """Recorded for ids that are not numbers."""
    return bad_request(f"Value for MessageId ({text}) is not valid.")


def bad_identifier(text: str) -> ErrorResponse:
    """Recorded for participants that are no identifiers."""
    return bad_request(f"Identifier format is invalid ({text}).")


def validation(message: str, target: str) -> ErrorResponse:
    """Return identity's error for an invalid value."""
    return ErrorResponse(400, "ValidationError", message, target)


def required(name: str) -> ErrorResponse:
    """Return identity's error for a missing field."""
    return ErrorResponse(400, "ValidationError", f"{name}: The {name} field is required.", name, is_versioned=False)


def not_owned() -> ErrorResponse:
    """Identity answers 401, not 404, for users it does not have (recorded)."""
    return ErrorResponse(401, "IdentityNotOwned", "Provided identity doesn't belong to the resource.")


def denied(message: str = "Denied by the resource provider.") -> ErrorResponse:
    """Return identity's error for an invalid signature."""
    return ErrorResponse(401, "Denied", message)
