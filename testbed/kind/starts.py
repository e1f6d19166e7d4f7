"""How long each process takes to start, measured where it runs: in the image, or here.

    python3 starts.py FAIRLANE

starts every process of a release by its console entry, FAIRLANE, against an API server, a database and an
object store that do not answer, waits until its port is open, and prints `name -> [seconds of CPU, seconds]`
as JSON. It imports only what the image has. A process that cannot start, as without the driver for its
database, is an error.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ALONE = ("--host", "127.0.0.1", "--port", "0", "--port-file", "port")
STARTS: dict[str, Sequence[str]] = {
    "extender": ("extender", *ALONE),
    "recorder": ("recorder", *ALONE, "--store", "sqlite:///experience.db"),
    "recorder, PostgreSQL": ("recorder", *ALONE, "--store", "postgresql://fairlane@127.0.0.1:1/fairlane"),
    "predictor": ("predictor", *ALONE, "--registry", "models"),
    "predictor, S3": ("predictor", *ALONE, "--registry", "s3://models/fairlane"),
    "controller": ("controller", *ALONE, "--namespace", "default"),
    "admission": ("admission", *ALONE),
    "probe": (
        "probe",
        *ALONE,
        "--node",
        "a",
        "--peers-from",
        "file",
        "--peers",
        "peers",
        "--metrics-port",
        "0",
    ),
}
KUBECONFIG = """apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: a, user: {token: none}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
"""
S3 = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none"}
OPEN_S_MAX = 60.0
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


def measured(fairlane: str, words: Sequence[str]) -> tuple[float, float]:
    """Seconds of CPU and on the clock from the start to the open port."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "kubeconfig").write_text(KUBECONFIG)
        (folder / "peers").write_text("")
        own = {
            "KUBECONFIG": str(folder / "kubeconfig"),
            "FAIRLANE_TOKEN": "none",
            **S3,
            **_certificate(folder),
        }
        begun_s = time.monotonic()
        process = subprocess.Popen(
            [fairlane, *words], cwd=folder, env={**os.environ, **own}, stdout=subprocess.DEVNULL, stderr=None
        )
        try:
            _wait(process, folder / "port", begun_s)
            return _cpu_s(process.pid), time.monotonic() - begun_s
        finally:
            process.kill()
            process.communicate()


def _certificate(folder: Path) -> dict[str, str]:
    """For the webhook, whose own would come from the API server."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    kept = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "tls.crt").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(kept[0]))
    (folder / "tls.key").write_bytes(key.private_bytes(*kept))
    files = {"CERTIFICATE": "tls.crt", "KEY": "tls.key"}
    return {f"FAIRLANE_ADMISSION__{kind}_FILE": str(folder / file) for kind, file in files.items()}


def _wait(process: subprocess.Popen[bytes], port: Path, begun_s: float) -> None:
    while not port.exists():
        if process.poll() is not None or time.monotonic() - begun_s > OPEN_S_MAX:
            raise RuntimeError(f"no open port after {time.monotonic() - begun_s:.0f} s")
        time.sleep(0.005)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def main() -> None:
    """As the command line above says."""
    fairlane = os.path.abspath(sys.argv[1])
    found = {name: measured(fairlane, words) for name, words in STARTS.items()}
    json.dump({name: [round(value, 2) for value in values] for name, values in found.items()}, sys.stdout)


if __name__ == "__main__":
    main()
