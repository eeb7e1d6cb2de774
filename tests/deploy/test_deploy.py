"""The files for operators agree with the product, as far as reading them can tell.

No image is built, no cluster is asked and no link beyond the repository is followed.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import serd
from serd.cli import cli
from serd.config.loading import load
from serd.config.schema import Config
from serd.runtime.catalogue import HELP

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGES = (DEPLOY / "README.md", DEPLOY / "data-protection.md", DEPLOY / "notice.md")
README = PAGES[0].read_text()
PORTS = {5550, 5556, 5557, 9464}

Yaml = dict[str, Any]


def documents(name: str) -> list[Yaml]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def of_kind(kind: str) -> Yaml:
    [found] = [one for one in documents("kubernetes/serd.yaml") if one["kind"] == kind]
    return found


def pod() -> Yaml:
    spec: Yaml = of_kind("StatefulSet")["spec"]["template"]["spec"]
    return spec


def container() -> Yaml:
    [one] = pod()["containers"]
    found: Yaml = one
    return found


def containerfile() -> dict[str, list[str]]:
    """Arguments of every instruction of the last stage."""
    text = (DEPLOY / "container/Containerfile").read_text().replace("\\\n", " ")
    stage = re.split(r"^FROM .*$", text, flags=re.MULTILINE)[-1]
    found: dict[str, list[str]] = {}
    for name, rest in re.findall(r"^([A-Z]+) +(.*)$", stage, re.MULTILINE):
        found.setdefault(name, []).append(" ".join(rest.split()))
    return found


def ports_of(config: Config) -> set[int]:
    """Every port on which a configuration listens, with a check that it is for all addresses."""
    bound = [config.metrics.bind, *config.publish.bind, *config.publish.replay_bind]
    for source in config.sources:
        bound += getattr(source, "bind", ())
    return {int(endpoint.rpartition(":")[2]) for endpoint in bound}


def configuration(text: str, folder: Path) -> Config:
    path = folder / "serd.toml"
    path.write_text(text)
    return load(path)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands() -> Iterator[list[str]]:
    """Every command line of serd in code blocks and between backticks."""
    for page in (*PAGES, ROOT / "systemd/README.md"):
        lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
        lines += re.findall(r"`(serd [a-z][^`]*)`", page.read_text())
        for line in lines:
            for part in re.split(r"[|;]|&&", line.partition("#")[0]):
                words = shlex.split(part)
                at = next((n for n, word in enumerate(words) if Path(word).name == "serd"), None)
                # Only where serd is what is run: by itself, or in a container of its name.
                if at is not None and (at == 0 or words[:2] == ["podman", "exec"]):
                    yield words[at + 1 :]


def test_the_defaults_are_the_ports_that_everything_here_names() -> None:
    assert ports_of(Config()) == PORTS
    table = dict(re.findall(r"^\| (\d{4}) \| (\S+?):? ", README, re.MULTILINE))
    assert set(map(int, table)) == PORTS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_configuration_that_is_shown_is_in_order(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        configuration(block, tmp_path)


def test_some_configuration_and_some_commands_are_shown() -> None:
    assert blocks(PAGES[0], "toml")
    assert len(list(commands())) > 15


def test_every_command_and_option_exists() -> None:
    for words in commands():
        group: click.Command = cli
        context = click.Context(cli)
        rest = list(words)
        while isinstance(group, click.Group) and rest and not rest[0].startswith("-"):
            name = rest.pop(0)
            found = group.get_command(context, name)
            assert found is not None, f"serd {' '.join(words)}: there is no {name}"
            group = found
        known = {option for parameter in group.params for option in parameter.opts}
        known |= {"--help", "-h"}
        for word in rest:
            if word.startswith("-"):
                assert word.partition("=")[0] in known, f"serd {' '.join(words)}"


def test_every_key_that_is_named_exists() -> None:
    sections = set(Config.model_fields)
    for page in (*PAGES, ROOT / "systemd/README.md"):
        for section, key in re.findall(r"`([a-z]+)\.([a-z_]+)\b[^`]*`", page.read_text()):
            # `audit.jsonl` is a file, `audit.chain` an event of the log.
            if section not in sections or key in {"jsonl", "chain"}:
                continue
            annotation = Config.model_fields[section].annotation
            if section == "sources":
                assert key in {"consent", "roles", "bind", "connect"}, f"{page.name}: {key}"
            else:
                fields = getattr(annotation, "model_fields")  # noqa: B009
                assert key in fields, f"{page.name}: {section}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]*)(?:#[^)]*)?\)", page.read_text()):
        if target and "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_metric_that_is_named_exists() -> None:
    known = set(HELP) | {"serd_streams", "serd_segment_latency_seconds"}
    source = (ROOT / "serd/runtime/metrics.py").read_text()
    assert all(f'"{name}"' in source for name in known - set(HELP))
    for name in re.findall(r"`(serd_[a-z_*]+)`", README):
        stem = name.removesuffix("*").removesuffix("_total").removesuffix("_")
        assert any(metric.startswith(stem) for metric in known), name


def test_the_defaults_that_are_named_are_the_defaults() -> None:
    table = re.findall(r"^\| `streams\.(\w+)` \| `([^`]*)`", README, re.MULTILINE)
    assert {key for key, _ in table} == {"refuse_roles", "allow_mixed", "require_consent"}
    streams = Config().streams.model_dump(mode="json")
    for key, value in table:
        assert tomllib.loads(f"value = {value}")["value"] == streams[key]
    protection = (DEPLOY / "data-protection.md").read_text()
    assert f"`journal.ttl_h` ({Config().journal.ttl_h:g} h)" in protection


def test_every_alarm_is_explained_and_no_other() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus/serd.rules.yml").read_text())
    alarms = {
        rule["alert"]: rule["labels"]["severity"]
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert dict(re.findall(r"^\| `(Serd\w+)` \| (\w+) \|", README, re.MULTILINE)) == alarms


# the image


def test_the_image_runs_as_nobody_in_particular_and_says_how_it_is() -> None:
    image = containerfile()
    assert image["USER"] == ["10001:10001"]
    assert set(map(int, image["EXPOSE"][0].split())) == PORTS
    assert image["STOPSIGNAL"] == ["SIGTERM"]
    assert image["VOLUME"] == ["/var/lib/serd"]
    assert "http://127.0.0.1:9464/health/ready" in image["HEALTHCHECK"][0]
    assert image["ENTRYPOINT"] == ['["serd"]']
    assert image["CMD"] == ['["run", "--config", "/etc/serd/serd.toml"]']
    assert "STATE_DIRECTORY=/var/lib/serd" in image["ENV"][0]


def test_the_image_is_made_of_what_is_there_and_sent() -> None:
    text = (DEPLOY / "container/Containerfile").read_text()
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    for copied in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
        *sources, _ = copied.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(line.startswith("!") and source.startswith(line[1:]) for line in ignore), (
                source
            )
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cpu", "gpu"} <= set(extras["optional-dependencies"])
    wanted = extras["requires-python"].removeprefix(">=")
    [python] = re.findall(r"^ARG PYTHON=(\d+\.\d+)-slim", text, re.MULTILINE)
    assert tuple(map(int, python.split("."))) >= tuple(map(int, wanted.split(".")))


def test_the_configuration_in_the_image_listens_where_its_ports_are(tmp_path: Path) -> None:
    config = load(DEPLOY / "container/serd.toml")
    assert ports_of(config) == PORTS
    in_cluster = configuration(of_kind("ConfigMap")["data"]["serd.toml"], tmp_path)
    assert in_cluster == config


def test_every_tag_is_that_of_the_version() -> None:
    for name in (
        "README.md",
        "container/Containerfile",
        "container/compose.yaml",
        "container/compose.gpu.yaml",
        "kubernetes/serd.yaml",
        "kubernetes/gpu.yaml",
    ):
        tags = re.findall(r"\bserd:(\S+?)-(?:cpu|gpu)\b", (DEPLOY / name).read_text())
        assert tags, name
        assert set(tags) == {serd.__version__}, name


# compose


def test_the_composed_service_is_closed_in() -> None:
    [service] = documents("container/compose.yaml")[0]["services"].values()
    assert service["read_only"] is True
    assert service["user"] == "10001:10001"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ulimits"]["core"] == 0
    assert service["mem_limit"] == service["memswap_limit"]
    published = [port.split(":") for port in service["ports"]]
    assert {(host, int(outside), int(inside)) for host, outside, inside in published} == {
        ("127.0.0.1", port, port) for port in PORTS
    }
    assert "state:/var/lib/serd" in service["volumes"]
    folder = DEPLOY / "container"
    assert (folder / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    grace_s = int(service["stop_grace_period"].removesuffix("s"))
    assert grace_s > load(folder / "serd.toml").daemon.drain_timeout_s


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_gpu_is_asked_for_in_words_that_serd_takes(where: str) -> None:
    if where == "compose":
        service: Mapping[str, Any] = documents("container/compose.gpu.yaml")[0]["services"]["serd"]
        arguments, image = service["command"], service["image"]
        assert service["mem_limit"] == service["memswap_limit"]
    else:
        patch = documents("kubernetes/gpu.yaml")[0]["spec"]["template"]["spec"]
        [patched] = patch["containers"]
        assert patched["name"] == container()["name"]
        arguments, image = patched["args"], patched["image"]
    assert image.endswith("-gpu")
    assert arguments[:3] == ["run", "--config", "/etc/serd/serd.toml"]
    overrides = [arguments[at + 1] for at, word in enumerate(arguments) if word == "--set"]
    assert load(DEPLOY / "container/serd.toml", overrides).inference.device == "cuda"


# Kubernetes


def test_the_pod_meets_the_restricted_standard() -> None:
    security = pod()["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == security["fsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False
    kinds = {next(key for key in volume if key != "name") for volume in pod()["volumes"]}
    assert kinds <= {"configMap", "emptyDir"}
    assert pod()["terminationGracePeriodSeconds"] > Config().daemon.drain_timeout_s


def test_probes_ports_volumes_and_policy_agree() -> None:
    named = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert set(named.values()) == PORTS
    assert container()["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "metrics"}
    for probe in ("readinessProbe", "startupProbe"):
        assert container()[probe]["httpGet"] == {"path": "/health/ready", "port": "metrics"}
    assert named["metrics"] == 9464
    service = of_kind("Service")["spec"]
    assert {port["targetPort"]: port["port"] for port in service["ports"]} == named
    policy = of_kind("NetworkPolicy")["spec"]
    allowed = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert allowed == PORTS
    assert policy["egress"] == []
    stateful = of_kind("StatefulSet")["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    for selector in (
        service["selector"],
        stateful["selector"]["matchLabels"],
        policy["podSelector"]["matchLabels"],
    ):
        assert selector == labels
    [claim] = stateful["volumeClaimTemplates"]
    volumes = {volume["name"] for volume in pod()["volumes"]} | {claim["metadata"]["name"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    assert set(mounts) == volumes
    assert mounts[claim["metadata"]["name"]] == "/var/lib/serd"
    assert stateful["replicas"] == 1
    monitor = documents("kubernetes/servicemonitor.yaml")[0]["spec"]
    assert monitor["selector"]["matchLabels"] == of_kind("Service")["metadata"]["labels"]
    assert [one["port"] for one in monitor["endpoints"]] == ["metrics"]
