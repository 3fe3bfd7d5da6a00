"""A directory that provisions: one person deactivated and back, or a sync of many users as fast as it goes.

Usage as a process: scim.py EXCHANGE TOKEN USERS. Creates them one by one over HTTPS and prints how many there are, and after how many seconds, every hundred.
"""

import http.client
import json
import ssl
import sys
import threading
import time
from typing import Any

SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


class Directory:
    """For many threads: one request at a time."""

    def __init__(self, address: str, token: str) -> None:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # who the exchange is is not what is measured
        self._web = http.client.HTTPSConnection(address, context=context)
        self._one = threading.Lock()
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/scim+json"}

    def call(self, method: str, path: str, body: object = None) -> Any:
        with self._one:
            try:
                self._web.request(method, f"/scim/v2{path}", json.dumps(body), self._headers)
                answer = self._web.getresponse()
            except (http.client.HTTPException, ConnectionError):  # it was quiet for too long, and the exchange closed it
                self._web.close()
                self._web.request(method, f"/scim/v2{path}", json.dumps(body), self._headers)
                answer = self._web.getresponse()
            text = answer.read()
        if answer.status >= 300:
            raise OSError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text) if text else None

    def add_user(self, name: str) -> str:
        made: str = self.call("POST", "/Users", {"schemas": [SCHEMA], "userName": name, "externalId": name, "active": True})["id"]
        return made

    def set_active(self, id: str, *, active: bool) -> None:
        operation = {"op": "replace", "path": "active", "value": active}
        self.call("PATCH", f"/Users/{id}", {"schemas": [PATCH], "Operations": [operation]})


def main(arguments: list[str]) -> None:
    address, token, count = arguments
    directory = Directory(address, token)
    started = time.monotonic()
    for number in range(int(count)):
        directory.add_user(f"synced-{number}")
        if number % 100 == 99:
            print(number + 1, f"{time.monotonic() - started:.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
