"""What all pages have in common: templates, who asks, parts of pages, forms that prove where they come from."""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import jinja2
from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from sked_core.client import outcomes
from sked_core.client.copied.picture import PictureSession
from sked_core.client.notices import noticed
from sked_core.client.session import Session
from sked_core.errors import InvalidValue, NotFound, SkedError
from sked_core.serving.guard import caller
from sked_core.serving.problems import Refused, status_of
from sked_core.serving.tokens import Caller, Role, Tokens
from sked_web import packed
from sked_web.pages import shown
from sked_web.pages.facts import facts_of
from sked_web.pages.sessions import LIFETIME, Sessions, Visitor
from sked_web.pages.sight import Sight, short

COOKIE, THEME, PROOF, PARTS = "sked-page", "sked-theme", "proof", "_part"
LOGIN, STATIC = "/login", "/static/"
THEMES = ("auto", "light", "dark")
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
MENU = (
    ("overview", "/", "Overview", "o"),
    ("services", "/services", "Services", "s"),
    ("tasks", "/tasks", "Tasks", "t"),
    ("hosts", "/hosts", "Hosts", "h"),
    ("topology", "/topology", "Topology", "y"),
    ("events", "/events", "Events", "e"),
    ("plan", "/plan", "Plan", "p"),
    ("state", "/state", "State", "r"),
)
"""Name, address, title, and the key that leads there after ``g``."""
MOST_TOLD = 200
View = Callable[["Ask"], Mapping[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Told:
    """What came of an action: its ``command`` and ``lines``. ``fine``: whether it was done."""

    command: str
    lines: list[str]
    fine: bool
    name: str


@dataclass(slots=True)
class Ask:
    """One request for a page. ``only``: the rows that a part is asked for, all if empty; ``done``: names what came of
    an action."""

    site: Site
    request: Request
    visitor: Visitor
    form: FormData = field(default_factory=FormData)
    notes: list[str] = field(default_factory=list)
    done: str = ""
    _look: PictureSession | None = None

    @property
    def sked(self) -> PictureSession:
        """What is looked at, all along the same."""
        if self._look is None:
            self._look = self.site.look()
        return self._look

    @property
    def sight(self) -> Sight:
        """The same, in rows."""
        return self.site.once(self, "sight", lambda sked: Sight(facts_of(sked.picture), self.site.former("sight")))

    @property
    def position(self) -> str:
        """The same for the event stream: what changes after it has to be shown."""
        picture = self.sked.picture
        return f"{picture.epoch}-{picture.number}"

    @property
    def only(self) -> frozenset[str]:
        return frozenset(self.request.query_params.getlist("_only"))

    def arg(self, name: str, default: str = "") -> str:
        """What the form says, else the address."""
        value = self.form.get(name)
        return value if isinstance(value, str) else self.request.query_params.get(name, default)

    def number(self, name: str, default: int = 0) -> int:
        """Raises InvalidValue for anything but digits."""
        text = self.arg(name) or str(default)
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise InvalidValue(f"{name}: expected a number, got {text!r:.40}")
        return int(text)

    def with_args(self, **changed: object) -> str:
        """The query of the address, with some of it changed."""
        kept = [(name, value) for name, value in self.request.query_params.multi_items() if name[:1] != "_"]
        kept = [(name, value) for name, value in kept if name not in changed and name != "done"]
        return urlencode([*kept, *changed.items()])

    def path(self, name: str) -> str:
        return str(self.request.path_params[name])


class Site:
    """The pages. ``look``: a session to read from; ``act``: one that
    writes, for whoever has this name; ``settle``: waits until what was written can be looked at."""

    def __init__(
        self,
        look: Callable[[], PictureSession],
        act: Callable[[str], Session],
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        self.look, self.act, self._settle = look, act, settle
        self._made: dict[str, tuple[int, Any]] = {}
        self._making: dict[str, threading.Lock] = {}
        self.sessions = Sessions()
        self._lock = threading.Lock()
        self._told: dict[str, Told] = {}
        self.static = {one.name: one.read_bytes() for one in files("sked_web").joinpath("static").iterdir()}
        self.tags = {name: hashlib.sha256(data).hexdigest()[:12] for name, data in self.static.items()}
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("sked_web", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=shown.finalize,
            auto_reload=False,
        )
        self.templates.globals |= {
            "menu": MENU,
            "static": lambda name: f"/static/{name}?v={self.tags[name]}",
            "bar": shown.bar,
            "subject": shown.subject,
            "do": lambda action, **values: f"/do/{action}?{urlencode(values)}",
        }
        self.templates.filters |= {
            "amount": shown.amount,
            "when": shown.when,
            "pretty": shown.pretty,
            "short": short,
            "segment": lambda text: quote(str(text), safe=""),
        }
        self.templates.globals["m"] = self.templates.get_template("macros.html").module

    def once(self, ask: Ask, name: str, make: Callable[[PictureSession], T]) -> T:
        """What ``make`` makes of the state that is looked at, made once for each state."""
        sked, number = ask.sked, ask.sked.picture.number
        with self._making.setdefault(name, threading.Lock()):
            known = self._made.get(name)
            if known is not None and known[0] == number:
                return known[1]  # type: ignore[no-any-return]
            made = make(sked)
            self._made[name] = (number, made)
        return made

    def former(self, name: str) -> Any:
        """What was made by that name of the state before, if anything."""
        known = self._made.get(name)
        return known[1] if known is not None else None

    def settle(self) -> None:
        """Wait a moment for what was written to be seen, so that whoever did it sees it at once."""
        self._settle()

    # --- who asks -------------------------------------------------------------------------------------------------

    def identify(self, scope: Scope) -> Caller | None:
        """For the guard: whose session the cookie names. Raises Refused, with the way to log in, for who asks for a
        page; what everybody may see is let through as somebody who may look."""
        if scope["type"] != "http":
            return None
        request, tokens = Request(scope), tokens_of(scope)
        token = self.sessions.token(self._cookie(request.cookies))
        known = tokens.caller(token) if token and tokens is not None else None
        if known is not None:
            return known
        if request.url.path == LOGIN or request.url.path.startswith(STATIC):
            return Caller("", Role.READ)
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            query = f"?{request.url.query}" if request.url.query else ""
            to = f"{LOGIN}?" + urlencode({"next": request.url.path + query})
            raise Refused(303, "log in first", headers=[("location", to)])
        return None

    def _cookie(self, cookies: Mapping[str, str]) -> str:
        return cookies.get(f"__Host-{COOKIE}") or cookies.get(COOKIE) or ""

    def visitor(self, request: Request) -> Visitor:
        """Who asks."""
        cookie = self._cookie(request.cookies)
        proof = self.sessions.proof(cookie) if cookie else ""
        return Visitor(caller(request.scope), proof, logged_in=self.sessions.token(cookie) is not None)

    def remember(self, request: Request, response: Response, cookie: str) -> None:
        """Have the browser keep ``cookie`` (empty: drop it): no script reads it, no other site's page sends it."""
        secure = request.url.scheme == "https"
        name = f"__Host-{COOKIE}" if secure else COOKIE
        age = int(LIFETIME) if cookie else 0
        response.set_cookie(name, cookie, max_age=age, path="/", secure=secure, httponly=True, samesite="strict")

    def forget(self, request: Request) -> None:
        """End the session of whoever asks."""
        self.sessions.end(self._cookie(request.cookies))

    def proven(self, request: Request, form: FormData) -> bool:
        """Whether the form came from a page of this site that was made for the same visitor."""
        proof, cookie = form.get(PROOF), self._cookie(request.cookies)
        return bool(cookie) and isinstance(proof, str) and self.sessions.proves(cookie, proof)

    # --- answers --------------------------------------------------------------------------------------------------

    def page(self, template: str, view: View, *, name: str = "") -> Callable[[Request], Any]:
        """An endpoint: what ``view`` gives, in ``template``; parts of it where the request names them."""

        async def endpoint(request: Request) -> Response:
            return await run_in_threadpool(self._answer, request, template, view, name)

        return endpoint

    def _answer(self, request: Request, template: str, view: View, name: str) -> Response:
        visitor = self.visitor(request)
        fresh = "" if visitor.proof else secrets.token_urlsafe(32)
        if fresh:
            visitor = Visitor(visitor.caller, self.sessions.proof(fresh), visitor.logged_in)
        ask = Ask(self, request, visitor)
        response = self.answer(ask, template, view, name=name)
        if fresh:
            self.remember(request, response, fresh)
        return response

    def answer(self, ask: Ask, template: str, view: View, *, name: str = "", status: int = 200) -> Response:
        """The page of ``view``, or one that says why there is none."""
        try:
            with noticed(ask.notes.append):
                context = dict(view(ask))
                return self._html(ask, template, context, name, status)
        except SkedError as error:
            if isinstance(error, NotFound) and PARTS in ask.request.query_params:
                gone = Markup('<p data-gone="">{}</p>').format(shown.finalize(str(error)))
                return HTMLResponse(gone, headers=HEADERS)
            trouble = {"error": error, "hints": outcomes.hints_of(error)}
            return self._html(ask, "trouble.html", trouble, name, status_of(error))

    def _html(self, ask: Ask, template: str, context: dict[str, Any], name: str, status: int) -> Response:
        theme = ask.request.cookies.get(THEME, "")
        done = self._told.get(ask.done or ask.arg("done"))
        context |= {
            "ask": ask,
            "visitor": ask.visitor,
            "here": ask.request.url.path + (f"?{ask.request.url.query}" if ask.request.url.query else ""),
            "path": ask.request.url.path,
            "current": name,
            "theme": theme if theme in THEMES else "auto",
            "told": done if done is not None and done.name == ask.visitor.name else None,
            "notes": ask.notes,
        }
        found = self.templates.get_template(template)
        parts = ask.request.query_params.getlist(PARTS)
        if not parts:
            return _whole(ask.request, HTMLResponse(found.render(context), status, headers=HEADERS))
        known = found.new_context(context)
        wanted = [part for part in parts if f"part_{part}" in known.blocks]
        texts = ("".join(known.blocks[f"part_{part}"][0](known)) for part in wanted)
        return HTMLResponse("\n".join(texts), status, headers=HEADERS)

    def tell(self, told: Told) -> str:
        """Keep ``told`` until a page shows it; returns its name."""
        number = secrets.token_hex(8)
        with self._lock:
            while len(self._told) >= MOST_TOLD:
                self._told.pop(next(iter(self._told)))
            self._told[number] = told
        return number


def _whole(request: Request, page: HTMLResponse) -> HTMLResponse:
    """``page``, packed where its browser takes that and nothing of the address stands in it (see sked_web.packed)."""
    plain = page.status_code != 200 or request.path_params or request.url.query or request.method != "GET"
    body = bytes(page.body)
    if plain or len(body) < packed.LEAST_BYTES or not packed.takes_gzip(request.headers):
        return page
    return HTMLResponse(packed.packed(body), headers={**HEADERS, **packed.HEADERS})


def tokens_of(scope: Scope) -> Tokens | None:
    """Those that callers of this listener need; None where none is."""
    found: Tokens | None = scope["state"]["listener"].tokens
    return found


def local(address: str) -> str:
    """``address`` if it leads to this site, else the overview."""
    safe = address.startswith("/") and not address.startswith("//") and "\\" not in address and address.isprintable()
    return address if safe else "/"


def back_to(address: str, done: str) -> str:
    """``address`` with the outcome of what was done."""
    path, _, query = local(address).partition("?")
    rest = [part for part in query.split("&") if part and not part.startswith("done=")]
    return f"{path}?{'&'.join([*rest, f'done={done}'])}"
