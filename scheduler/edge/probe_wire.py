"""What two probes say to each other over TCP. Bytes in, bytes out.

The client speaks first and proves at once that it holds the shared token; a
stranger gets no byte back, only a close. Both then hold a key made from both
nonces, and every request carries a proof under that key, so a recorded hello
is worth nothing: its replay gets one welcome, shorter than itself.

    client  hello    magic 4 | time_ms 8 | nonce 16 | name 253 | proof 32
    server  welcome  nonce 16 | name 253 | proof 32
    client  frame    kind 1 | number 4 | size 4 | proof 16
    server  frame    the same

Frames of the client: PING; SEND (may I send `size` bytes?), after YES
followed by the bytes. Frames of the server: PING, YES, NO (the budget is
spent), DONE (all bytes are here). Only the client ever sends a payload, so no
one can make a probe send anything to anyone.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

MAGIC = b"FLP1"
NONCE_BYTES = 16
NAME_BYTES = 253
"""The longest name of a node."""
PROOF_BYTES = 32
FRAME_PROOF_BYTES = 16
HELLO_AGE_S_MAX = 300.0
"""Clocks of two nodes may differ by this much."""

PING, SEND, YES, NO, DONE = b"P", b"S", b"Y", b"N", b"D"

_HELLO = struct.Struct(f">4sQ{NONCE_BYTES}s{NAME_BYTES}s")
_WELCOME = struct.Struct(f">{NONCE_BYTES}s{NAME_BYTES}s")
_FRAME = struct.Struct(">cII")
HELLO_BYTES = _HELLO.size + PROOF_BYTES
WELCOME_BYTES = _WELCOME.size + PROOF_BYTES
FRAME_BYTES = _FRAME.size + FRAME_PROOF_BYTES


class NotProven(Exception):
    """The other side does not hold our token, or speaks another protocol."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a proven client says of itself."""

    nonce: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Frame:
    """A request or its answer."""

    kind: bytes
    number: int
    size: int = 0


def write_hello(token: bytes, nonce: bytes, name: str, now_s: float) -> bytes:
    """The client's first message; `nonce` is 16 random bytes."""
    body = _HELLO.pack(MAGIC, int(now_s * 1000), nonce, name.encode())
    return body + _proof(token, b"hello", body)


def read_hello(token: bytes, message: bytes, now_s: float) -> Hello:
    """The proven client behind `message` (HELLO_BYTES long); `NotProven` otherwise."""
    body, proof = message[: _HELLO.size], message[_HELLO.size :]
    if not hmac.compare_digest(proof, _proof(token, b"hello", body)):
        raise NotProven("the hello is not proven by our token")
    magic, time_ms, nonce, name = _HELLO.unpack(body)
    if magic != MAGIC or abs(now_s - time_ms / 1000) > HELLO_AGE_S_MAX:
        raise NotProven("the hello is of another protocol or time; are the clocks set?")
    return Hello(nonce, _name(name))


def write_welcome(token: bytes, hello: Hello, nonce: bytes, name: str) -> bytes:
    """The server's answer to a proven hello."""
    body = _WELCOME.pack(nonce, name.encode())
    return body + _proof(token, b"welcome", hello.nonce + body)


def read_welcome(token: bytes, client_nonce: bytes, message: bytes) -> Hello:
    """The proven server behind `message` (WELCOME_BYTES long); `NotProven` otherwise."""
    body, proof = message[: _WELCOME.size], message[_WELCOME.size :]
    if not hmac.compare_digest(proof, _proof(token, b"welcome", client_nonce + body)):
        raise NotProven("the welcome is not proven by our token")
    nonce, name = _WELCOME.unpack(body)
    return Hello(nonce, _name(name))


class Channel:
    """Writes and reads the frames of one connection, under the key of both nonces."""

    def __init__(self, token: bytes, client_nonce: bytes, server_nonce: bytes, is_client: bool) -> None:
        self._key = _proof(token, b"session", client_nonce + server_nonce)
        self._ours, self._theirs = (b"client", b"server") if is_client else (b"server", b"client")

    def write(self, frame: Frame) -> bytes:
        """The bytes of `frame`, FRAME_BYTES long."""
        body = _FRAME.pack(frame.kind, frame.number, frame.size)
        return body + _proof(self._key, self._ours, body)[:FRAME_PROOF_BYTES]

    def read(self, message: bytes) -> Frame:
        """The frame behind `message`; `NotProven` if the other side did not write it."""
        body, proof = message[: _FRAME.size], message[_FRAME.size :]
        if not hmac.compare_digest(proof, _proof(self._key, self._theirs, body)[:FRAME_PROOF_BYTES]):
            raise NotProven("a frame is not proven by the key of this connection")
        return Frame(*_FRAME.unpack(body))


def _proof(key: bytes, purpose: bytes, body: bytes) -> bytes:
    return hmac.new(key, b"fairlane-probe " + purpose + b"\0" + body, hashlib.sha256).digest()


def _name(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode("ascii", "replace")
