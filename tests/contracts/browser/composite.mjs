// Ann's browser with Microsoft's own user interface for a chat, as it is.
// The page's address says who she is: #endpoint=…&token=…&user=…&thread=…

import { AzureCommunicationTokenCredential } from "@azure/communication-common";
import { ChatComposite, createAzureCommunicationChatAdapter } from "@azure/communication-react";
import { createElement } from "react";
import { createRoot } from "react-dom/client";

const given = new URLSearchParams(location.hash.slice(1));

const tell = (event, payload) => fetch("/told", { method: "POST", body: JSON.stringify({ event, payload }) });

async function main() {
  const adapter = await createAzureCommunicationChatAdapter({
    endpoint: given.get("endpoint"),
    userId: { communicationUserId: given.get("user") },
    displayName: "Ann",
    credential: new AzureCommunicationTokenCredential(given.get("token")),
    threadId: given.get("thread"),
  });
  adapter.on("error", (event) => tell("failed", `${event.operation}: ${event.error}`));
  createRoot(document.getElementById("root")).render(createElement(ChatComposite, { adapter }));
  window.participants = () => Object.values(adapter.getState().thread.participants).map((one) => one.displayName);
  window.leave = () => adapter.removeParticipant(given.get("user"));
  window.rename = (topic) => adapter.setTopic(topic);
  await tell("rendered");
}

main().catch((error) => tell("failed", String(error.stack ?? error)));
