// Ann's browser with Bot Framework's WebChat on Microsoft's adapter for chats, as two script tags bring them.
// The page's address says who she is: #endpoint=…&token=…&user=…&thread=…

const given = new URLSearchParams(location.hash.slice(1));

const tell = (event, payload) => fetch("/told", { method: "POST", body: JSON.stringify({ event, payload }) });

// The adapter asks it about every message: one that knows no files.
const noFiles = {
  uploadFiles: async () => [],
  downloadFiles: async () => [],
  updatePermissions: async () => {},
  getFileIds: () => undefined,
  createFileIdProperty: () => ({}),
  getFileMetadata: () => undefined,
  createFileMetadataProperty: () => ({}),
  createBotAttachment: () => null,
};

const directLine = ChatAdapter.createACSAdapter(
  given.get("token"),
  given.get("user"),
  given.get("thread"),
  given.get("endpoint"),
  noFiles,
  5000,
  { notifyErrorEvent: (event) => tell("failed", String(event.ErrorDetails ?? event.ErrorType)) },
  "Ann",
  undefined,
  undefined,
  { enableAdaptiveCards: true, enableThreadMemberUpdateNotification: true, enableLeaveThreadOnWindowClosed: false },
);

WebChat.renderWebChat(
  { directLine, store: WebChat.createStore(), userID: given.get("user"), username: "Ann", sendTypingIndicator: true },
  document.getElementById("root"),
);
tell("rendered");
