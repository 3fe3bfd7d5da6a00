"""Directories for administrators: made, given a new token, ended, listed."""

from typing import Annotated

from fastapi import APIRouter, Depends

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller
from cloister.exchange.api.schemas import DirectoryAnswer, DirectoryCreate, DirectoryToken, Empty
from cloister.store.types import Directory

CallerIs = Annotated[Caller, Depends(caller)]


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "directories")

    @routes.add("GET", "/api/v1/directories", guard="auditor")
    async def list_directories() -> list[DirectoryAnswer]:
        return [DirectoryAnswer(**_directory(parts, directory)) for directory in parts.directories.list()]

    @routes.add("POST", "/api/v1/directories", guard="admin", audit="directory.create", status=201)
    async def create_directory(form: DirectoryCreate, who: CallerIs) -> DirectoryToken:
        """`token` is shown in this answer and never again."""
        directory, token = await parts.directories.create(who.actor, form.name, form.issuer, form.subject)
        return DirectoryToken(**_directory(parts, directory), token=token)

    @routes.add("POST", "/api/v1/directories/{name}/rotate", guard="admin", audit="directory.rotate")
    async def rotate_directory(name: str, who: CallerIs) -> DirectoryToken:
        """A new token; the old one ends at once. A revoked directory is in use again."""
        directory, token = await parts.directories.rotate(who.actor, name)
        return DirectoryToken(**_directory(parts, directory), token=token)

    @routes.add("POST", "/api/v1/directories/{name}/revoke", guard="admin", audit="directory.revoke")
    async def revoke_directory(name: str, who: CallerIs) -> Empty:
        """The token ends at once; users and groups stay as they are."""
        await parts.directories.revoke(who.actor, name)
        return Empty()

    return routes.router


def _directory(parts: Parts, directory: Directory) -> dict[str, object]:
    book = parts.state.directories
    return {
        "id": directory.id,
        "name": directory.name,
        "issuer": directory.issuer,
        "subject": directory.subject,
        "users": book.count(directory.id, "User"),
        "groups": book.count(directory.id, "Group"),
        "created_at": directory.created_at,
        "created_by": directory.created_by,
        "rotated_at": directory.rotated_at,
        "revoked_at": directory.revoked_at,
    }
