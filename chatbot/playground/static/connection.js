// The websocket to the playground: requests with answers, pushes, and connecting again.

const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 3000;

/** Take the token out of the address and keep it for this tab, so that neither history nor a shared link has it. */
export function takeToken() {
  const place = new URLSearchParams(location.hash.slice(1));
  const token = place.get("token");
  if (token) {
    sessionStorage.setItem("token", token);
    place.delete("token");
    history.replaceState(null, "", place.size ? `#${place}` : location.pathname);
  }
  return sessionStorage.getItem("token");
}

export class Connection {
  constructor(token, { onPush, onState }) {
    this.token = token;
    this.onPush = onPush;
    this.onState = onState;
    this.waiting = new Map();
    this.number = 0;
    this.pause = FIRST_PAUSE;
    this.open();
  }

  open() {
    const socket = (this.socket = new WebSocket(`ws://${location.host}/channel`));
    socket.onopen = () => socket.send(JSON.stringify({ token: this.token }));
    socket.onmessage = (event) => this.take(JSON.parse(event.data));
    socket.onclose = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error("the connection was lost; try again"));
      this.waiting.clear();
      if (event.code === 4401) {
        this.onState("denied");
        return;
      }
      this.onState("lost");
      setTimeout(() => this.open(), this.pause);
      this.pause = Math.min(LONGEST_PAUSE, this.pause * 1.5);
    };
  }

  take(frame) {
    if (frame.push) {
      this.pause = FIRST_PAUSE;
      this.onPush(frame);
      return;
    }
    const asked = this.waiting.get(frame.re);
    this.waiting.delete(frame.re);
    if (asked && "error" in frame) asked.reject(new Error(frame.error));
    else if (asked) asked.resolve(frame.answer);
  }

  ask(name, fields = {}) {
    if (this.socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error("not connected; try again in a moment"));
    const id = ++this.number;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.socket.send(JSON.stringify({ ...fields, id, do: name }));
    });
  }
}
