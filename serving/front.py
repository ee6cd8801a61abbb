"""Both doors of one installation: Triton supervised in this process, the gateway as its child."""

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from serving import deploy
from serving.gateway.process import GatewayProcess
from serving.state import read_state
from serving.supervisor import Supervisor, until_signalled
from serving.triton import repository
from serving.triton.server import check_port
from sidrec import home
from sidrec.errors import ServingError
from sidrec.process import exclusive
from sidrec.release.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Front:
    """Where the two doors stand."""

    host: str
    grpc_port: int
    gateway_port: int
    metrics_port: int

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
            revision = deploy.prepare(Ledger())
            repository.point_to(home.triton_repository_dir(), revision.revision)
            log = home.serving_dir() / "gateway.log"
            gateway = GatewayProcess(self.gateway_port, supervisor.server.url, log, host=self.host)
            try:
                gateway.start()  # it starts while Triton does
                supervisor.start()
                deploy.confirm_live(revision, url=supervisor.server.url, who="serve")
                repository.prune(home.triton_repository_dir())
                gateway.wait_answer()
                supervisor.announce(gateway.url)
                state = read_state()
                if state is None:
                    raise ServingError("the state file is gone", evidence=home.serving_dir())
                on_ready(state)
                supervisor.watch(stopping, gateway.keep)
            finally:
                gateway.stop()
                supervisor.stop()
