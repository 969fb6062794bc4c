// A person's client, the official JavaScript SDK: lists the messages of threads again and again, and prints when it
// sees each one: {"thread", "id", "at"} with the time of this machine in ms. Ends with its standard input.
// node watching.mjs ENDPOINT TOKEN THREAD…

import { createRequire } from "node:module";

const require = createRequire(process.cwd() + "/");
const { ChatClient } = require("@azure/communication-chat");
const { AzureCommunicationTokenCredential } = require("@azure/communication-common");

const PAUSE_MS = 20;
const [endpoint, token, ...threads] = process.argv.slice(2);
const client = new ChatClient(endpoint, new AzureCommunicationTokenCredential(token));

const watch = async (thread) => {
  const messages = client.getChatThreadClient(thread);
  const seen = new Set();
  for (;;) {
    for await (const message of messages.listMessages({ maxPageSize: 10 })) {
      if (seen.has(message.id)) break; // the latest come first
      seen.add(message.id);
      console.log(JSON.stringify({ thread, id: Number(message.id), at: Date.now() }));
    }
    await new Promise((resume) => setTimeout(resume, PAUSE_MS));
  }
};

process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
Promise.all(threads.map(watch)).catch((error) => {
  console.error(error);
  process.exit(1);
});
