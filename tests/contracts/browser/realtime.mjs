// Ann's browser: hears of everything in her threads by the official SDK, and tells the test's server.
// The page's address says who she is: #endpoint=…&token=…

import { ChatClient } from "@azure/communication-chat";
import { AzureCommunicationTokenCredential } from "@azure/communication-common";

const given = new URLSearchParams(location.hash.slice(1));
const root = document.getElementById("root");

const tell = (what) => {
  const line = document.createElement("pre");
  line.textContent = `${what.event}: ${JSON.stringify(what.payload ?? null)}`;
  root.append(line);
  return fetch("/told", { method: "POST", body: JSON.stringify(what, (_, value) => value ?? null) });
};

const EVENTS = [
  "chatMessageReceived",
  "chatMessageEdited",
  "chatMessageDeleted",
  "typingIndicatorReceived",
  "readReceiptReceived",
  "chatThreadCreated",
  "chatThreadPropertiesUpdated",
  "chatThreadDeleted",
  "participantsAdded",
  "participantsRemoved",
];

async function main() {
  const credential = new AzureCommunicationTokenCredential(given.get("token"));
  const client = new ChatClient(given.get("endpoint"), credential);
  client.on("realTimeNotificationConnected", () => tell({ event: "connected" }));
  client.on("realTimeNotificationDisconnected", () => tell({ event: "disconnected" }));
  await client.startRealtimeNotifications();
  for (const event of EVENTS) {
    client.on(event, (payload) => tell({ event, payload }));
  }
  await tell({ event: "listening" });
}

main().catch((error) => tell({ event: "failed", payload: String(error.stack ?? error) }));
