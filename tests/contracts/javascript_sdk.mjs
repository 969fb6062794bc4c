// Every public method of the official JavaScript SDK against a served emulator, as another program would.
// Run by test_javascript_sdk.py with the connection string as argument; NODE_EXTRA_CA_CERTS names the certificate file.
// Not emulated: the real-time channel (startRealtimeNotifications, on, off), which is another service.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { ChatClient, ChatThreadClient } = require("@azure/communication-chat");
const { CommunicationIdentityClient } = require("@azure/communication-identity");
const { AzureCommunicationTokenCredential } = require("@azure/communication-common");

const [connectionString, entraToken] = process.argv.slice(2);
const endpoint = /endpoint=([^;]*)/.exec(connectionString)[1];
const realTime = ["startRealtimeNotifications", "stopRealtimeNotifications", "on", "off"];
const used = new Set();
const hasProperties = "updateProperties" in ChatThreadClient.prototype; // since 1.6.0
const hasTeams = "getTokenForTeamsUser" in CommunicationIdentityClient.prototype; // since 1.1.0
const hasLifetimes = Number(process.argv[4]) >= 2; // identity since 1.2.0
const hasMetadata = Number(process.argv[5]) >= 1; // messages since chat 1.1.0

const watched = (client) =>
  new Proxy(client, {
    get(target, name) {
      const member = target[name];
      if (typeof member !== "function") return member;
      used.add(name);
      return member.bind(target);
    },
  });

const all = async (pages) => {
  const items = [];
  for await (const item of pages) items.push(item);
  return items;
};

const status = async (promise) => {
  try {
    await promise;
  } catch (error) {
    return error.statusCode;
  }
  return 200;
};

const identity = watched(new CommunicationIdentityClient(connectionString));
const ann = await identity.createUser();
const { user: bob, token: bobsToken } = await identity.createUserAndToken(["chat"], { tokenExpiresInMinutes: 60 });
const { token } = await identity.getToken(ann, ["chat"]);
if (hasTeams) {
  const teams = await identity.getTokenForTeamsUser({
    teamsUserAadToken: entraToken,
    clientId: randomUUID(),
    userObjectId: randomUUID(),
  });
  assert.ok(teams.token && teams.expiresOn > new Date());
}
assert.equal(await status(identity.getToken(ann, [])), 400);
if (hasLifetimes) {
  assert.equal(await status(identity.createUserAndToken(["chat"], { tokenExpiresInMinutes: 59 })), 400);
}

const chat = watched(new ChatClient(endpoint, new AzureCommunicationTokenCredential(token)));
const created = await chat.createChatThread(
  { topic: "topic" },
  {
    participants: [{ id: bob, displayName: "Bob" }],
    idempotencyToken: randomUUID(),
    metadata: { colour: "blue" },
    retentionPolicy: { kind: "threadCreationDate", deleteThreadAfterDays: 60 },
  },
);
const threadId = created.chatThread.id;
assert.equal(created.invalidParticipants, undefined);
if (hasProperties) {
  assert.deepEqual(created.chatThread.metadata, { colour: "blue" });
  assert.equal(created.chatThread.retentionPolicy.deleteThreadAfterDays, 60);
}
assert.deepEqual((await all(chat.listChatThreads({ maxPageSize: 1 }))).map((one) => one.id), [threadId]);

const thread = watched(chat.getChatThreadClient(threadId));
assert.equal((await thread.getProperties()).createdBy.communicationUserId, ann.communicationUserId);
await thread.updateTopic("new topic");
if (hasProperties) {
  await thread.updateProperties({ topic: "newer topic", metadata: { size: "small" } });
  assert.deepEqual((await thread.getProperties()).metadata, { colour: "blue", size: "small" });
}

const first = await thread.sendMessage(
  { content: "first" },
  { senderDisplayName: "Ann", metadata: { a: "1", b: "2" } },
);
const html = await thread.sendMessage({ content: "<b>hi</b><script>x</script>" }, { type: "html" });
const gone = await thread.sendMessage({ content: "gone" });
await thread.updateMessage(first.id, { content: "edited", metadata: { b: "", c: "3" } });
await thread.deleteMessage(gone.id);
const edited = await thread.getMessage(first.id);
assert.equal(edited.content.message, "edited");
assert.deepEqual(edited.metadata, hasMetadata ? { a: "1", c: "3" } : undefined);
assert.ok(edited.editedOn);
assert.equal((await thread.getMessage(html.id)).content.message, "<b>hi</b>");

const listed = await all(thread.listMessages());
assert.deepEqual(listed.slice(0, 3).map((one) => one.id), [gone.id, first.id, html.id]);
assert.ok(listed[0].deletedOn);
const paged = [];
for await (const page of thread.listMessages({ maxPageSize: 3 }).byPage()) paged.push(...page);
assert.deepEqual(paged.map((one) => one.id), listed.map((one) => one.id));
const future = new Date(Date.now() + 3600_000);
assert.equal((await all(thread.listMessages({ startTime: future }))).length, 0);

assert.equal(await thread.sendTypingNotification({ senderDisplayName: "Ann" }), true);
await thread.sendReadReceipt({ chatMessageId: html.id });
assert.deepEqual((await all(thread.listReadReceipts())).map((one) => one.chatMessageId), [html.id]);

const carol = await identity.createUser();
const stranger = { communicationUserId: `8:acs:${randomUUID()}_0000001c-0000-0000-0000-000000000000` };
const added = await thread.addParticipants({
  participants: [{ id: carol, displayName: "Carol", metadata: { role: "guest" } }, { id: stranger }],
});
assert.equal(added.invalidParticipants.length, 1);
const people = await all(thread.listParticipants({ maxPageSize: 1 }));
assert.deepEqual(people.map((one) => one.displayName), [undefined, "Bob", "Carol"]);
if (hasProperties) {
  assert.deepEqual(people[2].metadata, { role: "guest" });
}
await thread.removeParticipant(bob);
assert.equal((await all(thread.listParticipants())).length, 2);

const bobs = new ChatClient(endpoint, new AzureCommunicationTokenCredential(bobsToken));
assert.equal(await status(bobs.getChatThreadClient(threadId).sendMessage({ content: "x" })), 403);
assert.equal(await status(thread.getMessage("nonsense")), 400);

await chat.deleteChatThread(threadId);
assert.equal(await status(thread.getProperties()), 404);
await identity.revokeTokens(ann);
assert.equal(await status(all(chat.listChatThreads())), 401);
await identity.deleteUser(ann);

const methods = [ChatClient, ChatThreadClient, CommunicationIdentityClient]
  .flatMap((one) => Object.getOwnPropertyNames(one.prototype).filter((name) => one.prototype[name] instanceof Function))
  .filter((name) => name !== "constructor" && !realTime.includes(name))
  .filter((name) => !/^list.*(Page|All)$|^subscribeToSignalingEvents$|^canPost/.test(name)); // private in TypeScript
const unused = methods.filter((name) => !used.has(name));
console.log(JSON.stringify({ methods: methods.length, unused }));
