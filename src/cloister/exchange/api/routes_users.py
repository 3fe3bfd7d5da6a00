"""People: sign-in, the caller's own account, users, members of groups."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller, source_of
from cloister.exchange.api.schemas import (
    Empty,
    Me,
    PasswordChange,
    PasswordSet,
    RoleChange,
    SignedIn,
    SignIn,
    UserAnswer,
    UserCreate,
)
from cloister.exchange.changes import check_password_form
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.workers import run_in
from cloister.model.documents import Group, User
from cloister.model.reasons import Code
from cloister.trust.passwords import hash_password

CallerIs = Annotated[Caller, Depends(caller)]


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "users")
    _add_sign_in(routes, parts)
    _add_users(routes, parts)
    _add_accounts(routes, parts)
    _add_members(routes, parts)
    return routes.router


def _add_sign_in(routes: Routes, parts: Parts) -> None:
    @routes.add("POST", "/api/v1/sign-in", guard="public", audit="sign_in")
    async def sign_in(form: SignIn, request: Request) -> SignedIn:
        """A local account's password for a token."""
        source = source_of(request)
        user = await parts.enrolment.check_password(form.user, form.password, source)
        account = parts.state.accounts[user]

        def check() -> None:
            if parts.state.accounts.get(user) != account or not parts.state.is_active_principal(user):
                raise Refusal(Code.SIGN_IN_FAILED)

        token, secret = await parts.api_tokens.create(user, source, check)
        parts.devices.signed_in(user, source)
        return SignedIn(token=secret, expires_at=token.expires_at, user=parts.state.name_of(user), role=account.role)

    @routes.add("POST", "/api/v1/sign-out", guard="user", audit="sign_out")
    async def sign_out(who: CallerIs) -> Empty:
        """End the token of this very request."""
        await parts.api_tokens.delete(who.actor, who.token.id)
        return Empty()

    @routes.add("GET", "/api/v1/me", guard="user")
    async def read_me(who: CallerIs) -> Me:
        return Me(user=who.name, role=who.account.role, expires_at=who.token.expires_at)

    @routes.add("PUT", "/api/v1/me/password", guard="user", audit="user.set_password")
    async def change_my_password(form: PasswordChange, who: CallerIs, request: Request) -> Empty:
        """Every token of the account ends with the old password."""
        check_password_form(form.new)
        await parts.enrolment.check_password(who.name, form.old, source_of(request))
        hashed = await run_in(parts.hashing, lambda: hash_password(form.new))
        await parts.changes.set_account(who.actor, who.name, password_hash=hashed)
        return Empty()


def _add_users(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", "/api/v1/users", guard="auditor")
    async def list_users(
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000, after: Annotated[str, Query(max_length=128)] = ""
    ) -> list[UserAnswer]:
        names = sorted(document.name for document in parts.state.parsed.values() if isinstance(document, User))
        return [_user(parts, name) for name in names if name > after][: min(limit, parts.settings.limits.page)]

    @routes.add("POST", "/api/v1/users", guard="admin", audit="user.create", status=201)
    async def create_user(form: UserCreate, who: CallerIs) -> UserAnswer:
        """With a password the user can sign in here; without one, later, when it is set."""
        hashed = None
        if form.password is not None:
            password = form.password
            check_password_form(password)
            hashed = await run_in(parts.hashing, lambda: hash_password(password))
        try:
            user = User(name=form.name, display=form.display, labels=form.labels)
        except ValueError as error:
            raise Refusal(Code.ARGUMENT_INVALID, str(error)) from None
        await parts.changes.create_user(who.actor, user, form.role, hashed)
        return _user(parts, form.name)

    @routes.add("GET", "/api/v1/users/{name}", guard="auditor")
    async def read_user(name: str) -> UserAnswer:
        return _user(parts, name)

    @routes.add("DELETE", "/api/v1/users/{name}", guard="admin", audit="user.delete")
    async def delete_user(name: str, who: CallerIs) -> Empty:
        """The user leaves every group; sessions and tokens end."""
        await parts.changes.delete(who.actor, "user", name)
        return Empty()

    @routes.add("POST", "/api/v1/users/{name}/disable", guard="admin", audit="user.disable")
    async def disable_user(name: str, who: CallerIs) -> UserAnswer:
        """Ends sessions, links and tokens at once."""
        await parts.changes.write(
            who.actor, "user.disable", [_document(parts, name).model_copy(update={"disabled": True})], must_exist=True
        )
        return _user(parts, name)

    @routes.add("POST", "/api/v1/users/{name}/enable", guard="admin", audit="user.enable")
    async def enable_user(name: str, who: CallerIs) -> UserAnswer:
        await parts.changes.write(
            who.actor, "user.enable", [_document(parts, name).model_copy(update={"disabled": False})], must_exist=True
        )
        return _user(parts, name)


def _add_accounts(routes: Routes, parts: Parts) -> None:
    @routes.add("PUT", "/api/v1/users/{name}/password", guard="admin", audit="user.set_password")
    async def set_password(name: str, form: PasswordSet, who: CallerIs) -> Empty:
        check_password_form(form.password)
        _document(parts, name)
        hashed = await run_in(parts.hashing, lambda: hash_password(form.password))
        await parts.changes.set_account(who.actor, name, password_hash=hashed)
        return Empty()

    @routes.add("PUT", "/api/v1/users/{name}/role", guard="admin", audit="user.set_role")
    async def set_role(name: str, form: RoleChange, who: CallerIs) -> UserAnswer:
        """Never one's own (case 82)."""
        if name == who.name:
            raise Refusal(Code.NOT_AUTHORISED, "nobody changes their own role", "ask another administrator")
        await parts.changes.set_account(who.actor, name, role=form.role)
        return _user(parts, name)


def _add_members(routes: Routes, parts: Parts) -> None:
    @routes.add("PUT", "/api/v1/groups/{name}/members/{user}", guard="admin", audit="group.add_member")
    async def add_member(name: str, user: str, who: CallerIs) -> Empty:
        await parts.changes.set_member(who.actor, name, user, member=True)
        return Empty()

    @routes.add("DELETE", "/api/v1/groups/{name}/members/{user}", guard="admin", audit="group.remove_member")
    async def remove_member(name: str, user: str, who: CallerIs) -> Empty:
        await parts.changes.set_member(who.actor, name, user, member=False)
        return Empty()


def _document(parts: Parts, name: str) -> User:
    row = parts.state.find("user", name)
    document = None if row is None else parts.state.parsed[row.id]
    if not isinstance(document, User):
        raise not_found("user", name)
    return document


def _user(parts: Parts, name: str) -> UserAnswer:
    document = _document(parts, name)
    row = parts.state.find("user", name)
    if row is None:
        raise not_found("user", name)
    account = parts.state.accounts.get(row.id)
    groups = sorted(group.name for group in parts.state.parsed.values() if isinstance(group, Group) and name in group.users)
    return UserAnswer(
        id=row.id,
        name=document.name,
        display=document.display,
        labels=dict(document.labels),
        disabled=document.disabled,
        groups=groups,
        role=None if account is None else account.role,
        has_password=account is not None and account.password_hash is not None,
        generation=row.generation,
    )
