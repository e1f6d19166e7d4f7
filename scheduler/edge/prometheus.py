"""Range queries to Prometheus with limits on time and size, several at once.

prometheus-api-client speaks the protocol; this file bounds it. The library's
time limit holds between two received bytes only and it loads answers of any
size, so the session reads the body itself, with a deadline and a limit, and
nobody waits longer than that for an answer whose head does not end.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from threading import local
from typing import Any, TypeVar

import msgspec
import numpy as np
import requests
from prometheus_api_client import PrometheusConnect
from prometheus_api_client.exceptions import PrometheusApiClientException
from urllib3 import Retry
from urllib3.exceptions import HTTPError, NewConnectionError
from urllib3.exceptions import TimeoutError as LowerTimeout

from model.snapshot import Floats
from scheduler.config import PrometheusSettings
from scheduler.edge.node_mapping import Labels
from scheduler.edge.series import Block
from scheduler.settings_text import ConfigError, read_secret

_CHUNK_BYTES = 1 << 16
_TIME_S_MAX = 1e11
"""No clock in seconds tells more: that is the year 5138."""

_Found = TypeVar("_Found")


class PrometheusError(Exception):
    """A query got no usable answer; the message is a sentence for the operator."""


@dataclass(frozen=True, slots=True)
class GridQuery:
    """PromQL evaluated at `steps` instants, `step_s` apart, the last one being now."""

    promql: str
    step_s: int
    steps: int


@dataclass(frozen=True)
class Answer:
    """The series of one query on its grid; `rejected` series were not readable and are left out."""

    labels: Sequence[Labels]
    block: Block
    rejected: int = 0


class PrometheusReader:
    """Asks one Prometheus. Use as a context manager, or call `close`."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        self._pool = ThreadPoolExecutor(settings.parallel, thread_name_prefix="prometheus")
        self._of_thread = local()
        self._headers: dict[str, str] = dict(settings.headers)

    def __enter__(self) -> PrometheusReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let queries in flight end by their own time limit; start no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def server_time_s(self) -> float:
        """Prometheus' own clock, unix seconds: ages are differences to it, whatever our clock says."""
        self._headers = self._fresh_headers()
        asked = self._pool.submit(self._ask, lambda client: client.custom_query("time()"))
        result = self._awaited(asked, self._patience_s(1))
        try:
            _, now_s = msgspec.json.decode(result, type=tuple[float, float], strict=False)
        except msgspec.MsgspecError as error:
            raise PrometheusError(f"time() was answered by {_shortened(bytes(result))}") from error
        if not 0 < now_s < _TIME_S_MAX:
            raise PrometheusError(f"time() was answered by {now_s}")
        return now_s

    def read(
        self, queries: Sequence[GridQuery], now_s: float
    ) -> Mapping[GridQuery, Answer | PrometheusError]:
        """The answer, or what went wrong, of every query; one that fails does not touch the others.

        The last step of every grid is `now_s`, to the millisecond.
        """
        last_s = math.floor(now_s * 1000.0) / 1000.0
        asked = {query: self._pool.submit(self._read_one, query, last_s) for query in queries}
        until_s = time.monotonic() + self._patience_s(len(queries))
        return {query: self._awaited_or_why(one, until_s - time.monotonic()) for query, one in asked.items()}

    def _patience_s(self, queries: int) -> float:
        """How long so many queries take at most, each its limit to be answered and its limit to be read."""
        return 2 * self._settings.timeout_s * math.ceil(queries / self._settings.parallel)

    def _awaited_or_why(
        self, asked: Future[Answer | PrometheusError], within_s: float
    ) -> Answer | PrometheusError:
        try:
            return self._awaited(asked, within_s)
        except PrometheusError as error:
            return error

    def _awaited(self, asked: Future[_Found], within_s: float) -> _Found:
        """Limits of requests hold between two bytes: a head that comes drop by drop is not waited for."""
        try:
            return asked.result(max(within_s, 0.0))
        except TimeoutError as error:
            asked.cancel()
            raise PrometheusError(f"no answer within {self._settings.timeout_s:g} s") from error

    def _read_one(self, query: GridQuery, last_s: float) -> Answer | PrometheusError:
        start_s = last_s - (query.steps - 1) * query.step_s
        start, end = (datetime.fromtimestamp(t, UTC) for t in (start_s, last_s))
        # the library rounds to whole seconds, which would make every reading half a second older
        exact = {"start": start_s, "end": last_s, "timeout": self._server_limit()}
        try:
            result = self._ask(
                lambda client: client.custom_query_range(
                    query.promql, start, end, str(query.step_s), params=exact
                )
            )
            return _parsed(result, start_s, query)
        except PrometheusError as error:
            return error

    def _ask(self, call: Any) -> msgspec.Raw:
        try:
            answer: msgspec.Raw = call(self._client())
            return answer
        except (requests.RequestException, HTTPError, OSError) as error:
            if _is_timeout(error):
                raise PrometheusError(f"no answer within {self._settings.timeout_s:g} s") from error
            raise PrometheusError(f"cannot be reached: {_root_cause(error)}") from error
        except PrometheusApiClientException as error:
            raise PrometheusError(f"answered an error: {_shortened(error)}") from error
        except (msgspec.MsgspecError, RecursionError) as error:
            raise PrometheusError(f"answered something that is not Prometheus JSON ({error})") from error

    def _client(self) -> Any:
        """One client per thread: a requests session is not made for sharing."""
        client = getattr(self._of_thread, "client", None)
        if client is None:
            session = _BoundedSession(self._settings)
            client = PrometheusConnect(
                url=self._settings.url.rstrip("/"),
                session=session,
                retry=Retry(total=0),  # the next poll is the retry
                timeout=self._settings.timeout_s,
            )
            self._of_thread.client = client
        client.headers = self._headers
        client.auth = self._basic()
        return client

    def _fresh_headers(self) -> dict[str, str]:
        token = _secret(self._settings.bearer_token, self._settings.bearer_token_file)
        bearer = {"Authorization": f"Bearer {token}"} if token else {}
        return {**self._settings.headers, **bearer}

    def _basic(self) -> tuple[str, str] | None:
        if not self._settings.username:
            return None
        return self._settings.username, _secret(self._settings.password, self._settings.password_file)

    def _server_limit(self) -> str:
        return f"{max(1, math.ceil(self._settings.timeout_s))}s"


class _BoundedSession(requests.Session):
    """Reads every body within a deadline and a size."""

    def __init__(self, settings: PrometheusSettings) -> None:
        super().__init__()
        self._settings = settings
        self.trust_env = False  # a .netrc would silently replace the bearer token
        self.verify = str(settings.ca_file) if settings.ca_file else not settings.skip_tls_verify
        if settings.proxy:
            self.proxies = {"http": settings.proxy, "https": settings.proxy}

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """As requests does, but the body is read here, bounded in time and size."""
        deadline_s = time.monotonic() + self._settings.timeout_s
        response = super().request(*args, **{**kwargs, "stream": True})
        try:
            body = self._body(response, deadline_s)
        except BaseException:
            response.close()  # the rest of the body must not be taken for the next answer
            raise
        response._content = body
        vars(response)["_content_consumed"] = True
        response.raw.release_conn()
        # the library only takes data.result out of it; the series are decoded once, in _parsed
        response.json = lambda **_: _envelope(body)  # type: ignore[method-assign]
        return response

    def _body(self, response: requests.Response, deadline_s: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            chunks.append(chunk)
            size += len(chunk)
            if time.monotonic() > deadline_s:
                raise requests.Timeout("the body did not end in time")
            if size > self._settings.max_response_bytes:
                raise PrometheusError(
                    f"the answer is larger than prometheus.max_response_bytes"
                    f" ({self._settings.max_response_bytes}); aggregate in the query or raise the limit"
                )
        return b"".join(chunks)


class _Data(msgspec.Struct):
    result: msgspec.Raw


class _Reply(msgspec.Struct):
    data: _Data


class _Series(msgspec.Struct, gc=False):
    metric: dict[str, str]
    values: list[tuple[float, float]]


class _PlainSeries(msgspec.Struct, gc=False):
    metric: dict[str, str]
    values: msgspec.Raw


_PLAIN_SERIES = msgspec.json.Decoder(list[_PlainSeries])
_PLAIN_NUMBERS = msgspec.json.Decoder(list[float])
_ALL_SERIES = msgspec.json.Decoder(list[_Series], strict=False)
_EACH_SERIES = msgspec.json.Decoder(list[msgspec.Raw])
_ONE_SERIES = msgspec.json.Decoder(_Series, strict=False)


def _envelope(body: bytes) -> dict[str, dict[str, msgspec.Raw]]:
    return {"data": {"result": msgspec.json.decode(body, type=_Reply).data.result}}


def _parsed(result: msgspec.Raw, start_s: float, query: GridQuery) -> Answer:
    times = start_s + query.step_s * np.arange(query.steps, dtype=np.float64)
    plain = _plain(result)
    if plain is not None:
        labels, counts, samples = plain
        return Answer(labels, Block(times, _on_grid(counts, samples, times, query)))
    text = bytes(result).replace(b'"+Inf"', b'"Inf"')  # the one spelling that the decoder does not know
    try:
        series, rejected = _ALL_SERIES.decode(text), 0
    except msgspec.MsgspecError:
        series, rejected = _readable(text)
    counts = [len(each.values) for each in series]
    samples = np.fromiter(chain.from_iterable(chain.from_iterable(s.values for s in series)), np.float64)
    grid = _on_grid(counts, samples, times, query)
    return Answer([each.metric for each in series], Block(times, grid), rejected)


def _plain(result: msgspec.Raw) -> tuple[list[dict[str, str]], list[int], Floats] | None:
    """Labels, numbers of samples, and all times and values in turn; None unless all is just as it should be.

    The samples of all series are decoded as one list of numbers, which takes half the time of a pair each.
    """
    try:
        series = _PLAIN_SERIES.decode(result)
        written = [bytes(each.values) for each in series]
        counts = [text.count(b',"') for text in written]
        regular = all(map(_is_regular, written, counts))
        if not regular:
            return None
        numbers = _PLAIN_NUMBERS.decode(b"[" + b",".join(written).translate(None, b'[]"') + b"]")
    except msgspec.MsgspecError:
        return None  # NaN and Inf among them, which JSON does not know
    return [each.metric for each in series], counts, np.array(numbers, dtype=np.float64)


def _readable(text: bytes) -> tuple[list[_Series], int]:
    """The series that can be read, one by one, and the number of those that cannot."""
    try:
        items = _EACH_SERIES.decode(text)
    except msgspec.MsgspecError as error:
        raise PrometheusError(f"answered {_shortened(text)} instead of a list of series") from error
    found = []
    for item in items:
        with contextlib.suppress(msgspec.MsgspecError):
            found.append(_ONE_SERIES.decode(item))
    return found, len(items) - len(found)


def _is_regular(values: bytes, count: int) -> bool:
    """Whether `count` samples are all pairs of a bare and a quoted value, `[[1,"2"],[3,"4"]]`.

    As many lists as quoted values that follow a comma; none begins with a quote and each ends with one, so
    each holds at least one of them, and thus exactly one; what commas are left stand between the lists.
    """
    return (
        values.count(b"[") == count + 1
        and values.count(b'"]') == count
        and b'["' not in values
        and values.count(b",") == 2 * count - 1
    )


def _on_grid(counts: Sequence[int], samples: Floats, times_s: Floats, query: GridQuery) -> Floats:
    """All series as rows; the sample of a time off the grid goes to the nearest step."""
    grid = np.full((len(counts), query.steps), np.nan)
    at_s, values = samples[::2], samples[1::2]
    rows = np.repeat(np.arange(len(counts)), counts)
    usable = np.isfinite(at_s) & np.isfinite(values)
    columns = np.full(len(at_s), -1, dtype=np.intp)
    columns[usable] = np.rint((at_s[usable] - times_s[0]) / query.step_s)
    usable &= (columns >= 0) & (columns < query.steps)
    grid[rows[usable], columns[usable]] = values[usable]
    return grid


def _secret(value: Any, path: Any) -> str:
    if value is not None:
        return str(value.get_secret_value())
    if path is None:
        return ""
    try:
        return read_secret(path)
    except ConfigError as error:
        raise PrometheusError(str(error)) from error


def _is_timeout(error: BaseException | None) -> bool:
    """Whether a time limit is behind `error`; urllib3 hides it under the retries that it did not make."""
    if error is None or isinstance(error, NewConnectionError):
        return False  # urllib3 counts a refused connection among the time-outs
    if isinstance(error, requests.Timeout | LowerTimeout):
        return True
    return _is_timeout(error.__cause__ or error.__context__)


def _root_cause(error: BaseException) -> str:
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return _shortened(error)


def _shortened(thing: object, limit: int = 200) -> str:
    text = " ".join(str(thing).split())
    return text if len(text) <= limit else f"{text[:limit]}..."
