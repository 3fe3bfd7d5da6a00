"""How people of the demo are known and sign in: by accounts of the exchange itself, or at the company's identity provider."""

import time
from abc import ABC, abstractmethod

from people import PEOPLE, Person, membership
from scene import Scene


class Staff(ABC):
    """Everybody who may sign in, and what their administrator does to them."""

    out_by = ""
    """What follows "is taken out of GROUP" in the report."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    @abstractmethod
    def begin(self) -> None:
        """Start what takes time; the exchange is up."""

    @abstractmethod
    def documents(self) -> str:
        """The groups, and who is in them as far as the exchange's own documents say."""

    @abstractmethod
    def wait(self) -> None:
        """Until people can sign in."""

    @abstractmethod
    def sign_in(self, person: Person) -> None:
        """Sign this person's machine in."""

    @abstractmethod
    def take_out(self, person: Person) -> float:
        """Take a person out of their group. Returns the moment from which on the exchange could know, in Unix seconds."""


class Accounts(Staff):
    def begin(self) -> None:
        for person in PEOPLE:
            self.scene.deployment.add_user(person.name, person.display)

    def documents(self) -> str:
        return membership()

    def wait(self) -> None:
        """An account can sign in at once."""

    def sign_in(self, person: Person) -> None:
        self.scene.deployment.sign_in(self.scene.machine_of(person), person.name)

    def take_out(self, person: Person) -> float:
        changed = time.time()
        self.scene.deployment.apply(membership(without=person))
        return changed
