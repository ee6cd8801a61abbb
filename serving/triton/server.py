"""One tritonserver process: its command line, its clean environment, its shared memory.

It binds loopback unless told otherwise, loads models only when asked by somebody who knows the admin key, and
dies with the thread that started it. SIDREC_GRPC_CONNECTION_AGE_S ends a client's connection after so many seconds, so
that a client of many servers looks their name up again.
"""

import contextlib
import hashlib
import os
import secrets
import socket
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass, field
from pathlib import Path

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from serving import child
from serving.triton.repository import wanted_instances
from sidrec import contract
from sidrec.client import UnavailableError
from sidrec.client.tls import connection_args, server_options
from sidrec.errors import ServingError, UsageError

ADMIN_HEADER = "triton-grpc-protocol-admin-key"
_RESTRICTED = "model-repository,model-config,shared-memory,trace,logging:admin-key="
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - a place to listen, never one to ask
_REAPED_S = 0.2
# Below those that Linux gives to outgoing connections: one could take a port between its choice and its use.
_PORTS = range(20_000, 32_768)
_SHM = Path("/dev/shm")  # noqa: S108 - where Triton puts its regions
_QUIET = {
    "DO_NOT_TRACK": "true",
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_OFFLINE": "1",
}
_PASSED_ON = ("HOME", "TMPDIR", "TZ", "CUDA_VISIBLE_DEVICES")


def triton_home() -> Path:
    """Return the folder of the server (`wheel`) and its stub's environment (`stub`): SIDREC_TRITON_HOME, or ours."""
    return Path(os.environ.get("SIDREC_TRITON_HOME", Path(sys.prefix) / "triton")).absolute()


def free_port() -> int:
    """Return a loopback port that is free now and that no outgoing connection will take.

    Raises:
        ServingError: of a hundred tried, none is free.
    """
    for port in secrets.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServingError(f"no free port found in {_PORTS}", next_step="end what listens there, or name the ports")


def check_port(host: str, port: int, option: str) -> None:
    """Refuse a port that something else listens on.

    Raises:
        UsageError: the port cannot be bound.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsageError(
                f"port {port} on {host} cannot be used: {error.strerror}", next_step=f"choose another one: {option}"
            ) from error


@dataclass(slots=True)
class TritonServer:
    """A server of one model repository.

    Args:
        metrics_host: address of the metrics page, which knows no key.
        state: SIDREC_HOME of the server: exposures, feature store and takedown list lie there.
        name: tells the servers of one SIDREC_HOME apart.
    """

    repository: Path
    state: Path
    log: Path
    grpc_port: int
    metrics_port: int
    host: str = "127.0.0.1"
    metrics_host: str = "127.0.0.1"
    name: str = "primary"
    admin_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`host:port` of the gRPC door, as this machine reaches it."""
        return f"{'127.0.0.1' if self.host == _EVERYWHERE else self.host}:{self.grpc_port}"

    @property
    def shm_prefix(self) -> str:
        """Name that this server's shared memory regions begin with, so its next start clears what a killed one left."""
        return f"sidrec{hashlib.sha256(f'{self.state}/{self.name}'.encode()).hexdigest()[:12]}x"

    def start(self) -> None:
        """Start the process, after what a killed predecessor left in shared memory is gone."""
        clear_shared_memory(self.shm_prefix)
        self.process = child.spawn(self._command(), env=self._environment(), log=self.log)

    def kill(self) -> None:
        """End it at once; its stubs follow within a quarter of a second."""
        if self.process is not None:
            child.kill(self.process)
        clear_shared_memory(self.shm_prefix)

    def stop(self, *, grace_s: float = 8.0) -> None:
        """End it after the requests in flight are answered."""
        if self.process is not None:
            child.stop(self.process, grace_s=grace_s)
        clear_shared_memory(self.shm_prefix)

    def running(self) -> bool:
        """Return whether the process lives; it says nothing about whether it answers."""
        return self.process is not None and self.process.poll() is None

    def lost_a_stub(self) -> bool:
        """Return whether fewer Python stubs live than the config asks for; the server never starts another.

        Its remains say so: one that died stays as a zombie. With several stubs this is the only sign, because the
        others go on answering. A stub that is unloaded, or that refused its revision, is waited for, which a busy
        machine may be slow at; as many others as there should be live beside it then.
        """
        zombies = self._zombies()
        if not zombies:
            return False
        time.sleep(_REAPED_S)
        alive = len(self.stubs() - self._zombies())
        return bool(zombies & self._zombies()) and alive < wanted_instances(self.repository)

    def stubs(self) -> set[int]:
        """Return the process ids of its Python stubs, dead ones that it never waited for included."""
        if self.process is None:
            return set()
        found: set[int] = set()
        for thread in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):  # a thread that is gone has no children
                found |= {int(pid) for pid in thread.read_text().split()}
        return found

    def _zombies(self) -> set[int]:
        return {pid for pid in self.stubs() if child.is_zombie(pid)}

    def load(self, *, timeout_s: float = 120.0) -> None:
        """Make the server serve what the repository's config says now; the old version serves until then.

        Raises:
            ServingError: the server refused; what it served before, it still serves.
        """
        load(self.url, self.admin_key, timeout_s=timeout_s)

    def log_tail(self, lines: int = 5) -> str:
        """Return the log's last lines that tell of an error."""
        if not self.log.exists():
            return ""
        text = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join([line for line in text if "rror" in line or line.startswith("E")][-lines:])

    def _command(self) -> list[str]:
        server = triton_home() / "wheel" / "pytriton" / "tritonserver"
        if not (server / "bin" / "tritonserver").exists():
            raise UsageError(f"no Triton server under {server}", next_step="make setup, or set SIDREC_TRITON_HOME")
        return [
            str(server / "bin" / "tritonserver"),
            f"--model-repository={self.repository}",
            "--model-control-mode=explicit",
            f"--load-model={contract.MODEL_NAME}",
            f"--backend-directory={server / 'backends'}",
            f"--cache-directory={server / 'caches'}",
            "--disable-auto-complete-config",
            "--strict-readiness=false",
            "--exit-timeout-secs=5",
            "--allow-http=false",
            f"--grpc-address={self.host}",
            f"--grpc-port={self.grpc_port}",
            "--grpc-infer-allocation-pool-size=1",  # each kept object keeps the largest request that it ever held
            f"--grpc-restricted-protocol={_RESTRICTED}{self.admin_key}",
            f"--metrics-address={self.metrics_host}",
            f"--metrics-port={self.metrics_port}",
            f"--backend-config=python,shm-region-prefix-name={self.shm_prefix}",
            *_connection_age(),
            *server_options(),
        ]

    def _environment(self) -> dict[str, str]:
        own = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        own |= {name: value for name, value in os.environ.items() if name.startswith("SIDREC_")}
        return own | {
            # The stub takes its site-packages from the first python3 on PATH and its interpreter from libpython.
            "PATH": f"{triton_home() / 'stub' / 'bin'}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
            "SIDREC_HOME": str(self.state),
            **_QUIET,
        }


def _connection_age() -> list[str]:
    seconds = os.environ.get("SIDREC_GRPC_CONNECTION_AGE_S", "")
    if not seconds:
        return []
    if not seconds.isdigit() or seconds == "0":
        raise UsageError(f"SIDREC_GRPC_CONNECTION_AGE_S is {seconds!r}, expected whole seconds from 1")
    # Requests in flight are answered before a connection ends.
    return [f"--grpc-max-connection-age={seconds}000", "--grpc-max-connection-age-grace=10000"]


def clear_shared_memory(prefix: str) -> None:
    """Delete the regions whose name begins with `prefix`; a killed server leaves its own behind."""
    for region in _SHM.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def load(url: str, admin_key: str, *, timeout_s: float) -> None:
    """Ask the server at `url` to load the model as its config says.

    Raises:
        UnavailableError: it is not there.
        ServingError: it refused, or did not finish in time.
    """
    client = triton.InferenceServerClient(url, **connection_args())
    started = time.monotonic()
    try:
        client.load_model(contract.MODEL_NAME, headers={ADMIN_HEADER: admin_key}, client_timeout=timeout_s)
    except InferenceServerException as error:
        reason = error.message().strip().splitlines()[-1] if error.message() else str(error.status())
        kind = UnavailableError if str(error.status()) == "StatusCode.UNAVAILABLE" else ServingError
        raise kind(
            f"the server did not load the revision after {time.monotonic() - started:.1f} s: {reason}"
        ) from error
    finally:
        client.close()


def inference_count(url: str) -> int:
    """Return how many requests the model has answered since the server started.

    Raises:
        ServingError: the server does not say.
    """
    client = triton.InferenceServerClient(url, **connection_args())
    try:
        stats = client.get_inference_statistics(contract.MODEL_NAME, client_timeout=2.0)
    except InferenceServerException as error:
        raise ServingError(f"{url} gives no statistics: {error.status()}") from error
    finally:
        client.close()
    return sum(int(version.inference_count) for version in stats.model_stats)
