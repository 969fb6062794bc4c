// Ann's browser: does everything that the official SDK can do in a chat, and says what came of it.
// The page's address says who she is: #endpoint=…&token=…&user=…

import { ChatClient } from "@azure/communication-chat";
import { ChatClient as PreviewClient } from "@azure/communication-chat-preview";
import { AzureCommunicationTokenCredential } from "@azure/communication-common";

const given = new URLSearchParams(location.hash.slice(1));
const credential = new AzureCommunicationTokenCredential(given.get("token"));
const ann = { communicationUserId: given.get("user") };

async function all(pages) {
  const found = [];
  for await (const one of pages) {
    found.push(one);
  }
  return found;
}

const say = (what) => {
  const line = document.createElement("pre");
  line.textContent = JSON.stringify(what);
  document.getElementById("root").append(line);
};

window.talk = async (bob, eve) => {
  const client = new ChatClient(given.get("endpoint"), credential);
  const participants = [{ id: ann, displayName: "Ann" }, { id: { communicationUserId: bob }, displayName: "Bob" }];
  const created = await client.createChatThread({ topic: "Lobby" }, { participants, metadata: { from: "browser" } });
  const thread = client.getChatThreadClient(created.chatThread.id);
  const said = {};
  said.thread = created.chatThread.id;
  const { id } = await thread.sendMessage({ content: "hello" }, { senderDisplayName: "Ann", metadata: { k: "v" } });
  const html = await thread.sendMessage({ content: "<b>bold</b>" }, { type: "html" });
  await thread.updateMessage(id, { content: "hello again" });
  said.message = await thread.getMessage(id);
  await thread.deleteMessage(html.id);
  said.messages = await all(thread.listMessages({ maxPageSize: 2 }));
  await thread.sendTypingNotification({ senderDisplayName: "Ann" });
  await thread.sendReadReceipt({ chatMessageId: id });
  said.receipts = await all(thread.listReadReceipts());
  said.added = await thread.addParticipants({ participants: [{ id: { communicationUserId: eve }, displayName: "Eve" }] });
  said.participants = await all(thread.listParticipants());
  await thread.removeParticipant({ communicationUserId: eve });
  await thread.updateTopic("Hall");
  await thread.updateProperties({ retentionPolicy: { kind: "threadCreationDate", deleteThreadAfterDays: 40 } });
  said.properties = await thread.getProperties();
  said.threads = await all(client.listChatThreads());
  const other = await client.createChatThread({ topic: "Gone" });
  await client.deleteChatThread(other.chatThread.id);
  said.gone = await client.getChatThreadClient(other.chatThread.id).getProperties().then(String, (error) => error.statusCode);
  for (const [name, value] of Object.entries(said)) {
    say({ [name]: value });
  }
  return said;
};

window.show = async (threadId, bytes) => {
  const thread = new PreviewClient(given.get("endpoint"), credential).getChatThreadClient(threadId);
  const image = await thread.uploadImage(new Blob([new Uint8Array(bytes)], { type: "image/png" }), "cat.png", bytes.length);
  const lost = await thread.uploadImage(new Uint8Array(bytes).buffer, "lost.png", bytes.length);
  await thread.deleteImage(lost.id);
  const content = `<p>look <img id="${image.id}" src=""></p>`;
  const attachments = [{ id: image.id, attachmentType: "image" }];
  const { id } = await thread.sendMessage({ content }, { type: "html", attachments });
  const message = await thread.getMessage(id);
  const headers = { Authorization: `Bearer ${given.get("token")}` };
  const response = await fetch(message.content.attachments[0].previewUrl, { headers });
  const element = document.createElement("img");
  element.src = URL.createObjectURL(await response.blob());
  element.width = 100;
  document.getElementById("root").append(element);
  await element.decode();
  say({ image, message });
  return { image, lost, message, width: element.naturalWidth, type: response.headers.get("content-type") };
};
