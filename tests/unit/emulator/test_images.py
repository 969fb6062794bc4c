"""Images in a thread and attachments of messages, as two preview versions of 2024 have them."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from chatbot.emulator import World
from chatbot.emulator.images import MAX_IMAGE_BYTES
from chatbot.emulator.persistence import persist
from chatbot.emulator.records import Assignment
from tests.unit.emulator.asgi import Scene, call

PREVIEW = "2024-06-05-preview"
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVQYV2P4DwABAQEAWk1v8QAAAABJRU5ErkJggg==")


async def uploaded(scene: Scene, *, user: str = "", name: str = "cat.png") -> str:
    headers = {"image-filename": name, "content-type": "application/octet-stream"}
    answer = await scene("POST", "/images", PNG, user=user, headers=headers, version=PREVIEW)
    assert answer.status == 201, answer
    image: str = answer.json["id"]
    return image


@pytest.mark.parametrize("version", ["2024-03-15-preview", PREVIEW])
async def test_an_image_is_uploaded_viewed_and_deleted(version: str) -> None:
    scene = Scene()
    headers = {"image-filename": "cat.png", "content-type": "application/octet-stream"}

    answer = await scene("POST", "/images", PNG, headers=headers, version=version)
    image = answer.json["id"]
    views = [
        await scene("GET", f"/images/{image}/{noun}/{size}", user=scene.bob, version=version)
        for noun, size in (("view", "original"), ("view", "small"), ("views", "original"), ("views", "small"))
    ]
    deleted = await scene("DELETE", f"/images/{image}", version=version)
    gone = await scene("GET", f"/images/{image}/view/original", version=version)
    again = await scene("DELETE", f"/images/{image}", version=version)

    assert (answer.status, list(answer.json)) == (201, ["id", "attachmentType", "name"])
    assert (answer.json["attachmentType"], answer.json["name"]) == ("image", "cat.png")
    assert answer.headers["location"].endswith(f"/images/{image}")
    assert {(view.status, view.body, view.headers["content-type"]) for view in views} == {(200, PNG, "image/png")}
    assert (deleted.status, deleted.body) == (204, b"")
    assert (gone.status, again.status) == (404, 404)


@pytest.mark.parametrize("version", ["2021-09-07", "2024-03-07", "2025-03-15"])
async def test_only_the_previews_take_images_and_others_refuse_the_version(version: str) -> None:
    scene = Scene()
    image = await uploaded(scene)

    assert (await scene("POST", "/images", PNG, version=version)).status == 400
    assert (await scene("DELETE", f"/images/{image}", version=version)).status == 400
    shown = await scene("GET", f"/images/{image}/views/small", version=version)
    assert shown.status == (200 if version >= "2023-11-07" else 400)


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\n\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"\x00\x00\x00\x18ftypheic", "image/heic"),
    ],
)
async def test_the_formats_of_the_specification_are_recognized_by_their_first_bytes(
    content: bytes, media_type: str
) -> None:
    scene = Scene()
    image = (await scene("POST", "/images", content, version=PREVIEW)).json["id"]

    assert (await scene("GET", f"/images/{image}/view/small", version=PREVIEW)).headers["content-type"] == media_type


@pytest.mark.parametrize("content", [b"", b"no image", b"<svg/>", b"BM", b"RIFF\n\x00\x00\x00WAVE"])
async def test_what_is_no_image_is_refused(content: bytes) -> None:
    assert (await Scene()("POST", "/images", content, version=PREVIEW)).status == 400


async def test_an_image_may_be_larger_than_other_bodies_but_not_without_end() -> None:
    scene = Scene()

    assert (await scene("POST", "/images", PNG + bytes(2 * 1024 * 1024), version=PREVIEW)).status == 201
    assert (await scene("POST", "/images", PNG + bytes(MAX_IMAGE_BYTES), version=PREVIEW)).status == 413
    assert (await scene("POST", "/messages", PNG + bytes(2 * 1024 * 1024), version=PREVIEW)).status == 413


async def test_an_image_is_for_the_people_of_its_thread_and_its_owner_alone_deletes_it() -> None:
    scene = Scene()
    image = await uploaded(scene)
    eve = scene.emulator.create_user()
    other = scene.emulator.create_thread(scene.ann, "other")

    for method, tail in (("GET", f"/images/{image}/view/small"), ("DELETE", f"/images/{image}")):
        assert (await scene(method, tail, user=eve, version=PREVIEW)).status == 403
        assert (await scene(method, f"/chat/threads/{other}{tail}", version=PREVIEW)).status == 404
    assert (await scene("POST", "/images", PNG, user=eve, version=PREVIEW)).status == 403
    assert (await scene("DELETE", f"/images/{image}", user=scene.bob, version=PREVIEW)).status == 403
    assert (await scene("GET", f"/images/{image}/view/huge", version=PREVIEW)).status == 400
    assert (await scene("GET", f"/images/{image}/look/small", version=PREVIEW)).status == 404
    assert (await scene("GET", f"/images/{image}", version=PREVIEW)).status == 405


async def test_a_message_keeps_its_attachments_and_each_version_links_its_own() -> None:
    scene = Scene()
    image = await uploaded(scene)
    file = {"id": "f", "attachmentType": "file", "name": "report.pdf", "previewUrl": "https://files.test/1"}
    body = {
        "content": f'<p>look <img id="{image}" src=""></p>',
        "type": "html",
        "attachments": [{"id": image, "attachmentType": "image"}, file],
    }

    number = (await scene("POST", "/messages", body, version=PREVIEW)).json["id"]
    shown = {
        version: (await scene("GET", f"/messages/{number}", version=version)).json["content"]
        for version in ("2021-09-07", "2023-11-07", "2024-03-07", PREVIEW, "2025-03-15")
    }
    listed = (await scene("GET", "/messages", version=PREVIEW)).json["value"][0]["content"]

    base = f"https://emulator.test/chat/threads/{scene.thread}/images/{image}/views"
    assert shown[PREVIEW]["attachments"] == [
        {
            "id": image,
            "attachmentType": "image",
            "name": "cat.png",
            "url": f"{base}/original?api-version={PREVIEW}",
            "previewUrl": f"{base}/small?api-version={PREVIEW}",
        },
        file,
    ]
    assert listed == shown[PREVIEW]
    assert "2025-03-15" in shown["2025-03-15"]["attachments"][0]["url"]
    assert shown["2025-03-15"]["attachments"][1] == shown["2024-03-07"]["attachments"][1] == file
    assert len(shown["2023-11-07"]["attachments"]) == 2
    assert "attachments" not in shown["2021-09-07"]
    url = shown["2025-03-15"]["attachments"][0]["previewUrl"].removeprefix("https://emulator.test")
    assert (await call(scene.emulator, "GET", url, token=scene.token(scene.bob))).body == PNG


async def test_an_edit_replaces_attachments_only_where_it_names_them_and_a_deletion_takes_them() -> None:
    scene = Scene()
    image = await uploaded(scene)
    attached = {"content": "x", "attachments": [{"id": image, "attachmentType": "image"}]}
    number = (await scene("POST", "/messages", attached, version=PREVIEW)).json["id"]
    path = f"/messages/{number}"

    async def kept_now() -> list[str]:
        shown = (await scene("GET", path, version=PREVIEW)).json["content"]["attachments"]
        return [one["id"] for one in shown]

    await scene("PATCH", path, {"content": "y"}, version=PREVIEW)
    after_text = await kept_now()
    await scene("PATCH", path, {"attachments": [{"id": "f", "attachmentType": "file"}]}, version="2025-03-15")
    after_other_version = await kept_now()
    await scene("PATCH", path, {"attachments": [{"id": "f", "attachmentType": "file"}]}, version=PREVIEW)
    after_edit = await kept_now()
    await scene("DELETE", path, version=PREVIEW)

    assert (after_text, after_other_version, after_edit) == ([image], [image], ["f"])
    assert await kept_now() == []


@pytest.mark.parametrize(
    "attachments",
    ["x", [1], [{}], [{"id": "a"}], [{"id": "", "attachmentType": "image"}], [{"id": "a", "attachmentType": "card"}]],
)
async def test_attachments_that_are_none_are_refused(attachments: object) -> None:
    scene = Scene()
    body = {"content": "x", "attachments": attachments}

    assert (await scene("POST", "/messages", body, version=PREVIEW)).status == 400
    assert (await scene("POST", "/messages", body, version="2025-03-15")).status == 201


def test_images_attachments_and_assignments_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "emulator.data"
    scene = Scene()
    with persist(World(seed=7), path) as world:
        scene.emulator.world = world
        ann = scene.emulator.create_user()
        thread = scene.emulator.create_thread(ann, "lobby")
        image = scene.emulator.upload_image(thread, ann, PNG, "cat.png")
        lost = scene.emulator.upload_image(thread, ann, PNG)
        number = scene.emulator.send(thread, ann, "look", images=[image])
        world.images.delete(world.state.room(thread), ann, lost)
        world.state.put(Assignment("tenant", "user", "user", ("app",)))
    for _ in range(2):  # as the journal was, and as it was written anew
        with persist(World(), path) as world:
            room = world.state.room(thread)
            assert world.images.get(room, ann, image) == (PNG, "image/png")
            assert [one.id for one in room.messages[number].attachments] == [image]
            assert room.images.get(lost) is None or room.images[lost].is_deleted
            assert world.identities.assignment("tenant", "user") == Assignment("tenant", "user", "user", ("app",))
    assert lost not in path.read_text()
    assert json.loads(path.read_text().splitlines()[0])
