"""An image installs what its code imports and nothing more, and is built as its manifests expect."""

import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import grimp
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
OURS = ("sidrec", "components", "pipelines", "feature_repo", "monitoring", "serving")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

FITTING = ("align_model", "study_cell", "train_model")
# Modules that an image runs, by name or by prefix; `-` leaves one out.
ENTRIES = {
    "steps": (
        *("components.", "pipelines.", "monitoring.", "sidrec.cli.schedule"),
        *(f"-components.{name}" for name in FITTING),
    ),
    "train": tuple(f"components.{name}." for name in FITTING),
    "gateway": ("serving.gateway.service",),
    "triton": ("serving.container", "serving.triton.model", "serving.triton.canary"),
}
# What is needed and that no import statement of ours shows.
UNSEEN = {
    "pyarrow": "the engine of pandas' and feast's Parquet",
    "tensorboard": "torch.utils.tensorboard",
    "jinja2": "chat templates of transformers",
    "kfp-kubernetes": "kfp.kubernetes",
    "httpx": "the teacher's API, imported by recipe",
    "typer": "the `sidrec` command",
    "pandas": "feast's tables",
    "psycopg": "SQLAlchemy's driver, loaded by the database's address",
}
# Chosen by a recipe and installed by whoever runs it; the code says so where it is absent.
OPTIONAL = {"vllm", "huggingface_hub"}
PROVIDED_BY_THE_SERVER = {"triton_python_backend_utils"}


def dockerfile(image: str) -> str:
    return (ROOT / "infra" / "images" / f"{image}.Dockerfile").read_text()


def extras(image: str) -> list[str]:
    [found] = re.findall(r"^ARG EXTRAS=(\S+)$", dockerfile(image), flags=re.MULTILINE)
    return str(found).split(",")


def copied(image: str) -> set[str]:
    """Return the top-level folders of ours that the last stage has."""
    last = dockerfile(image).rpartition("\nFROM ")[2]
    return {name for name in re.findall(r"^COPY (\w+) \1$", last, flags=re.MULTILINE)}


def name_of(requirement: str) -> str:
    return canonical(Requirement(requirement).name)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def left_out(image: str) -> set[str]:
    path = ROOT / "infra" / "images" / f"{image}-without.txt"
    if not path.exists():
        return set()
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name_of(line) for line in lines}


def direct(image: str) -> set[str]:
    """Return the distributions that the image asks for by name."""
    wanted = PROJECT["dependencies"] + [
        requirement for extra in extras(image) for requirement in PROJECT["optional-dependencies"][extra]
    ]
    return {name_of(requirement) for requirement in wanted} - left_out(image)


@cache
def requirements(distribution: str, extra: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    try:
        stated = metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return ()
    parsed = [Requirement(text) for text in stated]
    return tuple(
        (canonical(one.name), tuple(one.extras))
        for one in parsed
        if one.marker is None or one.marker.evaluate({"extra": extra})
    )


def installed(image: str) -> set[str]:
    """Return every distribution that comes with what the image asks for, as those installed here say."""
    wanted = PROJECT["dependencies"] + [r for extra in extras(image) for r in PROJECT["optional-dependencies"][extra]]
    todo = [(canonical(one.name), tuple(one.extras)) for one in map(Requirement, wanted)]
    seen: set[tuple[str, tuple[str, ...]]] = set()
    while todo:
        name, chosen = todo.pop()
        if (name, chosen) in seen or name in left_out(image):
            continue
        seen.add((name, chosen))
        for extra in ("", *chosen):
            todo += requirements(name, extra)
    return {name for name, _ in seen}


@cache
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*OURS, include_external_packages=True, cache_dir=None)


@cache
def reached(image: str) -> frozenset[str]:
    """Return every module that the image's entries import, inside functions too, the external ones by top name."""
    chosen = [entry for entry in ENTRIES[image] if not entry.startswith("-")]
    without = tuple(entry[1:] for entry in ENTRIES[image] if entry.startswith("-"))
    ours = [module for module in graph().modules if module.split(".")[0] in OURS]
    todo = [m for m in ours if any(m == e or (e.endswith(".") and m.startswith(e)) for e in chosen)]
    todo = [module for module in todo if not module.startswith(without)] if without else todo
    seen: set[str] = set()
    while todo:
        module = todo.pop()
        # A pipeline is compiled from all components' specs; a step's own code runs in that step's image.
        if module in seen or (without and module.startswith(without)):
            continue
        seen.add(module)
        if module.split(".")[0] in OURS:
            todo += graph().find_modules_directly_imported_by(module)
            todo += [module.rpartition(".")[0]] * ("." in module)
    return frozenset(seen)


def external(image: str) -> set[str]:
    names = {module.split(".")[0] for module in reached(image)}
    return names - set(OURS) - set(sys.stdlib_module_names) - OPTIONAL - PROVIDED_BY_THE_SERVER


PROVIDERS = {
    name: {canonical(distribution) for distribution in distributions}
    for name, distributions in metadata.packages_distributions().items()
}
# 400 MB that no test of `make test` needs, so it may be absent here.
PROVIDERS.setdefault("pyspark", {"pyspark"})

IMAGES = tuple(ENTRIES)


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_imported_is_installed(image: str) -> None:
    """No step, door or job finds a package missing: what its code imports comes with the image's extras."""
    has = installed(image)
    missing = {name for name in external(image) if not PROVIDERS.get(name, set()) & has}

    assert not missing


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_installed_is_imported(image: str) -> None:
    """Nothing is asked for that no code of the image imports: less to patch, less to attack."""
    used = set().union(*(PROVIDERS.get(name, set()) for name in external(image)))

    # What others ask for anyway costs nothing to name.
    by_others = {name for one in installed(image) for name, _ in requirements(one, "")}

    unused = direct(image) - used - by_others - set(UNSEEN)
    assert not unused


@pytest.mark.parametrize("image", IMAGES)
def test_nothing_that_is_left_out_is_missed(image: str) -> None:
    """What the library asks for and an image leaves out is asked for by nobody else there."""
    needed = {
        (name, distribution)
        for distribution in installed(image)
        for name, _ in requirements(distribution, "")
        if name in left_out(image)
    }

    assert not needed


@pytest.mark.parametrize("image", IMAGES)
def test_the_folders_are_those_that_are_imported(image: str) -> None:
    """The code that an image carries is the code that it runs."""
    wanted = {("src" if module.split(".")[0] == "sidrec" else module.split(".")[0]) for module in reached(image)}

    assert copied(image) == wanted & {"src", *OURS}


@pytest.mark.parametrize("image", IMAGES)
def test_built_in_stages_from_pinned_bases_for_a_user_who_is_not_root(image: str) -> None:
    """No compiler cache or installer in what runs, a base by digest, a numeric user that manifests can check."""
    text = dockerfile(image)
    bases = dict(
        line.split("=", 1) for line in (ROOT / "infra/images/bases.env").read_text().splitlines() if line[0] != "#"
    )
    stages = re.findall(r"^FROM (\S+)(?: AS \w+)?$", text, flags=re.MULTILINE)

    assert len(stages) == 2
    assert all(re.search(r"@sha256:[0-9a-f]{64}$", bases[stage.strip("${}")]) for stage in stages)
    assert re.findall(r"^USER (\S+)$", text, flags=re.MULTILINE) == ["10001:10001"]
    assert not re.search(r"^(ADD|ENV .*(TOKEN|PASSWORD|SECRET))", text, flags=re.MULTILINE)


def test_triton_starts_by_what_verifies() -> None:
    """The image's entry point checks the signed bundle before it starts a server; nothing else is its command."""
    assert 'ENTRYPOINT ["python", "-m", "serving.container"]' in dockerfile("triton")


def test_manifests_name_images_that_are_built() -> None:
    """A name in the manifests is one of build.sh's or a mirrored one."""
    folders = (ROOT / "infra" / "k8s" / "base", ROOT / "infra" / "k8s" / "training")
    text = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.yaml"))
    named = set(re.findall(r"^\s*image: (\S+)$", text, flags=re.MULTILINE))

    assert named == {"sidrec-triton", "sidrec-gateway", "sidrec-steps-python", "redis", "postgres"} | {
        "sidrec-train-python"
    }


def test_everything_that_is_copied_is_in_the_context() -> None:
    """`.dockerignore` lets through what the Dockerfiles copy."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = {
        source
        for image in IMAGES
        for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(image), flags=re.MULTILINE)
        for source in line.split()[:-1]
    }
    absent = {source for source in sources if not (ROOT / source).exists()}
    kept_out = {s for s in sources if not any(Path(s).match(name) or s.startswith(f"{name}/") for name in allowed)}

    assert (absent, kept_out) == (set(), set())


@pytest.mark.parametrize("script", ["build.sh", "pin.sh", "sbom.sh", "audit.sh"])
def test_scripts_parse(script: str) -> None:
    """A release script that no test here can run is at least one that bash reads."""
    subprocess.run(["bash", "-n", str(ROOT / "infra" / "images" / script)], check=True)
