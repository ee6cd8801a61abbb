"""Both doors of one installation: Triton supervised in this process, a second one if asked for, the gateway its child.

The standby serves the same repository and answers when the first server dies: the gateway asks the first healthy one.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from serving import deploy
from serving.gateway.process import GatewayProcess
from serving.state import STANDBY, read_state
from serving.supervisor import Supervisor, until_signalled
from serving.triton import repository
from serving.triton.server import check_port
from sidrec import home
from sidrec.errors import ServingError
from sidrec.process import exclusive
from sidrec.release.ledger import Ledger

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Front:
    """Where the doors stand.

    Args:
        standby: run a second server of the same repository, on a free port.
        instances: Python processes a server, each with one thread of its own; None leaves what the repository says.
    """

    host: str
    grpc_port: int
    gateway_port: int
    metrics_port: int
    standby: bool = False
    instances: int | None = None

    def run(self, on_ready: Callable[[dict[str, Any]], None]) -> None:
        """Serve what the ledger asks for until SIGTERM or SIGINT; end both doors on the way out, whatever happens.

        Args:
            on_ready: called once with the state, after a real answer came back through both doors.

        Raises:
            ServingError: nothing was promoted, or a door gives no answer.
            UsageError: a port is taken.
            BusyError: another process serves this SIDREC_HOME.
        """
        logging.basicConfig(
            stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        stopping = until_signalled()
        with exclusive(home.serving_dir() / "server.lock", "the server of this SIDREC_HOME"):
            check_port(self.host, self.gateway_port, "--gateway-port")
            supervisor = Supervisor(grpc_port=self.grpc_port, metrics_port=self.metrics_port, host=self.host)
            revision = deploy.prepare_start(Ledger())
            repository.point_to(home.triton_repository_dir(), revision.revision, instances=self.instances)
            spare = self._standby_of(supervisor)
            urls = [one.server.url for one in (supervisor, spare) if one is not None]
            gateway_log = home.serving_dir() / "gateway.log"
            gateway = GatewayProcess(self.gateway_port, ",".join(urls), gateway_log, host=self.host)
            try:
                gateway.start()  # it starts while Triton does
                with kept(spare, stopping) as spare_started:
                    supervisor.start(stopping)
                    spare_started()
                    deploy.confirm_live(revision, urls=urls, who="serve")
                    repository.prune(home.triton_repository_dir())
                    gateway.wait_answer()
                    supervisor.state_file.announce(gateway.url)
                    state = read_state()
                    if state is None:
                        raise ServingError("the state file is gone", evidence=home.serving_dir())
                    on_ready(state)
                    supervisor.watch(stopping, gateway.keep)
            finally:
                gateway.stop()
                supervisor.stop()

    def _standby_of(self, primary: Supervisor) -> Supervisor | None:
        if not self.standby:
            return None
        return Supervisor(
            grpc_port=0, host=self.host, name=STANDBY, state_file=primary.state_file, admin_key=primary.admin_key
        )


@contextmanager
def kept(supervisor: Supervisor | None, stopping: threading.Event) -> Iterator[Callable[[], None]]:
    """Keep a second server for the body, in a thread of its own; yield what waits for its first answer."""
    if supervisor is None:
        yield lambda: None
        return
    first_answer: Future[object] = Future()

    def keep() -> None:
        try:
            first_answer.set_result(supervisor.start(stopping))
            supervisor.watch(stopping)
        except Exception as error:  # the first server serves on; who waits for this one is told
            if first_answer.done():
                log.exception("event=standby_lost")
            else:
                first_answer.set_exception(error)
        finally:
            supervisor.stop()

    # The kernel ends the server with the thread that started it: this thread lives as long as the server.
    thread = threading.Thread(target=keep, name="standby")
    thread.start()

    def wait() -> None:
        first_answer.result()

    try:
        yield wait
    finally:
        stopping.set()
        thread.join()
