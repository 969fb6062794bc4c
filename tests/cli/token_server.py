"""A complete token endpoint: it holds the key, and the daemon does not. See docs/how-to/authenticate.md.

ACS_CONNECTION_STRING=… TOKEN_ENDPOINT_AUTHORIZATION="Bearer …" BOTS="8:acs:… 8:acs:…" python token_server.py
"""

import hmac
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from azure.communication.identity import CommunicationIdentityClient, CommunicationUserIdentifier

IDENTITIES = CommunicationIdentityClient.from_connection_string(os.environ["ACS_CONNECTION_STRING"])
AUTHORIZATION = os.environ["TOKEN_ENDPOINT_AUTHORIZATION"].encode()
BOTS = os.environ["BOTS"].split()


class TokenEndpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), AUTHORIZATION):
            self.answer(401, {"error": {"code": "Unauthorized", "message": "This is not the secret that we share."}})
        elif asked.get("user") not in BOTS or asked.get("scopes") != ["chat"]:
            self.answer(403, {"error": {"code": "Forbidden", "message": "There are tokens of our bots only."}})
        else:
            issued: Any = IDENTITIES.get_token(CommunicationUserIdentifier(asked["user"]), asked["scopes"])
            self.answer(200, {"token": issued.token, "expiresOn": issued.expires_on})

    def answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), TokenEndpoint)
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)  # behind https, unless it is on the bots' own machine
    server.serve_forever()
