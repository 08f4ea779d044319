"""The HTTP side: a page, a JSON API with its description, health and metrics."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from equipoise import __version__
from equipoise.serve.access import Access, problem
from equipoise.serve.draining import Draining
from equipoise.serve.jobs import Job, Options
from equipoise.serve.metrics import CONTENT_TYPE
from equipoise.serve.rates import Rates
from equipoise.serve.schema import ErrorAnswer, HealthAnswer, JobAnswer, ModelAnswer, Question, answer_of
from equipoise.serve.service import Full, Service, describe
from equipoise.serve.upload import BadUpload, Upload, read_upload, too_large

PAGES = Path(__file__).parent / "static"
SCRIPTS = ("app.js", "api.js", "charts.js", "recorder.js", "result.js")
FILES = {"/": "index.html"} | {f"/{name}": name for name in (*SCRIPTS, "style.css")}
LONGEST_WAIT = 60.0

Wait = Annotated[
    float, Query(ge=0, le=LONGEST_WAIT, description="Answer once it is finished, at the latest after so many seconds.")
]
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorAnswer, "description": "The token is missing or wrong."},
    404: {"model": ErrorAnswer, "description": "No such clip, or its result is forgotten."},
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    202: {"model": JobAnswer, "description": "Taken; ask again at `Location`."},
    400: {"model": ErrorAnswer, "description": "The body is no such form."},
    401: _ERRORS[401],
    403: {"model": ErrorAnswer, "description": "Another site's page asks."},
    408: {"model": ErrorAnswer, "description": "The upload is too slow."},
    413: {"model": ErrorAnswer, "description": "The upload is too large."},
    415: {"model": ErrorAnswer, "description": "The file is no audio or video."},
    422: {"model": ErrorAnswer | JobAnswer, "description": "A field is wrong; or, with `wait`, a clip without score."},
    429: {"model": ErrorAnswer, "description": "Too many uploads of this address; see `Retry-After`."},
    503: {"model": ErrorAnswer, "description": "The queue is full; see `Retry-After`."},
}


def create_app(service: Service, *, token: str | None = None, loopback: bool = True) -> FastAPI:
    """The application around a service that is started.

    Args:
        service: what answers.
        token: which every request of the API has to bring; None for none.
        loopback: the server listens on loopback only, and answers under its names only.
    """
    app = FastAPI(
        title="equipoise",
        version=__version__,
        description="Scores of clips. Every error has the same form: `{error: {code, message}}`.",
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
    )
    rates = Rates(service.limits.rate)
    app.add_middleware(Access, token=token, loopback=loopback, metrics=service.metrics)
    app.add_middleware(Draining)
    _tell_errors(app)
    _add_pages(app)

    @app.post(
        "/api/clips",
        tags=["clips"],
        summary="Send a clip, or a text, to be scored",
        status_code=200,
        response_model=JobAnswer,
        responses=_REFUSALS,
        openapi_extra={"requestBody": _body()},
    )
    async def send_clip(request: Request, wait: Wait = 0.0) -> Response:
        seconds = rates.take(request.client.host if request.client else "")
        if seconds:
            return _later(429, "rate", f"At most {service.limits.rate} uploads a minute are taken here.", seconds)
        try:
            with service.place() as keep:
                job = await _job(request, service)
                keep(job)
        except Full:
            return _later(503, "full", "As many clips wait as may. Try again soon.", 5)
        await _settled(job, wait)
        return _answer(job, service, sent=True)

    @app.get(
        "/api/clips/{id}", tags=["clips"], summary="How far a clip is", response_model=JobAnswer, responses=_ERRORS
    )
    async def get_clip(id: str, wait: Wait = 0.0) -> Response:
        job = service.jobs.get(id)
        if job is None:
            return _unknown()
        await _settled(job, wait)
        return _answer(job, service)

    @app.delete("/api/clips/{id}", tags=["clips"], summary="Forget a clip", status_code=204, responses=_ERRORS)
    async def forget_clip(id: str) -> Response:
        return Response(status_code=204) if service.jobs.drop(id) else _unknown()

    @app.get("/api/model", tags=["server"], summary="What is served", responses={401: _ERRORS[401]})
    async def get_model() -> ModelAnswer:
        return ModelAnswer(**describe(service))

    @app.get("/health", tags=["server"], summary="Whether clips are taken")
    async def health() -> HealthAnswer:
        return HealthAnswer(status="ok", queue=service.waiting, confined=service.confined)

    @app.get("/metrics", tags=["server"], summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    return app


async def _job(request: Request, service: Service) -> Job:
    """Read the body and make a job of it; nothing stays behind where that fails."""
    limits = service.limits
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limits.upload_bytes:
        raise too_large(limits.upload_bytes)
    folder = service.scratch.folder()
    try:
        upload = await read_upload(request.stream(), request.headers.get("content-type", ""), folder, limits)
        options = _options(upload, service)
        if upload.path is None:
            service.scratch.remove(folder)
        return Job(upload.name or "text", options, upload.path)
    except BaseException:
        service.scratch.remove(folder)
        raise


def _options(upload: Upload, service: Service) -> Options:
    given = {name: value for name, value in upload.fields.items() if value != ""}
    options = Question(**given).options()
    if upload.path is None and options.text is None:
        raise BadUpload(400, "empty", "Send a clip, a text, or both.")
    try:
        service.check(options)
    except ValueError as error:
        raise BadUpload(422, "field", " ".join(str(error).split())) from None
    return options


async def _settled(job: Job, wait: float) -> None:
    if wait:
        try:
            await asyncio.wait_for(job.finished.wait(), wait)
        except (asyncio.TimeoutError, asyncio.CancelledError):  # cancelled: the server ends, and says how far it came
            return


def _answer(job: Job, service: Service, *, sent: bool = False) -> JSONResponse:
    status = 200
    if sent and job.problem is not None:
        status = job.problem.http
    elif sent and job.scored is None:
        status = 202
    content = answer_of(job, service.position(job))
    return JSONResponse(content, status, headers={"Location": f"/api/clips/{job.id}"} if sent else None)


def _later(status: int, code: str, message: str, seconds: float) -> JSONResponse:
    return problem(status, code, message, [("Retry-After", str(int(seconds) + 1))])


def _unknown() -> JSONResponse:
    return problem(404, "unknown", "There is no such clip, or its result is forgotten.")


def _body() -> dict[str, Any]:
    schema = Question.model_json_schema()
    schema["properties"] = {
        "clip": {"type": "string", "format": "binary", "description": "Audio or video."},
        **schema["properties"],
    }
    schema["title"] = "Upload"
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


def _add_pages(app: FastAPI) -> None:
    def page(name: str) -> Any:
        async def give() -> FileResponse:
            return FileResponse(PAGES / name)

        return give

    for path, name in FILES.items():
        app.add_api_route(path, page(name), include_in_schema=False, response_class=FileResponse)


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(BadUpload)
    async def bad_upload(request: Request, error: BadUpload) -> Response:
        return problem(error.status, error.code, str(error))

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def wrong_field(request: Request, error: RequestValidationError | ValidationError) -> Response:
        return problem(422, "field", "; ".join(_line(each) for each in error.errors()))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, "http", str(error.detail), list((error.headers or {}).items()))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return problem(400, "gone", "The upload broke off.")

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return problem(500, "server", "The server failed at this request.")


def _line(error: Any) -> str:
    where = [str(part) for part in error["loc"] if part not in ("query", "body")]
    message = str(error["msg"]).removeprefix("Value error, ")
    return (f"`{'.'.join(where)}`: {message}" if where else message)[:300]
