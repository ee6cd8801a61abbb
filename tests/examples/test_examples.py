"""Each example does what it shows, against a real server."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from tritonclient.grpc import InferResult, service_pb2, service_pb2_grpc

from serving.gateway.process import GatewayProcess
from serving.triton.server import free_port
from sidrec import contract
from tests.serving.conftest import Live
from tests.serving.gateway.conftest import TOKEN
from tests.serving.world import ROOT

EXAMPLES = ROOT / "examples"


def run(*command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable, **variables}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, env=env)


def top_five(live: Live) -> dict[tuple[str, ...], list[float]]:
    """What each arm recommends after i4, with the scores; a request that names nobody may reach either arm."""
    answers = (live.client.recommend(history=["i4"], k=5, context={"request_id": str(n)}) for n in range(20))
    return {answer.item_ids: answer.scores.tolist() for answer in answers}


@pytest.mark.parametrize("name", ["client_threads.py", "plain_tritonclient.py"])
def test_a_python_example_prints_what_the_server_recommends(live: Live, name: str) -> None:
    """Five lines, an item and a score each, the same as our client gets."""
    wanted = top_five(live)
    done = run(sys.executable, EXAMPLES / name, live.server.url, "i4")

    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(wanted) == 2
    scores = wanted[tuple(item for item, _ in rows)]
    assert [float(score) for _, score in rows] == pytest.approx(scores, abs=6e-4)
    assert "source=model" in done.stderr


def test_the_example_without_sidrec_needs_none() -> None:
    """It imports tritonclient and numpy, nothing of ours."""
    text = (EXAMPLES / "plain_tritonclient.py").read_text()

    assert "from sidrec" not in text
    assert "import sidrec" not in text


def test_the_example_names_every_input_of_the_contract() -> None:
    """A new input must appear in both examples that do not use our client."""
    text = (EXAMPLES / "plain_tritonclient.py").read_text()
    sent = json.loads((EXAMPLES / "recommend.json").read_text())["inputs"]

    assert [(one["name"], one["datatype"]) for one in sent] == [(one.name, one.datatype) for one in contract.INPUTS]
    assert all(f'tensor("{one.name}", "{one.datatype}"' in text for one in contract.INPUTS)


def test_the_example_with_an_event_loop_asks_for_all(live: Live) -> None:
    """One line a user, in order."""
    done = run(sys.executable, EXAMPLES / "client_asyncio.py", live.server.url, "i4", "i9", "nothing we sell")

    assert done.returncode == 0, done.stderr
    rows = dict(line.split("\t") for line in done.stdout.splitlines())
    assert list(rows) == ["i4", "i9", "nothing we sell"]
    assert tuple(rows["i4"].split(",")) in top_five(live)


def test_an_example_without_a_server_says_what_to_do() -> None:
    """One sentence and exit status 1, no traceback."""
    done = run(sys.executable, EXAMPLES / "client_threads.py", f"127.0.0.1:{free_port()}", "i4")

    assert done.returncode == 1
    assert done.stderr.startswith("go on without recommendations: no answer from")
    assert "Traceback" not in done.stderr


def test_the_protoset_describes_the_service_by_itself(live: Live, tmp_path: Path) -> None:
    """From the written file alone, without tritonclient's classes, the example's request is built and answered."""
    assert run(sys.executable, EXAMPLES / "protoset.py", tmp_path / "protoset").returncode == 0
    described = descriptor_pb2.FileDescriptorSet.FromString((tmp_path / "protoset").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in described.file:
        pool.Add(file)
    method = pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name["ModelInfer"]
    request, answer = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    body = json_format.Parse((EXAMPLES / "recommend.json").read_text(), request())
    with grpc.insecure_channel(live.server.url) as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer", request.SerializeToString, answer.FromString
        )
        said = call(body, timeout=10)

    assert [output.name for output in said.outputs][:2] == ["ITEM_ID", "SCORE"]
    assert list(said.outputs[0].shape) == [1, 5]


def test_the_shell_examples_request_is_a_sound_one(live: Live) -> None:
    """Its texts are those of the README's items, and the server answers five."""
    request = json_format.Parse((EXAMPLES / "recommend.json").read_text(), service_pb2.ModelInferRequest())
    with grpc.insecure_channel(live.server.url) as channel:
        result = InferResult(service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10))

    assert request.inputs[1].contents.bytes_contents == [b"85123A", b"71053"]
    assert json.loads(request.inputs[5].contents.bytes_contents[0]) == {"surface": "example"}
    assert result.as_numpy("ITEM_ID").shape == (1, 5)


def test_the_server_has_no_reflection(live: Live) -> None:
    """The reason for the protoset; once this fails, grpcurl needs none."""
    for version in ("v1", "v1alpha"):
        with grpc.insecure_channel(live.server.url) as channel:
            ask = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
            listed = ask(iter([b":\x00"]), timeout=10)
            with pytest.raises(grpc.RpcError) as caught:
                next(listed)

        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
def test_grpcurl_gets_an_answer(live: Live) -> None:
    """The answer names the tensors of the contract."""
    done = run("sh", EXAMPLES / "grpcurl.sh", live.server.url)

    assert done.returncode == 0, done.stderr
    assert [one["name"] for one in json.loads(done.stdout)["outputs"]] == [one.name for one in contract.OUTPUTS]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_an_answer_through_the_gateway(live: Live, gateway: GatewayProcess) -> None:
    """Five items with the token; without it curl fails and shows the reason."""
    done = run("sh", EXAMPLES / "curl.sh", gateway.url, "i4", SIDREC_GATEWAY_TOKEN=TOKEN)
    refused = run("sh", EXAMPLES / "curl.sh", gateway.url, "i4", SIDREC_GATEWAY_TOKEN="")

    assert done.returncode == 0, done.stderr
    assert tuple(item["item_id"] for item in json.loads(done.stdout)["items"]) in top_five(live)
    assert refused.returncode == 22
    assert json.loads(refused.stdout)["error"] == "unauthorized"
