"""Recurring runs as KFP's API has them: listed with how their runs ended, made, deleted, enabled and disabled."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import kfp_server_api as kfp
from kfp_server_api.rest import ApiException

from pipelines.schedules import Actual, Change, Desired
from sidrec.errors import ServingError

_PAGE = 100
_TIMEOUT_S = 30
# Of the newest runs; a schedule is held after a few.
_LOOKED_AT = 20


class RecurringRuns:
    """The recurring runs of one experiment.

    Args:
        url: of KFP's API server.
        namespace: "" where KFP has no users.
        token: file with a bearer token, read once.
    """

    def __init__(self, url: str, *, experiment: str, namespace: str = "", token: Path | None = None) -> None:
        settings = kfp.Configuration(host=url)
        if token is not None:
            settings.api_key["authorization"] = token.read_text(encoding="utf-8").strip()
            settings.api_key_prefix["authorization"] = "Bearer"
        client = kfp.ApiClient(settings)
        self._url = url
        self._namespace = namespace
        self._recurring = kfp.RecurringRunServiceApi(client)
        self._runs = kfp.RunServiceApi(client)
        self._experiments = kfp.ExperimentServiceApi(client)
        self._experiment = experiment

    def found(self) -> list[Actual]:
        """Return every recurring run of the experiment, oldest first.

        Raises:
            ServingError: the API does not answer, or refuses.
        """
        experiment = self._experiment_id()
        if experiment is None:
            return []
        listed = list(
            self._pages(
                self._recurring.recurring_run_service_list_recurring_runs,
                "recurring_runs",
                experiment_id=experiment,
                sort_by="created_at asc",
            )
        )
        return [
            Actual(
                run_id=one.recurring_run_id,
                name=one.display_name,
                description=one.description or "",
                enabled=one.status == "ENABLED",
                ended=self._ended(experiment, one.recurring_run_id),
            )
            for one in listed
        ]

    def carry_out(self, change: Change, wanted: Sequence[Desired]) -> None:
        """Do what a change says; one that only tells does nothing.

        Raises:
            ServingError: the API refused.
        """
        by_name = {one.name: one for one in wanted}
        if change.action in ("create", "replace"):
            # The old one goes first: two of one name would start two runs of one slot.
            self._each(self._recurring.recurring_run_service_delete_recurring_run, change.run_ids)
            self._create(by_name[change.name])
        elif change.action == "delete":
            self._each(self._recurring.recurring_run_service_delete_recurring_run, change.run_ids)
        elif change.action in ("disable", "hold"):
            self._each(self._recurring.recurring_run_service_disable_recurring_run, change.run_ids)
        elif change.action == "enable":
            self._each(self._recurring.recurring_run_service_enable_recurring_run, change.run_ids)

    def _create(self, wanted: Desired) -> None:
        run = kfp.V2beta1RecurringRun(
            display_name=wanted.name,
            description=wanted.description,
            pipeline_spec=wanted.pipeline_spec,
            runtime_config=kfp.V2beta1RuntimeConfig(parameters=dict(wanted.parameters)),
            trigger=kfp.V2beta1Trigger(cron_schedule=kfp.V2beta1CronSchedule(cron=wanted.cron)),
            # Runs of one schedule never overlap, and what was missed while it was off is not made up for.
            max_concurrency="1",
            no_catchup=True,
            mode="ENABLE" if wanted.enabled else "DISABLE",
            namespace=self._namespace or None,
            experiment_id=self._experiment_id(make=True),
        )
        self._ask(self._recurring.recurring_run_service_create_recurring_run, recurring_run=run)

    def _ended(self, experiment: str, recurring_run_id: str) -> tuple[bool, ...]:
        """Return whether each finished run succeeded, newest first; one that was cancelled says nothing."""
        ended: list[bool] = []
        for run in self._pages(
            self._runs.run_service_list_runs, "runs", experiment_id=experiment, sort_by="created_at desc"
        ):
            if run.recurring_run_id == recurring_run_id and run.state in ("SUCCEEDED", "FAILED"):
                ended.append(run.state == "SUCCEEDED")
            if len(ended) == _LOOKED_AT:
                break
        return tuple(ended)

    def _experiment_id(self, *, make: bool = False) -> str | None:
        for one in self._pages(self._experiments.experiment_service_list_experiments, "experiments", **self._where()):
            if one.display_name == self._experiment:
                return str(one.experiment_id)
        if not make:
            return None
        new = kfp.V2beta1Experiment(display_name=self._experiment, namespace=self._namespace or None)
        made = self._ask(self._experiments.experiment_service_create_experiment, experiment=new)
        return str(made.experiment_id)

    def _where(self) -> dict[str, str]:
        return {"namespace": self._namespace} if self._namespace else {}

    def _pages(self, ask: Callable[..., Any], name: str, **options: Any) -> Iterator[Any]:
        token = ""
        while True:
            page = self._ask(ask, page_token=token, page_size=_PAGE, **options)
            yield from getattr(page, name) or ()
            token = page.next_page_token or ""
            if not token:
                return

    def _each(self, ask: Callable[..., Any], run_ids: Sequence[str]) -> None:
        for run_id in run_ids:
            self._ask(ask, recurring_run_id=run_id)

    def _ask(self, ask: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return ask(**arguments, _request_timeout=_TIMEOUT_S)
        except ApiException as error:
            raise ServingError(f"KFP at {self._url} answered {error.status}: {error.reason}") from error
        except Exception as error:  # urllib3's own errors, of several kinds
            raise ServingError(
                f"KFP at {self._url} does not answer: {error}", next_step="--url, or SIDREC_KFP_URL"
            ) from error
