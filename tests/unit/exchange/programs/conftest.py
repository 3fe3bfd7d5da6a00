"""A lab with issuers of tokens: two clusters of one name, GitHub, GitLab, a SPIFFE trust domain, and somebody who vouches for people."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from tests.unit.exchange.conftest import Agent, World
from tests.unit.identity.tokens.minting import as_json, ec, jwks, rsa, sign

from cloister.model.messages.from_agent import EnrolByToken
from cloister.model.messages.from_exchange import Enrolled, Refused

CLUSTER = "https://kubernetes.default.svc.cluster.local"
GITHUB = "https://token.actions.githubusercontent.com"
GITLAB = "https://gitlab.example.org"
SPIFFE = "spiffe://prod.example.org"
PEOPLE = "https://sts.example.org"
KEYS = {name: name for name in ("east", "west", "github", "gitlab", "spiffe", "people", "stranger")}


def text_of(*names: str, **extra: Any) -> str:
    return json.dumps(jwks(*(rsa(name) for name in names), **extra))


DOCUMENTS = f"""
kind: connector-group
name: far
suffixes: [far.internal]
---
kind: token-issuer
name: east
type: kubernetes
issuer: {CLUSTER}
keys: {text_of("east")}
connectors: {{group: lab, subjects: ["system:serviceaccount:cloister:connector"]}}
---
kind: token-issuer
name: west
type: kubernetes
issuer: {CLUSTER}
keys: {text_of("west")}
connectors: {{group: far, subjects: ["system:serviceaccount:cloister:connector"]}}
---
kind: token-issuer
name: github
type: github
issuer: {GITHUB}
keys: {text_of("github")}
---
kind: token-issuer
name: gitlab
type: gitlab
issuer: {GITLAB}
keys: {text_of("gitlab")}
---
kind: token-issuer
name: spiffe
type: spiffe
issuer: {SPIFFE}
keys: {text_of("spiffe", use="jwt-svid")}
audience: cloister
---
kind: token-issuer
name: people
issuer: {PEOPLE}
keys: {text_of("people")}
people: true
---
kind: workload
name: trainer
issuer: east
claims: {{namespace: ml, serviceaccount: trainer}}
---
kind: workload
name: builder
issuer: {GITHUB}
claims: {{repository: lab/models, ref: refs/heads/*}}
---
kind: workload
name: deployer
issuer: gitlab
claims: {{project_path: lab/deploy, ref: main, ref_protected: "true"}}
---
kind: workload
name: scheduler
issuer: spiffe
subject: {SPIFFE}/ns/batch/sa/scheduler
---
kind: user
name: eve
issuer: {PEOPLE}
subject: e-1
---
kind: rule
name: programs-use-jupyter
effect: permit
who: {{workloads: [trainer, builder, deployer, scheduler]}}
what: {{segments: [jupyter]}}
---
kind: rule
name: programs-for-people-use-postgres
effect: permit
who: {{users: [ada, eve], via: [trainer, builder]}}
what: {{segments: [postgres]}}
"""


@dataclass
class Issuers:
    """Mints tokens that are good now; anything can be changed, `...` leaves a claim out."""

    world: World

    @property
    def audience(self) -> str:
        return f"https://{self.world.running.state.keyring.trust_domain}"

    def mint(self, iss: str, key: Any, claims: Mapping[str, Any], algorithm: str = "RS256", **header: Any) -> str:
        now = int(self.world.clock())
        body = {"iss": iss, "aud": self.audience, "iat": now, "exp": now + 600, **claims}
        head = {"alg": algorithm, "kid": key.kid, **header} if not isinstance(key, bytes) else {"alg": algorithm, **header}
        return sign(head, as_json({name: value for name, value in body.items() if value is not ...}), key, algorithm)

    def pod(self, namespace: str = "ml", account: str = "trainer", key: str = "east", **claims: Any) -> str:
        inside = {"namespace": namespace, "serviceaccount": {"name": account, "uid": "u"}, "pod": {"name": "p", "uid": "pod-1"}}
        subject = f"system:serviceaccount:{namespace}:{account}"
        return self.mint(CLUSTER, rsa(key), {"aud": [self.audience], "sub": subject, "kubernetes.io": inside, **claims})

    def github(self, **claims: Any) -> str:
        told = {"sub": "repo:lab/models:ref:refs/heads/main", "repository": "lab/models", "ref": "refs/heads/main", "jti": "g-1"}
        return self.mint(GITHUB, rsa("github"), told | claims)

    def gitlab(self, **claims: Any) -> str:
        told = {"sub": "project_path:lab/deploy", "project_path": "lab/deploy", "ref": "main", "ref_protected": "true"}
        return self.mint(GITLAB, rsa("gitlab"), told | claims)

    def svid(self, path: str = "/ns/batch/sa/scheduler", **claims: Any) -> str:
        return self.mint(
            "", rsa("spiffe"), {"iss": ..., "iat": ..., "aud": ["cloister"], "sub": SPIFFE + path} | claims, typ="JOSE"
        )

    def person(self, actor: Any = None, **claims: Any) -> str:
        actor = actor or {"iss": CLUSTER, "sub": "system:serviceaccount:ml:trainer"}
        return self.mint(PEOPLE, rsa("people"), {"sub": "e-1", "may_act": actor, "auth_time": int(time.time()) - 60} | claims)

    async def ask(
        self, token: str, role: Any = "client", subject: str | None = None, agent: Agent | None = None
    ) -> tuple[Agent, Enrolled | Refused]:
        agent = agent or self.world.agent(role)
        request = EnrolByToken(token=token, csr=agent.csr(), hostname="job", subject_token=subject)
        return agent, await agent.ask_enrolment(request)

    async def enrol(self, token: str, role: Any = "client", subject: str | None = None) -> Agent:
        agent, answer = await self.ask(token, role, subject)
        assert isinstance(answer, Enrolled), answer
        await agent.connect()
        return agent

    async def refused(self, token: str, subject: str | None = None, role: Any = "client") -> str:
        before = set(self.world.running.state.agents)
        _, answer = await self.ask(token, role, subject)
        assert isinstance(answer, Refused), answer
        assert set(self.world.running.state.agents) == before
        return answer.code


@pytest.fixture
async def issuers(lab: World) -> Issuers:
    await lab.apply(DOCUMENTS)
    return Issuers(lab)


__all__ = ["Issuers", "ec"]
