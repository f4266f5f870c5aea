"""The addresses of the pages."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from sked_core.client import outcomes
from sked_core.client.notices import noticed
from sked_core.errors import Denied, NotFound, SkedError
from sked_core.serving.problems import Refused
from sked_web import packed
from sked_web.pages import looks, one, plans, records
from sked_web.pages.actions import ACTIONS, Action
from sked_web.pages.logs import Follower
from sked_web.pages.sessions import LIFETIME
from sked_web.pages.site import HEADERS, LOGIN, THEME, THEMES, Ask, Site, Told, back_to, local, tokens_of
from sked_web.state import State

API = "/v1/"
"""Where what is asked is for programs."""


def site_of(state: State) -> Site:
    """The pages over the copy that the API answers from as well."""
    return Site(state.seen, state.session, state.changed)


def routes(site: Site) -> list[Route]:
    """All pages of ``site``."""
    found = [
        Route("/", site.page("overview.html", looks.home, name="overview")),
        Route("/services", site.page("services.html", looks.services, name="services")),
        Route("/tasks", site.page("tasks.html", looks.tasks, name="tasks")),
        Route("/tasks/{task}", site.page("task.html", one.task, name="tasks")),
        Route("/hosts", site.page("hosts.html", looks.hosts, name="hosts")),
        Route("/hosts/{host}", site.page("host.html", one.host, name="hosts")),
        Route("/topology", site.page("topology.html", looks.topology, name="topology")),
        Route("/events", site.page("events.html", looks.events, name="events")),
        Route("/state", site.page("state.html", records.state, name="state")),
        Route("/state/service/{service}", site.page("sides.html", records.of_service, name="state")),
        Route("/state/task/{task}", site.page("sides.html", records.of_task, name="state")),
        Route("/plan", site.page("plan.html", plans.blank, name="plan"), methods=["GET"]),
        Route("/help", site.page("help.html", looks.help_)),
        Route("/do/{action}", site.page("do.html", asked), methods=["GET"]),
    ]
    found += [
        Route(f"/services/{{service}}{tail}", site.page(template, view, name="services"))
        for tail, (template, view) in one.SERVICE_TABS.items()
    ]
    hand = Hand(site)
    return [
        *found,
        Route("/search", hand.search),
        Route("/logs/{name}", Follower(site).follow),
        Route("/plan", hand.plan, methods=["POST"]),
        Route("/do/{action}", hand.do, methods=["POST"]),
        Route("/login", hand.login_form, methods=["GET"]),
        Route("/login", hand.login, methods=["POST"]),
        Route("/logout", hand.logout, methods=["POST"]),
        Route("/theme", hand.theme, methods=["POST"]),
        Route("/static/{name}", hand.static),
    ]


def tell_of_failures(app: Starlette, site: Site) -> None:
    """Whoever asks for a page is told on one what goes wrong; programs, and all who ask the API, get a problem."""
    for kind, tell in list(app.exception_handlers.items()):
        app.add_exception_handler(kind, partial(_failed, site, tell))


async def _failed(site: Site, tell: Any, request: Request, error: Exception) -> Response:
    problem: Response = await tell(request, error)
    if request.url.path.startswith(API) or "text/html" not in request.headers.get("accept", ""):
        return problem
    said = msgspec.json.decode(problem.body)
    view = _raising(Refused(said["status"], said["detail"], hint=said["hint"]))
    response: Response = await site.page("trouble.html", view)(request)
    for name, value in problem.headers.items():
        if not name.startswith("content-"):
            response.headers.setdefault(name, value)
    return response


def _action(ask: Ask) -> Action:
    name = ask.path("action")
    action = ACTIONS.get(name)
    if action is None:
        raise NotFound(f"nothing is done by the name of {name!r:.40}")
    if not ask.visitor.may(action.role):
        raise Denied(
            f"{action.title.lower()} takes the role {action.role}; yours is {ask.visitor.caller.role.word}",
            hint="log in with a token of that role",
        )
    return action


def asked(ask: Ask) -> Mapping[str, Any]:
    """What an action would do, as a command; and the form that does it."""
    action = _action(ask)
    values = {name: ask.arg(name) for name in action.names}
    lines, blocked = action.ahead(ask, values)
    return {
        "action": action,
        "object": values.get(action.object, ""),
        "fixed": {name: value for name, value in values.items() if name in (action.object, *action.fixed)},
        "values": values,
        "lines": lines,
        "blocked": blocked,
        "command": action.command(values),
        "back": local(ask.arg("back") or _came_from(ask.request)),
    }


def _came_from(request: Request) -> str:
    """The page whose link was followed, as browsers say of themselves; the overview where they don't."""
    try:
        parts = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return "/"
    if parts.netloc != request.headers.get("host") or parts.path.startswith(("/do/", LOGIN)):
        return "/"
    return parts.path + (f"?{parts.query}" if parts.query else "")


class Hand:
    """What is sent to ``site``, not only looked at."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def _sent(self, request: Request) -> Ask | Response:
        """A form of somebody who may send it, or the answer if it is not."""
        form = await request.form()
        ask = Ask(self._site, request, self._site.visitor(request), form)
        if self._site.proven(request, form):
            return ask

        def refuse(_: Ask) -> Mapping[str, Any]:
            raise Denied("this form is not from a page that was made for you", hint="open the page anew, and try again")

        return await run_in_threadpool(self._site.answer, ask, "trouble.html", refuse)

    async def plan(self, request: Request) -> Response:
        ask = await self._sent(request)
        if isinstance(ask, Response):
            return ask
        return await run_in_threadpool(self._site.answer, ask, "plan.html", plans.plan, name="plan")

    async def do(self, request: Request) -> Response:
        ask = await self._sent(request)
        return ask if isinstance(ask, Response) else await run_in_threadpool(self._do, ask)

    def _do(self, ask: Ask) -> Response:
        try:
            action = _action(ask)
        except SkedError as error:
            return self._site.answer(ask, "trouble.html", _raising(error))
        values = {name: ask.arg(name) for name in action.names}
        told: list[str] = []
        try:
            with noticed(told.append):
                lines = action.run(self._site.act(ask.visitor.name), values)
            said = Told(action.command(values), [*lines, *told], True, ask.visitor.name)
        except SkedError as error:
            lines = [*str(error).splitlines(), *outcomes.hints_of(error), *told]
            said = Told(action.command(values), lines, False, ask.visitor.name)
            if action.name == "apply":  # what was typed is not to be lost, and what would happen now is to be seen
                ask.done = self._site.tell(said)
                return self._site.answer(ask, "plan.html", plans.plan, name="plan")
        self._site.settle()
        return RedirectResponse(back_to(ask.arg("back"), self._site.tell(said)), 303, headers=HEADERS)

    async def search(self, request: Request) -> Response:
        return await run_in_threadpool(self._search, request)

    def _search(self, request: Request) -> Response:
        ask = Ask(self._site, request, self._site.visitor(request))
        try:
            found = looks.found_by_name(ask, ask.arg("q").strip())
        except SkedError as error:
            return self._site.answer(ask, "trouble.html", _raising(error))
        exact = [item for item in found if item[1] == ask.arg("q").strip()]
        if len(exact) == 1 or len(found) == 1:
            kind, name = (exact or found)[0]
            return RedirectResponse(f"/{kind}s/{name}", 303, headers=HEADERS)
        return self._site.answer(ask, "search.html", looks.search)

    async def login_form(self, request: Request) -> Response:
        return self._login_page(request, local(request.query_params.get("next", "/")))

    def _login_page(self, request: Request, to: str, wrong: str = "") -> Response:
        theme = request.cookies.get(THEME, "")
        context = {
            "next": to,
            "wrong": wrong,
            "theme": theme if theme in THEMES else "auto",
            "hours": int(LIFETIME // 3600),
        }
        text = self._site.templates.get_template("login.html").render(context)
        return Response(text, 403 if wrong else 200, headers=HEADERS, media_type="text/html")

    async def login(self, request: Request) -> Response:
        form = await request.form()
        token, to = form.get("token"), form.get("next")
        to = local(to) if isinstance(to, str) else "/"
        known = tokens_of(request.scope)
        if known is None:
            return RedirectResponse(to, 303, headers=HEADERS)
        if not isinstance(token, str) or known.caller(token.strip()) is None:
            return self._login_page(request, to, "This is none of the tokens of this server.")
        response = RedirectResponse(to, 303, headers=HEADERS)
        self._site.remember(request, response, self._site.sessions.begin(token.strip()))
        return response

    async def logout(self, request: Request) -> Response:
        ask = await self._sent(request)
        if isinstance(ask, Response):
            return ask
        self._site.forget(request)
        response = RedirectResponse("/login", 303, headers=HEADERS)
        self._site.remember(request, response, "")
        return response

    async def theme(self, request: Request) -> Response:
        ask = await self._sent(request)
        if isinstance(ask, Response):
            return ask
        chosen = ask.arg("theme")
        response = RedirectResponse(local(ask.arg("next")), 303, headers=HEADERS)
        if chosen in THEMES:
            secure = request.url.scheme == "https"
            response.set_cookie(
                THEME, chosen, max_age=365 * 86400, httponly=True, samesite="strict", secure=secure, path="/"
            )
        return response

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        data = self._site.static.get(name)
        if data is None:
            return Response("not found", 404, headers=HEADERS)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        current = request.query_params.get("v") == self._site.tags[name]
        caching = "public, max-age=31536000, immutable" if current else "no-cache"
        headers = {**HEADERS, "cache-control": caching}
        if kind.startswith("text/") and packed.takes_gzip(request.headers):
            return Response(packed.packed(data), headers=headers | packed.HEADERS, media_type=kind)
        return Response(data, headers=headers | packed.VARY, media_type=kind)


def _raising(error: SkedError) -> Any:
    def view(_: Ask) -> Mapping[str, Any]:
        raise error

    return view
