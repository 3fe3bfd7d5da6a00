"""curl's library (with nghttp2) as an HTTP/2 CONNECT client: one JSON command on standard input, one JSON answer on standard output.

`{"door", "url", "headers": […], "certificate", "key", "roots", "body"}` → `{"protocol", "connect", "reason", "status", "body", "error"}`:
what was negotiated, the status and the reason of the answer to CONNECT, then status and body of what was asked through it.
"""

import io
import json
import sys

import pycurl

PROXYTYPE_HTTPS2 = 3  # curl.h; without a name in this binding
CONSTANT_NAME = "connector.cloister.invalid"


def main() -> None:
    command = json.load(sys.stdin)
    answer, told = io.BytesIO(), []
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, command["url"])
    curl.setopt(pycurl.PROXY, f"https://{CONSTANT_NAME}:{command['door']}")
    curl.setopt(pycurl.PROXYTYPE, PROXYTYPE_HTTPS2)
    curl.setopt(pycurl.RESOLVE, [f"{CONSTANT_NAME}:{command['door']}:127.0.0.1"])
    curl.setopt(pycurl.HTTPPROXYTUNNEL, True)
    curl.setopt(pycurl.PROXYHEADER, command["headers"])
    curl.setopt(pycurl.PROXY_SSLCERT, command["certificate"])
    curl.setopt(pycurl.PROXY_SSLKEY, command["key"])
    curl.setopt(pycurl.PROXY_CAINFO, command["roots"])
    curl.setopt(pycurl.NOPROXY, "")
    curl.setopt(pycurl.TIMEOUT, 20)
    curl.setopt(pycurl.WRITEDATA, answer)
    curl.setopt(pycurl.VERBOSE, True)  # the answer to CONNECT is told nowhere else
    curl.setopt(pycurl.DEBUGFUNCTION, lambda kind, data: told.append(data.decode(errors="replace")) if kind == 0 else None)
    if command.get("body"):
        curl.setopt(pycurl.POSTFIELDS, command["body"])
    error = ""
    try:
        curl.perform()
    except pycurl.error as failure:
        error = f"{failure.args[0]}: {failure.args[1]}"
    found = {
        "protocol": _after(told, "CONNECT: '").partition("'")[0],
        "connect": _after(told, "CONNECT Response Status "),
        "reason": _after(told, "cloister-reason: "),
    }
    print(json.dumps(found | {"status": curl.getinfo(pycurl.RESPONSE_CODE), "body": answer.getvalue().decode(), "error": error}))


def _after(lines: list[str], start: str) -> str:
    return next((line.strip().removeprefix(start) for line in lines if line.strip().startswith(start)), "")


if __name__ == "__main__":
    main()
