"""Images that are uploaded into a thread, to be shown in its messages (two preview versions of 2024).

The service stores what is uploaded and gives it an id; a message names the id in its html and in its attachments.
The small view is the image itself here: nothing is scaled. The formats are those of the published specification; how
large an image may be is not known (20 MB is what Microsoft's own front end allows).
"""

from __future__ import annotations

import base64
import re
from dataclasses import replace

from chatbot.emulator.errors import ErrorResponse, bad_request, forbidden, message_not_found
from chatbot.emulator.participants import Participants
from chatbot.emulator.quirks import Quirks
from chatbot.emulator.records import Image
from chatbot.emulator.state import ThreadContents, WorldState

MAX_IMAGE_BYTES = 20 * 1024 * 1024
VIEWS = frozenset({"original", "small"})

_FORMATS = (
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb".{4}ftyp(?:heic|heix|heim|heis|hevc|mif1)", re.DOTALL), "image/heic"),
)


class Images:
    """The operations on a thread's images."""

    def __init__(self, state: WorldState, quirks: Quirks) -> None:
        self._state = state
        self.quirks = quirks

    def upload(self, room: ThreadContents, user: str, content: bytes, name: str) -> Image:
        """Store an image of a participant; the kind is read from the bytes."""
        Participants.check_member(room, user, self.quirks)
        if len(content) > MAX_IMAGE_BYTES:
            raise ErrorResponse(413, "RequestEntityTooLarge")
        media_type = next((kind for start, kind in _FORMATS if start.match(content)), "")
        if not media_type:
            raise bad_request()
        data = base64.b64encode(content).decode()
        image = Image(room.head.id, self._state.new_image_id(), user, media_type, data, name)
        self._state.put(image)
        return image

    def get(self, room: ThreadContents, reader: str, image_id: str) -> tuple[bytes, str]:
        """The bytes of an image and their media type."""
        Participants.check_member(room, reader, self.quirks)
        image = self._stored(room, image_id)
        return base64.b64decode(image.data), image.media_type

    def delete(self, room: ThreadContents, user: str, image_id: str) -> None:
        """Forget an image of one's own; messages keep naming it."""
        Participants.check_member(room, user, self.quirks)
        image = self._stored(room, image_id)
        if image.user != user:
            raise forbidden()
        self._state.put(replace(image, data="", is_deleted=True))

    @staticmethod
    def _stored(room: ThreadContents, image_id: str) -> Image:
        image = room.images.get(image_id)
        if image is None or image.is_deleted:
            raise message_not_found()
        return image
