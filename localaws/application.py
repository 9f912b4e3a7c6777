"""The WSGI application: moto's services with localaws' additions, and localaws' own pages."""

import io
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, cast
from urllib.parse import parse_qsl

from flask import Flask
from moto.core.config import default_user_config
from moto.core.request import Request
from moto.moto_server import werkzeug_app
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    create_backend_app,
)
from moto.sqs.models import Queue
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Response

from localaws import (
    additions,
    blobs,
    bodies,
    changes,
    deletions,
    gate,
    inventory,
    operations,
    regions,
    state,
    turnstile,
)
from localaws.calls import CALL, Call, form_of, identify, page_refusal, refusal
from localaws.execution import everywhere
from localaws.iam import authentication, authorization
from localaws.iam.authorization import Caller
from localaws.iam.signature import AuthenticationError
from localaws.incoming import Incoming, RefusedError
from localaws.instances import Instances
from localaws.jobs.training import TrainingJobs
from localaws.turnstile import Turnstile
from localaws.weather import Weather

OWN = "/_localaws/"
"""Where localaws' own pages are."""

# moto's own pages: they show, seed and empty the account for whoever asks.
_MOTOS_OWN = ("/moto-api", "/latest/meta-data/", "/latest/api/", "/favicon.ico")
_READ_BODY_BYTES = 1 << 20
_FORM = "application/x-www-form-urlencoded"
_KEPT_ANSWERS = 256
_SAVED_SECONDS = 0.8
_WEATHERS = (
    "kind is fair, rough or storm, seed a number; next is throttled, failed, cut or lost, "
    "call such as s3:DeleteBucket"
)
_STRUCTURED = re.compile(r"application/(cbor|json|x-amz-json|x-www-form-urlencoded)")


class _UnknownError(Exception):
    """moto has no answer to a request."""


class _Dispatcher(DomainDispatcherApplication):
    """moto's services, of which each says by an exception what it has no answer to."""

    def __init__(self) -> None:
        super().__init__(_service_app)
        self._backends: dict[str | None, Any] = {}

    def get_backend_for_host(self, host: str | None) -> Any:
        # moto lists its own folders for each request.
        if host not in self._backends:
            backend = super().get_backend_for_host(host)
            if host and not backend:
                raise _UnknownError
            self._backends[host] = backend
        return self._backends[host]


def _service_app(service: Any) -> Flask:
    def unrouted(_: object) -> NoReturn:
        raise _UnknownError

    app: Any = create_backend_app(service)
    app.raise_routing_exception = unrouted
    return cast(Flask, app)


class Application:
    """The WSGI application: AWS's services and, under /_localaws/, localaws' own pages."""

    def __init__(
        self,
        state_file: Path,
        calls: Path | None = None,
        *,
        enforce_iam: bool = False,
        weather: Weather | None = None,
    ) -> None:
        """Make the application; moto's backends may already hold a restored state.

        Args:
            state_file: Where the state is saved.
            calls: File to which each call is appended as a line of JSON.
            enforce_iam: Whether what the caller's policies do not allow is denied.
            weather: What goes wrong now and then; fair if None.
        """
        self._weather = weather or Weather()
        self._state_file = state_file
        self._enforces_iam = enforce_iam
        authorization.enforce(enforce_iam)
        self._calls = calls.open("ab", buffering=0) if calls else None
        self._moto = _Dispatcher()
        self._turnstile = Turnstile()
        self._saver = state.Saver(state_file, blobs.store())
        self._saving = threading.Lock()
        self._answers: dict[tuple[str, str], tuple[bytes, str, Any]] = {}

    def changing(self) -> AbstractContextManager[None]:
        """Around changes of moto's objects that no request makes: none while they are saved."""
        return self._turnstile.inside()

    def health(self) -> dict[str, object]:
        """What `GET /_localaws/health` tells; `state` is the folder that it is up for."""
        return {
            "version": version("kennel"),
            "moto": version("moto"),
            "pid": os.getpid(),
            "state": str(self._state_file.parent.resolve()),
            "services": sorted({gap.service for gap in additions.gaps()}),
        }

    def save(self) -> None:
        """Save what was touched since the state was saved.

        Raises:
            state.StateError: It could not be written.
        """
        with self._saving:
            touched: set[type] = set()
            try:
                with self._turnstile.closed():
                    if touched := changes.take():
                        self._saver.take(touched)
                # Packing and writing hold up nobody.
                self._saver.write()
            except state.StateError:
                for service in touched:
                    changes.touch(service)
                raise

    def save_until(self, ended: threading.Event) -> None:
        """Save what is answered within the second, until `ended` is set."""
        complaint, took = "", 0.0
        # What is answered just after a save began is written by the next. Where very much is
        # held, half of the time is left for requests.
        while not ended.wait(max(_SAVED_SECONDS - 2 * took, took)):
            began = time.monotonic()
            try:
                self.save()
            except state.StateError as error:
                # The disk may have room again; one line is enough until then.
                if complaint != str(error):
                    print(f"error: {error}", file=sys.stderr, flush=True)
                complaint = str(error)
            took = time.monotonic() - began

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        path = environ["PATH_INFO"]
        if why := gate.stranger(environ["RAW_URI"], environ[authentication.HEADERS]):
            return _stranger(environ, why)(environ, start_response)
        if why := gate.bad_length(environ[authentication.HEADERS]):
            return _json({"error": why}, 400)(environ, start_response)
        if path.startswith(_MOTOS_OWN):
            closed = {"error": f"localaws keeps moto's own pages closed, such as {path[:40]}"}
            return _json(closed, 403)(environ, start_response)
        if path.startswith(OWN):
            return self._own(environ)(environ, start_response)
        head = {**environ}
        incoming = Incoming(environ, lambda: identify(_request(head, b""), {}))
        environ["wsgi.input"] = incoming
        with self._turnstile.inside():
            try:
                return self._aws(environ, start_response, incoming)
            except RefusedError as error:
                return error.answer(environ, start_response)

    def _own(self, environ: dict[str, Any]) -> Response:
        page = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(OWN)
        if page == ("GET", "health"):
            return _json(self.health())
        if page == ("GET", "inventory"):
            return _json(inventory.resources())
        if page == ("POST", "save"):
            try:
                self.save()
            except state.StateError as error:
                return _json({"error": str(error)}, 500)
            return _json({"saved": str(self._state_file)})
        given = dict(parse_qsl(environ["QUERY_STRING"]))
        if page == ("POST", "interrupt"):
            return _interrupt(given)
        if page == ("POST", "weather"):
            try:
                if "next" in given:
                    self._weather.expect(given["next"], given["call"])
                else:
                    self._weather.change(given["kind"], int(given.get("seed", "0")))
            except (KeyError, ValueError):
                return _json({"error": _WEATHERS}, 400)
        if page[1] == "weather":
            return _json(self._weather.told())
        known = (
            "GET health, GET inventory, GET weather, POST save, POST interrupt?job=, "
            "POST interrupt?instance=, POST weather?kind=&seed=, POST weather?next=&call="
        )
        return _json({"error": f"localaws has {known}"}, 404)

    def _aws(
        self, environ: dict[str, Any], start_response: Any, incoming: Incoming
    ) -> Iterable[bytes]:
        form = _read_form(environ)
        # Each reader of the request has a stream of its own.
        call = identify(_request(environ, form), form_of(environ.get("CONTENT_TYPE", ""), form))
        principal = ""
        told: Mapping[str, Any] = {}
        # SDKs repeat a call whose answer was lost under the same id. What it did is done: a second
        # time it would be refused.
        # In bad weather nothing is made up for: AWS does not know these ids.
        is_kept = self._weather.is_fair and _STRUCTURED.match(environ.get("CONTENT_TYPE", ""))
        invocation = environ.get("HTTP_AMZ_SDK_INVOCATION_ID", "") if is_kept else ""
        try:
            if post := authentication.posted(call, environ):
                call = post.call
            caller = authentication.authenticate(call, environ, post)
            region = authentication.region_of(call)
        except AuthenticationError as error:
            refused = authentication.refuse(call, error)
            chunks, status, headers = run_wsgi_app(refused, environ)
        else:
            principal = caller.name
            _take(environ, incoming)
            environ[CALL] = call
            try:
                # Who signs nothing is told first that it may not.
                told = (bodies.read if call.access_key else bodies.glance)(call, Request(environ))
            except bodies.RefusedError as error:
                chunks, status, headers = run_wsgi_app(error.answer, environ)
            else:
                if kept := self._answers.get((call.access_key, invocation)):
                    start_response(kept[1], list(kept[2]))
                    return [kept[0]]
                environ["wsgi.input"].seek(0)
                # Who signs nothing may do what IAM allows everybody, enforced or not.
                asks = caller if self._enforces_iam or not caller.principal else None
                ask = partial(self._answer, call, asks, environ, told)
                with regions.within(region):
                    chunks, status, headers = self._weather.around(
                        environ, call, principal, told, ask
                    )
        if self._calls:
            _log(self._calls, call, principal, int(status[:3]), told)
        start_response(status, list(headers))
        if invocation and int(status[:3]) < 300:
            answer = b"".join(chunks)
            self._keep((call.access_key, invocation), (answer, status, headers))
            return [answer]
        return chunks

    def _keep(self, invocation: tuple[str, str], answer: tuple[bytes, str, Any]) -> None:
        self._answers[invocation] = answer
        for oldest in list(self._answers)[:-_KEPT_ANSWERS]:
            self._answers.pop(oldest, None)

    def _answer(
        self, call: Call, asks: Caller | None, environ: dict[str, Any], told: Mapping[str, Any]
    ) -> tuple[Iterable[bytes], str, Any]:
        """The answer to a call; `asks` is who has to be allowed to make it, if anybody has."""
        try:
            if why := operations.refusal(call.service, call.operation):
                raise operations.RefusedError(why)
            if why is not None:
                raise _UnknownError
            if asks:
                return self._authorized_answer(call, asks, environ, told)
            return self._motos_answer(environ)
        except operations.RefusedError as error:
            why = f"localaws does not execute {call}: {error}"
            answer = refusal(call, 501, "NotImplemented", why)
        except (_UnknownError, NotImplementedError):
            answer = refusal(
                call,
                501,
                "NotImplemented",
                f"localaws does not know {call}: it has to be added in {call.module}",
            )
        except Exception as error:
            # moto's own paging, and that of the additions, stumbles over a token of another's.
            is_about_value = isinstance(error, LookupError | TypeError | ValueError)
            if is_about_value and (bad := page_refusal(call, told)):
                return run_wsgi_app(bad, environ)
            traceback.print_exc()
            cause = f"{type(error).__name__}: {error}".splitlines()[0]
            answer = refusal(
                call, 500, "InternalFailure", f"localaws failed in {call}: {cause}; see its log"
            )
        return run_wsgi_app(answer, environ)

    def _authorized_answer(
        self, call: Call, caller: Caller, environ: dict[str, Any], told: Mapping[str, Any]
    ) -> tuple[Iterable[bytes], str, Any]:
        if denial := authorization.refuse(call, caller, told):
            return run_wsgi_app(denial, environ)
        if denied := authorization.denied_objects(call, caller, told):
            return self._deletion(environ, told["Delete"], denied)
        chunks, status, headers = self._motos_answer(environ)
        if status.startswith("404") and authorization.hides_absence(call, caller):
            return run_wsgi_app(authorization.denied_absence(call), environ)
        return chunks, status, headers

    def _deletion(
        self, environ: dict[str, Any], delete: Mapping[str, Any], denied: Mapping[str, str]
    ) -> tuple[Iterable[bytes], str, Any]:
        """Delete what is not denied, and tell both."""
        told = b""
        if body := deletions.remaining(delete, denied):
            changed = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
            chunks, status, headers = self._motos_answer({**environ, **changed})
            told = b"".join(chunks)
            if not status.startswith("200"):
                return [told], status, headers
        answer = Response(deletions.with_errors(told, denied), mimetype="application/xml")
        return run_wsgi_app(answer, environ)

    def _motos_answer(self, environ: dict[str, Any]) -> tuple[Iterable[bytes], str, Any]:
        chunks, status, headers = run_wsgi_app(self._moto, environ)
        # moto's way to say that no operation fits the path; S3 answers HEAD so by rights.
        if status.startswith("404") and environ["REQUEST_METHOD"] != "HEAD":
            chunks = [b"".join(chunks)]
            if not chunks[0]:
                raise _UnknownError
        return chunks, status, headers


def _log(log: BinaryIO, call: Call, principal: str, status: int, told: Mapping[str, Any]) -> None:
    line = {
        "time": time.time(),
        "service": call.service,
        "operation": call.operation,
        "status": status,
        "access_key": call.access_key,
        "principal": principal,
        "region": call.region,
        "parameters": told,
    }
    text = json.dumps(line, default=lambda value: f"<{type(value).__name__}>")
    # One unbuffered write each, so that the lines of several threads do not mix. What was asked is
    # done: a full disk must not turn it into a failure.
    with suppress(OSError):
        log.write(text.encode() + b"\n")


def _stranger(environ: dict[str, Any], why: str) -> Response:
    if environ["PATH_INFO"].startswith((OWN, *_MOTOS_OWN)):
        return _json({"error": why}, 403)
    return refusal(identify(_request(environ, b""), {}), 403, "AccessDenied", why)


def _interrupt(named: Mapping[str, str]) -> Response:
    """Take the spot instances of a training job, or a spot instance of EC2, away."""
    if name := named.get("instance"):
        if any(instances.interrupt(name) for instances in everywhere(Instances)):
            return _json({"interrupted": name})
        return _json({"error": f"there is no spot instance {name} that runs now"}, 404)
    job = named.get("job", "")
    if any(jobs.interrupt(job) for jobs in everywhere(TrainingJobs)):
        return _json({"interrupted": job})
    return _json({"error": f"there is no job {job} that trains on spot instances now"}, 404)


def _json(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content) + "\n", status, mimetype="application/json")


def _read_form(environ: dict[str, Any]) -> bytes:
    """The body of a request that is a form; it is there again for who comes next."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if not environ.get("CONTENT_TYPE", "").startswith(_FORM) or not 0 < length <= _READ_BODY_BYTES:
        return b""
    body: bytes = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _take(environ: dict[str, Any], incoming: Incoming) -> None:
    """Have the body received, unless who asked for the signature has it already."""
    if environ["wsgi.input"] is incoming:
        environ["wsgi.input"] = incoming.received()
        environ["CONTENT_LENGTH"] = str(incoming.length)


def _request(environ: dict[str, Any], body: bytes) -> Request:
    return Request({**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})


def configure() -> None:
    """Make moto's classes what localaws serves; once in a process, before a server is made."""
    # Neither function code nor batch jobs run in containers here.
    default_user_config["lambda"] = {"use_docker": False}
    default_user_config["batch"] = {"use_docker": False}
    # moto would invite the pages of all web sites that are open in a browser here.
    settings: Any = werkzeug_app
    settings.DISABLE_GLOBAL_CORS = True
    inventory.remember_beginnings()
    additions.install()
    blobs.install()
    turnstile.wait_outside(Queue, "wait_for_messages")
