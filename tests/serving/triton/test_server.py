"""The real tritonserver: what a client that knows only the table gets."""

import asyncio
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from serving.triton import repository
from serving.triton.server import ADMIN_HEADER, clear_shared_memory, free_port
from serving.triton.takedown import write_takedown
from sidrec import client as our_client
from sidrec import contract, exposure
from sidrec.errors import ServingError, UsageError
from sidrec.recommender import Recommender, Request
from sidrec.release.revision import arm_for
from tests.serving.conftest import Live, wait_answer
from tests.serving.world import NUM_ITEMS


def raw(**values: Any) -> list[triton.InferInput]:
    """Tensors made from nothing but the table, absent ones left out."""
    types = {"USER_ID": "BYTES", "HISTORY": "BYTES", "HISTORY_TIME": "INT64", "CONTEXT": "BYTES"}
    types |= {"K": "INT32", "EXCLUDE_SEEN": "BOOL"}
    dtypes = {"BYTES": np.object_, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}
    tensors = []
    for name, value in values.items():
        array = np.array(value, dtype=dtypes[types[name]])
        tensor = triton.InferInput(name, list(array.shape), types[name])
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


@pytest.fixture
def plain(live: Live) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(live.server.url)


def ask(plain: triton.InferenceServerClient, **values: Any) -> Any:
    return plain.infer("recommend", raw(**values), client_timeout=10)


@pytest.mark.parametrize(
    ("values", "source"),
    [
        ({"HISTORY": [[b"i3", b"i7"]], "K": [[10]]}, b"model"),
        ({"USER_ID": [[b"nobody we know"]], "K": [[10]]}, b"cold"),
        ({"HISTORY": [[b"not sold here"]], "K": [[10]]}, b"cold"),
        ({"K": [[10]]}, b"cold"),
        ({"USER_ID": [[b""]]}, b"cold"),
    ],
)
def test_a_plain_client_gets_ten_distinct_items(
    plain: triton.InferenceServerClient, values: dict[str, Any], source: bytes
) -> None:
    """Known history, unknown user, unknown items, nobody: ten real items, best first, with the table's shapes."""
    result = ask(plain, **values)

    items, scores = result.as_numpy("ITEM_ID"), result.as_numpy("SCORE")
    assert items.shape == scores.shape == (1, 10)
    assert len({item.decode() for item in items[0]} & {f"i{n}" for n in range(NUM_ITEMS)}) == 10
    assert (np.diff(scores[0]) <= 0).all()
    assert result.as_numpy("SEMANTIC_ID").shape == (1, 10, 1)
    assert result.as_numpy("SOURCE")[0, 0] == source
    assert result.as_numpy("RATIONALE")[0, 0] == b""
    assert len(result.as_numpy("REQUEST_ID")[0, 0]) > 0


def test_the_server_declares_the_contract(plain: triton.InferenceServerClient) -> None:
    """What the server says of itself is the table."""
    metadata = plain.get_model_metadata("recommend", as_json=True)

    declared = {row["name"]: (row["datatype"], [int(d) for d in row["shape"]]) for row in metadata["inputs"]}
    declared |= {row["name"]: (row["datatype"], [int(d) for d in row["shape"]]) for row in metadata["outputs"]}
    assert declared == {t.name: (t.datatype, [-1, *t.dims]) for t in (*contract.INPUTS, *contract.OUTPUTS)}


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"K": [[0]]}, "K is 0"),
        ({"K": [[101]]}, "K is 101"),
        ({"K": [[-5]]}, "K is -5"),
        ({"K": [[10], [10]]}, "batch"),
        ({"USER_ID": [[b"u" * 257]]}, "USER_ID has 257 bytes"),
        ({"USER_ID": [[b"\xff\xfe"]]}, "not UTF-8"),
        ({"USER_ID": [[b"a\0b"]]}, "NUL"),
        ({"HISTORY": [[b"i1", b""]]}, "is empty"),
        ({"HISTORY": [[b"i1"] * 2001]}, "2001 items"),
        ({"HISTORY": [[b"\xc3\x28"]]}, "not UTF-8"),
        ({"HISTORY": [[b"i1", b"i2"]], "HISTORY_TIME": [[1]]}, "HISTORY_TIME has 1 entries"),
        ({"HISTORY_TIME": [[1]]}, "HISTORY has 0"),
        ({"HISTORY": [[b"i1", b"i2"]], "HISTORY_TIME": [[2, 1]]}, "falls"),
        ({"HISTORY": [[b"i1"]], "HISTORY_TIME": [[-1]]}, "unix seconds"),
        ({"CONTEXT": [[b"{"]]}, "not JSON"),
        ({"CONTEXT": [[b"[]"]]}, "JSON object"),
        ({"CONTEXT": [[b"[" * 4000]]}, "not JSON"),
        ({"CONTEXT": [[b" " * 5000]]}, "5000 bytes"),
        ({"CONTEXT": [[b'{"request_id": 5}']]}, "request_id"),
        ({"CONTEXT": [[b'{"surface": "\\ud800"}']]}, "surface"),
        ({"CONTEXT": [[b'{"event_time": "now"}']]}, "event_time"),
        ({"K": [[10]], "USER_ID": [b"flat"]}, "USER_ID"),
        ({}, ""),
    ],
)
def test_a_bad_request_is_refused_as_invalid(
    plain: triton.InferenceServerClient, values: dict[str, Any], reason: str
) -> None:
    """Each way to break the contract gets INVALID_ARGUMENT with the reason and no traceback; the server lives."""
    with pytest.raises(InferenceServerException) as caught:
        ask(plain, **values)

    assert str(caught.value.status()) == "StatusCode.INVALID_ARGUMENT"
    assert reason in caught.value.message()
    assert "Traceback" not in caught.value.message()
    assert ask(plain, K=[[1]]).as_numpy("ITEM_ID").shape == (1, 1)


def test_an_unknown_tensor_is_refused(plain: triton.InferenceServerClient) -> None:
    """A tensor outside the table is the client's mistake, and it is told so."""
    tensor = triton.InferInput("AGE", [1, 1], "INT32")
    tensor.set_data_from_numpy(np.array([[5]], np.int32))

    with pytest.raises(InferenceServerException, match="AGE"):
        plain.infer("recommend", [*raw(K=[[1]]), tensor])


def test_the_server_answers_as_the_recommender_does(live: Live) -> None:
    """Offline and online are the same path: items, scores and semantic IDs are equal."""
    recommender = Recommender.open(live.bundles["treatment"].folder)
    request_id = next(str(n) for n in range(99) if arm_for(str(n), "s", live.revision.arms).name == "treatment")

    online = live.client.recommend(history=["i5", "i6"], k=20, exclude_seen=True, context={"request_id": request_id})
    offline = recommender.recommend([Request(("i5", "i6"), (), k=20, exclude_seen=True)])[0]

    assert online.arm == "treatment"
    assert online.bundle_id == live.bundles["treatment"].bundle_id
    assert online.item_ids == offline.item_ids
    np.testing.assert_array_equal(online.scores, offline.scores)
    np.testing.assert_array_equal(online.semantic_ids, offline.semantic_ids)


def test_users_keep_their_arm_and_each_arm_answers_from_its_bundle(live: Live) -> None:
    """The sticky hash of the user decides, whatever else the request says."""
    for number in range(12):
        user = f"user {number}"
        arm = arm_for(user, "s", live.revision.arms)
        answers = [live.client.recommend(user_id=user, k=k) for k in (1, 3)]

        assert {answer.arm for answer in answers} == {arm.name}
        assert {answer.bundle_id for answer in answers} == {arm.bundle.bundle_id}
        assert answers[0].item_ids == (("i0",) if arm.name == "control" else ("i50",))


def test_concurrent_requests_share_batches_and_bad_ones_harm_nobody(live: Live) -> None:
    """Good and bad requests of varying history lengths run together: every good one gets its own K and items."""

    async def storm() -> list[Any]:
        async with triton_aio.InferenceServerClient(live.server.url) as client:

            async def one(number: int) -> Any:
                bad = number % 4 == 3
                tensors = our_client.inputs(
                    history=[f"i{n}" for n in range(1 + number % 7)],
                    k=101 if bad else 1 + number % 50,
                    context={"request_id": f"storm-{number}"},
                )
                try:
                    return our_client.answer(await client.infer("recommend", tensors, client_timeout=30))
                except InferenceServerException as error:
                    return error

            return await asyncio.gather(*(one(number) for number in range(200)))

    answers = asyncio.run(storm())

    for number, answer in enumerate(answers):
        if number % 4 == 3:
            assert isinstance(answer, InferenceServerException)
            assert "K is 101" in answer.message()
        else:
            assert len(answer.item_ids) == 1 + number % 50
            assert answer.request_id == f"storm-{number}"
    rows = exposures(live, "storm-", expected=150)
    assert rows["group_size"].max() > 2


def exposures(live: Live, prefix: str, expected: int) -> pl.DataFrame:
    deadline = time.monotonic() + 10
    while True:
        table = exposure.read(live.server.state / "exposures")
        rows = table.filter(pl.col("request_id").str.starts_with(prefix))
        if rows.height >= expected or time.monotonic() > deadline:
            return rows
        time.sleep(0.05)


def test_an_answer_leaves_one_exposure_row(live: Live) -> None:
    """The row says what was asked, what was answered, by which bundle, and how."""
    answer = live.client.recommend(
        user_id="ü", history=["i9", "no such"], k=3, context={"request_id": "row-1", "surface": "home", "event_time": 7}
    )
    rows = exposures(live, "row-1", expected=1)

    assert rows.height == 1
    row = rows.to_dicts()[0]
    assert row["item_ids"] == list(answer.item_ids)
    assert row["semantic_ids"] == answer.semantic_ids.tolist()
    assert {key: row[key] for key in ("user_id", "surface", "k", "source", "history_source", "event_time")} == {
        "user_id": "ü",
        "surface": "home",
        "k": 3,
        "source": "model",
        "history_source": "request",
        "event_time": 7,
    }
    assert (row["history_length"], row["known_items"], row["revision"]) == (2, 1, 1)
    assert (row["arm"], row["bundle_id"]) == (answer.arm, answer.bundle_id)
    assert row["latency_ms"] > 0
    assert abs(row["wall_time_ms"] / 1000 - time.time()) < 60


def test_canaries_leave_no_exposure_row(live: Live) -> None:
    """The supervisor's own questions are no exposures."""
    live.client.recommend(context={"canary": True, "request_id": "canary-test"})
    live.client.recommend(context={"request_id": "after-canary"})

    assert exposures(live, "after-canary", expected=1).height == 1
    assert exposures(live, "canary-test", expected=0).is_empty()


def test_the_takedown_list_applies_at_once(live: Live) -> None:
    """An item on the list is out of the next answer, and back when it is off the list."""
    # One user, so that one arm gives all three answers.
    before = live.client.recommend(user_id="one-arm", history=["i9"], k=100).item_ids
    path = live.server.state / "takedown.txt"
    write_takedown(path, before[:2])
    during = live.client.recommend(user_id="one-arm", history=["i9"], k=100).item_ids
    path.unlink()
    after = live.client.recommend(user_id="one-arm", history=["i9"], k=100).item_ids

    assert set(before[:2]) & set(during) == set()
    assert len(during) == 100
    assert set(before[:2]) <= set(after)


def test_model_control_needs_the_key(live: Live, plain: triton.InferenceServerClient) -> None:
    """Nobody unloads or lists models without the deploy key."""
    with pytest.raises(InferenceServerException):
        plain.unload_model("recommend")
    with pytest.raises(InferenceServerException):
        plain.get_model_repository_index()

    index = plain.get_model_repository_index(headers={ADMIN_HEADER: live.server.admin_key})
    assert [(model.name, model.state) for model in index.models] == [("recommend", "READY")]


def test_a_late_request_is_answered_with_fewer_beams(live: Live) -> None:
    """More than half of the deadline gone: degraded, and said so; a clock that is days off degrades nobody."""

    def source(age_ms: int) -> str:
        sent = int(time.time() * 1000) - age_ms
        return live.client.recommend(history=["i1"], context={"sent_at_ms": sent, "deadline_ms": 1000}).source

    assert source(0) == "model"
    assert source(700) == "degraded"
    assert source(86_400_000) == "model"
    assert source(-5_000) == "model"


def test_load_between_threads_is_counted_whole(live: Live) -> None:
    """Every answered request is written or still buffered: none is missing from the log."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: live.client.recommend(k=1, context={"request_id": f"many-{n}"}), range(300)))

    assert exposures(live, "many-", expected=300)["request_id"].n_unique() == 300


def test_ids_and_contexts_come_from_the_client_unchanged(live: Live) -> None:
    """REQUEST_ID is CONTEXT's, or a new one of its own."""
    assert live.client.recommend(context={"request_id": "mine"}).request_id == "mine"
    assert live.client.recommend().request_id != live.client.recommend().request_id


def test_our_client_tells_a_bad_request_from_a_dead_server(live: Live) -> None:
    """A caller's fault is a UsageError, silence is a ServingError."""
    with pytest.raises(UsageError, match="K is 0"):
        live.client.recommend(k=0)
    with (
        our_client.RecommendClient(f"127.0.0.1:{free_port()}") as nobody,
        pytest.raises(ServingError, match="no answer"),
    ):
        nobody.recommend()


def test_a_killed_parent_takes_the_server_along(live: Live, tmp_path: Path) -> None:
    """However the supervisor dies, no server and no stub stays behind."""
    script = f"""
import sys, time
from pathlib import Path
from serving.triton.server import TritonServer, free_port
server = TritonServer(Path({str(live.server.repository)!r}), Path({str(tmp_path)!r}), Path({str(tmp_path / "log")!r}),
                      int(sys.argv[1]), free_port())
server.start()
print(server.shm_prefix, flush=True)
time.sleep(600)
"""
    port = free_port()
    command = [sys.executable, "-c", script, str(port)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    try:
        assert parent.stdout is not None
        prefix = parent.stdout.readline().strip()
        with our_client.RecommendClient(f"127.0.0.1:{port}") as client:
            wait_answer(lambda: parent.poll() is None, client)
        alive = len(family(prefix))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and family(prefix):
        time.sleep(0.1)

    assert alive == 2  # the server and one stub
    assert family(prefix) == []
    clear_shared_memory(prefix)


def family(prefix: str) -> list[str]:
    """Command lines of the processes that name this server's shared memory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if prefix in command and "-c" not in command.split()[1:2]:
            found.append(command)
    return found


def test_the_repository_keeps_three_versions(live: Live) -> None:
    """The config serves exactly the version on disk."""
    assert repository.revisions(live.server.repository) == [1]
    assert repository.pointed_to(live.server.repository) == 1
