"""Events that are fetched (RFC 8936), from a real HTTPS server; keys found by discovery."""

import json
from pathlib import Path
from typing import Any

from tests.unit.exchange.conftest import World, eventually
from tests.unit.exchange.outside import Outside, outside, respond
from tests.unit.exchange.signalling import Transmitter, document, outcomes, rule, want
from tests.unit.identity.tokens.minting import jwks, rsa

from cloister.model.messages.from_exchange import EndSession

HERE = "127.0.0.1"


class Feed:
    """What the transmitter has to deliver, and what it was told."""

    def __init__(self, server: Outside) -> None:
        self.server = server
        self.sets: dict[str, str] = {}
        self.asked: list[dict[str, Any]] = []
        self.headers = ""
        server.answers["/poll"] = self.answer
        server.answers["/.well-known/ssf-configuration"] = respond({"issuer": server.url, "jwks_uri": f"{server.url}/jwks"})
        server.answers["/jwks"] = respond(jwks(rsa()))

    def answer(self, request: str) -> bytes:
        self.headers, _, body = request.partition("\r\n\r\n")
        asked = json.loads(body)
        self.asked.append(asked)
        for id in [*asked["ack"], *asked.get("setErrs", {})]:
            self.sets.pop(id, None)
        return respond({"sets": dict(list(self.sets.items())[: asked["maxEvents"]]), "moreAvailable": False})

    def document(self, **fields: Any) -> str:
        server = self.server
        poll = {"url": f"{server.url}/poll", "interval": "1s"}
        return document(
            issuer=server.url, delivery="poll", poll=poll, keys=[], allow_internal=[HERE], ca_file=str(server.ca_file), **fields
        )


async def test_polled_events_act_are_acknowledged_and_refused_ones_told(lab: World, tmp_path: Path) -> None:
    async with outside(tmp_path / "outside", HERE) as server:
        feed = Feed(server)
        transmitter = Transmitter(lab)
        await lab.connector()
        ada = await lab.client("ada")
        await rule(lab)
        session = await want(ada)
        good = transmitter.token("session-revoked", iss=server.url, jti="good")
        feed.sets = {
            "bad": transmitter.token("session-revoked", iss=server.url, aud="https://else.example", jti="bad"),
            "other": transmitter.token("session-revoked", iss=server.url, jti="not-other"),
            "good": good,
        }
        await lab.apply(feed.document())
        await lab.api.ok("PUT", "/signal-transmitters/corp/secret", json={"secret": "tell-nobody"})
        end = await ada.receive(EndSession)
        assert end.sessions == [session.session]
        await eventually(lambda: not feed.sets)
        told = {id: error["err"] for asked in feed.asked for id, error in asked.get("setErrs", {}).items()}
        assert told == {"bad": "invalid_audience", "other": "invalid_request"}
        assert [id for asked in feed.asked for id in asked["ack"]] == ["good"]
        feed.sets = {"good": good}
        await eventually(lambda: not feed.sets)  # delivered again: acknowledged again, and nothing more
        assert (await outcomes(lab))[-1] == "duplicate"
        assert "authorization: Bearer tell-nobody" in feed.headers
        await lab.api.ok("DELETE", "/signal-transmitters/corp")
        await eventually(lambda: not lab.running.signals.poller.polled())


async def test_what_fails_is_told_to_people_and_tried_again(lab: World, tmp_path: Path) -> None:
    async with outside(tmp_path / "outside", HERE) as server:
        feed = Feed(server)
        server.answers["/poll"] = respond({"error": "x"}, status=500)
        await lab.apply(feed.document())

        [transmitter] = lab.running.signals.receiver.transmitters()
        stream = lab.running.signals.receiver.stream(transmitter)
        await eventually(lambda: "500" in stream.poll_error)
        server.answers["/poll"] = respond({"sets": {"a": 7}})
        await eventually(lambda: "tokens" in stream.poll_error)
        server.answers["/poll"] = feed.answer
        await eventually(lambda: stream.polled_at is not None)
        assert stream.poll_error == ""
