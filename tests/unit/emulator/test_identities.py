import base64
import dataclasses
import json
import re

import pytest

from tests.unit.emulator.asgi import Scene, call, make, signed


async def test_an_empty_body_creates_a_user_and_scopes_add_a_token() -> None:
    emulator, _ = make()

    bare = await signed(emulator, "POST", "/identities")
    full = await signed(emulator, "POST", "/identities", {"createTokenWithScopes": ["chat"], "expiresInMinutes": 60})

    assert (bare.status, list(bare.json)) == (201, ["identity"])
    assert bare.json["identity"]["id"].startswith(f"8:acs:{emulator.world.resource.id}_")
    assert list(full.json) == ["identity", "accessToken"]
    assert re.fullmatch(r"2025-06-15T16:06:40(\.\d{1,7})?\+00:00", full.json["accessToken"]["expiresOn"])


async def test_a_users_own_id_finds_the_same_user_again_and_older_versions_do_not_show_it() -> None:
    emulator, clock = make()
    new, old = "2025-03-02-preview", "2023-10-01"
    body = {"customId": "ann@example.com", "createTokenWithScopes": ["chat"]}

    first = await signed(emulator, "POST", "/identities", {"customId": "ann@example.com"}, version=new)
    again = await signed(emulator, "POST", "/identities", body, version=new)
    clock.advance(5)
    user = first.json["identity"]["id"]
    shown = await signed(emulator, "GET", f"/identities/{user}", version=new)
    hidden = await signed(emulator, "GET", f"/identities/{user}", version=old)
    foreign = await signed(emulator, "GET", f"/identities/{user[:-1]}z", version=new)

    assert (first.status, again.status) == (201, 201)
    assert first.json["identity"] == {"customId": "ann@example.com", "id": user}
    issued = {"customId": "ann@example.com", "lastTokenIssuedAt": "2025-06-15T15:06:40+00:00", "id": user}
    assert again.json["identity"] == shown.json == issued
    assert (hidden.status, hidden.json["error"]["code"]) == (400, "UnsupportedApiVersion")
    assert (foreign.status, foreign.json["error"]["code"]) == (401, "IdentityNotOwned")
    assert (await signed(emulator, "POST", "/identities", body, version=old)).json["identity"]["id"] != user


async def test_a_token_has_the_claims_of_a_real_one() -> None:
    emulator, _ = make()
    user = emulator.create_user()

    answer = await signed(emulator, "POST", f"/identities/{user}/:issueAccessToken", {"scopes": ["chat", "voip"]})

    part = answer.json["token"].split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert claims["skypeid"] == user.removeprefix("8:")
    assert claims["acsScope"] == "chat,voip"
    assert claims["exp"] - claims["iat"] == 86400


async def test_the_user_id_of_a_path_may_be_escaped() -> None:
    emulator, _ = make()
    user = emulator.create_user().replace(":", "%3A")

    assert (await signed(emulator, "DELETE", f"/identities/{user}")).status == 204


@pytest.mark.parametrize(
    ("body", "message", "target"),
    [
        ({}, "Scopes: The Scopes field is required.", "Scopes"),
        ({"scopes": []}, "Invalid scopes - Scopes field is required.", "scopes"),
        (
            {"scopes": ["chat"], "expiresInMinutes": 59},
            "ExpiresInMinutes value 59 is invalid. Value must be within the [60, 1440] interval.",
            "ExpiresInMinutes",
        ),
        (
            {"scopes": ["chat"], "expiresInMinutes": 1441},
            "ExpiresInMinutes value 1441 is invalid. Value must be within the [60, 1440] interval.",
            "ExpiresInMinutes",
        ),
    ],
)
async def test_bad_token_requests_are_refused_in_the_recorded_words(body: object, message: str, target: str) -> None:
    emulator, _ = make()
    user = emulator.create_user()

    answer = await signed(emulator, "POST", f"/identities/{user}/:issueAccessToken", body)

    assert answer.status == 400
    assert answer.json == {"error": {"code": "ValidationError", "message": message, "target": target}}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "tail", "body"),
    [
        ("POST", "/:issueAccessToken", {"scopes": ["chat"]}),
        ("POST", "/:revokeAccessTokens", None),
        ("DELETE", "", None),
    ],
)
async def test_users_of_others_are_refused_with_401(method: str, tail: str, body: object) -> None:
    emulator, _ = make()
    foreign = "8:acs:" + emulator.world.state.new_guid() + "_0000001c-0000-0000-0000-000000000000"

    answer = await signed(emulator, method, f"/identities/{foreign}{tail}", body)

    assert answer.status == 401
    message = "Provided identity doesn't belong to the resource."
    assert answer.json == {"error": {"code": "IdentityNotOwned", "message": message}}


async def test_identity_echoes_the_request_id_when_asked() -> None:
    emulator, _ = make()

    headers = {"x-ms-client-request-id": "me", "x-ms-return-client-request-id": "true"}
    answer = await signed(emulator, "POST", "/identities", headers=headers)

    assert answer.headers["x-ms-client-request-id"] == "me"
    assert answer.headers["request-context"] == "appId="


async def test_a_wrong_key_or_a_changed_body_is_denied() -> None:
    emulator, _ = make()

    wrong_key = await signed(emulator, "POST", "/identities", key=base64.b64encode(b"other").decode())
    headers = {"x-ms-content-sha256": "AAAA"}
    changed = await signed(emulator, "POST", "/identities", headers=headers)
    unsigned = await call(emulator, "POST", "/identities", version="2023-10-01")

    assert [one.status for one in (wrong_key, changed, unsigned)] == [401] * 3
    assert wrong_key.json["error"]["code"] == "Denied"
    assert changed.json["error"]["message"] == "Request 'x-ms-content-sha256' differs from generated content hash."


async def test_expired_revoked_and_foreign_tokens_are_refused_with_an_empty_401() -> None:
    scene = Scene()
    token = scene.emulator.issue_token(scene.ann, minutes=60).text
    forged = token[:-6] + "AAAAAA"

    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 200
    assert (await call(scene.emulator, "GET", scene.path, token=forged)).status == 401
    scene.clock.advance(3600)
    expired = await call(scene.emulator, "GET", scene.path, token=token)
    assert (expired.status, expired.body, expired.headers["www-authenticate"]) == (401, b"", "Bearer")
    fresh = scene.token(scene.ann)
    assert (await call(scene.emulator, "GET", scene.path, token=fresh)).status == 200
    scene.emulator.revoke_tokens(scene.ann)
    assert (await call(scene.emulator, "GET", scene.path, token=fresh)).status == 401
    assert (await scene("GET")).status == 200


async def test_revocation_can_be_slow() -> None:
    scene = Scene(revocation_delay_seconds=900)
    token = scene.token(scene.ann)
    scene.emulator.revoke_tokens(scene.ann)

    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 200
    scene.clock.advance(900)
    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 401


async def test_a_deleted_user_leaves_all_threads() -> None:
    scene = Scene()

    token = scene.token(scene.bob)
    await signed(scene.emulator, "DELETE", f"/identities/{scene.bob}")

    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 200
    scene.clock.advance(5)
    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 401
    assert (await scene("GET")).status == 200
    assert [one.user for one in scene.emulator.participants(scene.thread)] == [scene.ann]
    assert (await signed(scene.emulator, "DELETE", f"/identities/{scene.bob}")).status == 401


@pytest.mark.parametrize(
    ("scope", "create", "add", "send"),
    [
        ("chat", 201, 201, 201),
        ("chat.join", 403, 201, 201),
        ("chat.join.limited", 403, 403, 201),
        ("voip", 401, 401, 401),
    ],
)
async def test_scopes_allow_what_the_documented_table_says(scope: str, create: int, add: int, send: int) -> None:
    scene = Scene()
    token = scene.token(scene.ann, scope)

    created = await call(scene.emulator, "POST", "/chat/threads", {"topic": "t"}, token=token)
    added = await call(scene.emulator, "POST", f"{scene.path}/participants/:add", {"participants": []}, token=token)
    sent = await call(scene.emulator, "POST", f"{scene.path}/messages", {"content": "x"}, token=token)

    assert (created.status, added.status, sent.status) == (create, add, send)


async def test_a_new_access_key_makes_old_tokens_worthless() -> None:
    scene = Scene()
    token = scene.token(scene.ann)
    state = scene.emulator.world.state

    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 200
    state.put(dataclasses.replace(state.resource, access_key=base64.b64encode(b"new").decode()))
    assert (await call(scene.emulator, "GET", scene.path, token=token)).status == 401
    assert (await scene("GET")).status == 200


TENANT, TEAMS_USER, APP = (f"{digit * 8}-0000-4000-8000-000000000000" for digit in ("1", "a", "b"))


async def test_an_assignment_lets_a_teams_user_exchange_a_token_of_entra() -> None:
    emulator, _ = make(entra=True)
    path = f"/access/teamsExtension/tenants/{TENANT}/assignments/{TEAMS_USER.upper()}"
    exchange = "/access/teamsExtension/:exchangeAccessToken?api-version=2025-06-30"
    shown = {"objectId": TEAMS_USER, "tenantId": TENANT, "principalType": "user"}
    token = emulator.entra_token(tenant=TENANT, user=TEAMS_USER, app=APP)

    missing = await signed(emulator, "GET", path, version="2025-03-02-preview")
    unassigned = await call(emulator, "POST", exchange, {}, token=token)
    created = await signed(emulator, "PUT", path, {"principalType": "user"}, version="2025-03-02-preview")
    exchanged = await call(emulator, "POST", exchange, {}, token=token)
    body = {"principalType": "user", "clientIds": ["another"]}
    replaced = await signed(emulator, "PUT", path, body, version="2025-06-30")
    found = await signed(emulator, "GET", path, version="2025-06-30")
    other_app = await call(emulator, "POST", exchange, {}, token=token)
    deleted = [await signed(emulator, "DELETE", path, version="2025-06-30") for _ in range(2)]
    afterwards = await call(emulator, "POST", exchange, {}, token=token)

    assert (missing.status, missing.json["error"]["code"]) == (404, "NotFound")
    assert (created.status, created.json) == (201, shown)
    assert (exchanged.status, list(exchanged.json)) == (200, ["identity", "accessToken"])
    assert exchanged.json["identity"]["id"] == f"8:acs:{emulator.world.resource.id}_{TENANT}_{TEAMS_USER}"
    assert (replaced.status, replaced.json) == (200, {**shown, "clientIds": ["another"]})
    assert found.json == replaced.json
    assert found.headers["api-supported-versions"] == "2025-03-02-preview, 2025-06-30"
    assert [answer.status for answer in deleted] == [204, 204]
    assert [answer.status for answer in (unassigned, other_app, afterwards)] == [403, 403, 403]
    chat = await call(emulator, "GET", "/chat/threads", token=exchanged.json["accessToken"]["token"])
    assert (chat.status, chat.body) == (401, b"")


async def test_the_teams_extension_refuses_other_versions_credentials_and_bad_values() -> None:
    scene = Scene(entra=True)
    path = f"/access/teamsExtension/tenants/{TENANT}/assignments/{TEAMS_USER}"
    exchange = "/access/teamsExtension/:exchangeAccessToken"
    body = {"principalType": "user"}

    for bad in ({}, {"principalType": "x"}, {**body, "clientIds": "a"}, {**body, "clientIds": [1]}):
        assert (await signed(scene.emulator, "PUT", path, bad, version="2025-06-30")).status == 400, bad
    for wrong in (path.replace(TENANT, "x"), path.replace(TEAMS_USER, "x")):
        assert (await signed(scene.emulator, "PUT", wrong, body, version="2025-06-30")).status == 400
    assert (await signed(scene.emulator, "PUT", path, body)).json["error"]["code"] == "UnsupportedApiVersion"
    assert (await signed(scene.emulator, "POST", exchange, {}, version="2025-06-30")).status == 401
    chat_token = scene.token(scene.ann)
    assert (await call(scene.emulator, "POST", exchange, {}, token=chat_token, version="2025-06-30")).status == 401
    assert (await signed(scene.emulator, "GET", f"{path}/x", version="2025-06-30")).status == 404


async def test_refused_tokens_advertise_one_more_preview_than_issued_ones() -> None:
    emulator, _ = make()
    path = f"/identities/{emulator.create_user()}/:issueAccessToken"

    good = await signed(emulator, "POST", path, {"scopes": ["chat"]})
    bad = await signed(emulator, "POST", path, {"scopes": []})

    versions = {answer.status: answer.headers["api-supported-versions"].split(", ") for answer in (good, bad)}
    assert [one for one in versions[400] if one not in versions[200]] == ["2025-03-31-preview"]
    assert versions[400] == sorted(versions[400])
