"""Versions of the model as directories, on a local path or an object store, through fsspec.

    ROOT/versions/000007-1f3a9c2e/   info.json state.json central.txt size.txt manifest.json
    ROOT/latest                      {"version": ..., "manifest_sha256": ...}

A version exists once its manifest does: the manifest names every file with
its sha256 and is written last, and `latest` is replaced in one step after
that. A reader therefore sees the old version or the new one, complete; what
does not match its checksum is refused and the version before it is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec

from model.published import BrokenModelError, PublishedModel

KEEP = 10
MANIFEST, LATEST, VERSIONS, TRIAL = "manifest.json", "latest", "versions", "trial"
FILE_BYTES_MAX = 256 * 1024 * 1024
_WITHOUT_FOLDERS = {"s3", "gs", "abfs"}
"""Object stores: making a folder there would make the bucket, also one of a mistyped name."""


class RegistryError(Exception):
    """The registry can't be read or written, or a version in it is broken; the message says which and why."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """The newest usable model, and why newer ones were passed over."""

    model: PublishedModel
    passed_over: tuple[str, ...] = ()


class Registry:
    """Publishes and loads models under one root, e.g. /var/lib/fairlane/models or s3://bucket/models.

    One writer at a time; any number of readers at any time.
    """

    def __init__(self, url: str, keep: int = KEEP) -> None:
        """Raises RegistryError when the URL names no known kind of store."""
        try:
            fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise RegistryError(f"registry {url}: {error}") from error
        self.url, self._keep = url, max(keep, 1)
        self._fs: Any = fs
        self._root = str(root).rstrip("/")
        protocols = fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)
        self._local = "file" in protocols
        self._has_folders = _WITHOUT_FOLDERS.isdisjoint(protocols)
        self._failures = _failures(protocols)

    def require_writable(self) -> None:
        """Write a small file and take it away: to know before a training. Raises RegistryError."""
        with self._told("be written to"):
            if self._has_folders:
                self._fs.makedirs(self._root, exist_ok=True)
            self._replace(TRIAL, b"")
            self._fs.rm_file(self._path(TRIAL))

    def publish(self, model: PublishedModel) -> PublishedModel:
        """Write the model as the newest version and point `latest` at it; the model with its version."""
        with self._told("publish a model"):
            number = max(map(_number, self._directories()), default=0) + 1
            digest = hashlib.sha256(b"".join(model.files().values())).hexdigest()[:8]
            named = model.named(f"{number:06d}-{digest}")
            manifest = self._write_version(named)
            self._replace(
                LATEST,
                _json(
                    {"version": named.info.version, "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
                ),
            )
            self._prune(named.info.version)
        return named

    def latest(self) -> str | None:
        """The version that `latest` points at; None while nothing was published.

        Raises RegistryError when the pointer or the store is not readable.
        """
        pointer = self._pointer()
        return None if pointer is None else pointer["version"]

    def versions(self) -> list[str]:
        """Complete versions, oldest first."""
        with self._told("list versions"):
            return [
                name for name in self._directories() if self._fs.exists(self._path(VERSIONS, name, MANIFEST))
            ]

    def load(self, version: str | None = None, threads: int = 1) -> PublishedModel:
        """The model of one version, by default the newest usable one.

        Raises RegistryError when it is missing, damaged or of another schema.
        """
        if version is None:
            found = self.newest_usable(threads)
            if found is None:
                raise RegistryError(f"registry {self.url}: no model was published yet")
            return found.model
        expected = self._expected_manifest(version)
        with self._told(f"load version {version}"):
            files = self._verified(version, expected)
            try:
                return PublishedModel.from_files(files, threads).named(version)
            except BrokenModelError as error:
                raise RegistryError(f"version {version} in {self.url}: {error}") from error

    def newest_usable(self, threads: int = 1) -> Loaded | None:
        """The version that `latest` points at, else the newest one that can be used; None when there is none.

        Raises RegistryError when there are versions but none can be used.
        """
        passed_over: list[str] = []
        for version in self._newest_first(passed_over):
            try:
                return Loaded(self.load(version, threads), tuple(passed_over))
            except RegistryError as error:
                passed_over.append(str(error))
        if passed_over:
            raise RegistryError("; ".join(passed_over))
        return None

    def _newest_first(self, problems: list[str]) -> list[str]:
        try:
            latest = self.latest()
        except RegistryError as error:
            problems.append(str(error))
            latest = None
        others = [name for name in reversed(self.versions()) if name != latest]
        return others if latest is None else [latest, *others]

    def _expected_manifest(self, version: str) -> str | None:
        """The manifest's checksum as the pointer has it; older versions vouch for themselves."""
        try:
            pointer = self._pointer()
        except RegistryError:
            return None
        return pointer["manifest_sha256"] if pointer is not None and pointer["version"] == version else None

    def _pointer(self) -> dict[str, str] | None:
        with self._told("read the pointer to the latest version"):
            try:
                pointer = json.loads(self._fs.cat_file(self._path(LATEST)))
                return {
                    "version": str(pointer["version"]),
                    "manifest_sha256": str(pointer["manifest_sha256"]),
                }
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, TypeError) as error:
                raise RegistryError(f"registry {self.url}: the file {LATEST} is damaged: {error}") from error

    def _verified(self, version: str, manifest_sha256: str | None) -> dict[str, bytes]:
        raw = self._read(version, MANIFEST)
        if manifest_sha256 is not None and hashlib.sha256(raw).hexdigest() != manifest_sha256:
            raise RegistryError(f"version {version} in {self.url}: {MANIFEST} is not the one published")
        try:
            checksums = dict(json.loads(raw)["sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryError(f"version {version} in {self.url}: {MANIFEST} is damaged: {error}") from error
        files = {name: self._read(version, name) for name in checksums}
        for name, data in files.items():
            if hashlib.sha256(data).hexdigest() != checksums[name]:
                raise RegistryError(
                    f"version {version} in {self.url}: {name} has {len(data)} bytes that do not match its "
                    "checksum: the file is truncated or was changed"
                )
        return files

    def _read(self, version: str, name: str) -> bytes:
        path = self._path(VERSIONS, version, name)
        try:
            size = self._fs.size(path)
            if size is not None and size > FILE_BYTES_MAX:
                raise RegistryError(f"version {version} in {self.url}: {name} has {size} bytes, too many")
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            raise RegistryError(f"version {version} in {self.url}: {name} is missing") from None

    def _write_version(self, model: PublishedModel) -> bytes:
        files = model.files()
        folder = self._path(VERSIONS, model.info.version)
        if self._has_folders:
            self._fs.makedirs(folder, exist_ok=True)
        for name, data in files.items():
            self._fs.pipe_file(f"{folder}/{name}", data)
        checksums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = _json({"version": model.info.version, "sha256": checksums})
        self._replace(f"{VERSIONS}/{model.info.version}/{MANIFEST}", manifest)
        return manifest

    def _replace(self, name: str, data: bytes) -> None:
        """Write a file in one step: object stores do so by themselves, local files by renaming."""
        path = self._path(name)
        if not self._local:
            self._fs.pipe_file(path, data)
            return
        self._fs.pipe_file(f"{path}.new", data)
        self._fs.mv(f"{path}.new", path)

    def _prune(self, newest: str) -> None:
        """Remove all but the newest complete versions; what was never completed takes nobody's place."""
        kept = {newest, *self.versions()[-self._keep :]}
        for name in self._directories():
            if name not in kept and _number(name) < _number(newest):
                self._fs.rm(self._path(VERSIONS, name), recursive=True)

    def _directories(self) -> list[str]:
        """Names of version directories, complete or not, oldest first."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._path(VERSIONS), detail=False)
        except FileNotFoundError:
            return []
        names = (str(path).rstrip("/").rsplit("/", 1)[-1] for path in found)
        return sorted(name for name in names if name.split("-")[0].isdecimal())

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._failures as error:
            raise RegistryError(f"registry {self.url}: can't {what}: {error}") from error


def _number(version: str) -> int:
    return int(version.split("-", maxsplit=1)[0])


def _failures(protocols: tuple[str, ...]) -> tuple[type[Exception], ...]:
    """What a store's client raises when it cannot; that of S3 has errors of its own for the way there."""
    if "s3" not in protocols:
        return (OSError,)
    from botocore.exceptions import BotoCoreError

    return OSError, BotoCoreError


def _json(values: dict[str, Any]) -> bytes:
    return json.dumps(values, indent=1, sort_keys=True).encode()
