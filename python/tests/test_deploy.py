"""What is in deploy/ does what it says, as far as one machine can tell."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap

import jsonschema
import pytest
import secateur
import yaml
from conftest import QUICKSTART, ROOT, SMALL, timeless

if os.environ.get("SECATEUR_REQUIRE_BINARY") != "1":
    for name in ("ray", "kubernetes_validate"):
        pytest.importorskip(name, reason="pip install -r python/tests/requirements.txt")
import kubernetes_validate  # noqa: E402

DEPLOY = ROOT / "deploy"
# Stands in for Slurm: nodes are processes on this machine, and what was asked of it is written down.
SRUN = """\
    #!/usr/bin/env bash
    echo "srun $*" >>"$FAKE_SLURM/calls"
    n=1
    while [[ ${1:-} == --* ]]; do
        case $1 in --ntasks=*) n=${1#*=} ;; esac
        shift
    done
    if [ "$1" = hostname ]; then echo 127.0.0.1; exit; fi
    trap 'kill -TERM $(jobs -p) 2>/dev/null' TERM
    for _ in $(seq "$n"); do "$@" & done
    wait; wait
    """
SCONTROL = """\
    #!/usr/bin/env bash
    echo "scontrol $*" >>"$FAKE_SLURM/calls"
    printf 'node1\\nnode2\\n'
    """


def test_a_batch_job_starts_ray_on_all_its_nodes_and_ends_as_a_run(tmp_path):
    script = DEPLOY / "slurm" / "search.sbatch"
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (slurm / name).write_text(textwrap.dedent(text))
        (slurm / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{slurm}:{os.environ['PATH']}",
        "FAKE_SLURM": str(slurm),
        "PYTHON": sys.executable,
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "2",
        "RAY_TMPDIR": str(_short_dir()),
    }
    sets = [argument for change in SMALL for argument in ("--set", change)]
    try:
        done = subprocess.run(
            [script, QUICKSTART, tmp_path / "run", "--workers", "3", *sets], env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    finally:
        shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = secateur.run(QUICKSTART, out=tmp_path / "alone", sets=SMALL, progress=False)
    assert timeless(json.loads((tmp_path / "run" / "summary.json").read_text())) == timeless(alone.summary)
    calls = (slurm / "calls").read_text().splitlines()
    assert calls[0] == "scontrol show hostnames node[1-2]" and calls[1].endswith("--nodelist=node1 hostname --ip-address")
    head, others = (next(call for call in calls if pattern in call) for pattern in ("start --head", "start --address"))
    assert "--nodelist=node1 " in head and "--num-cpus=1 " in head
    assert "--nodelist=node2 " in others and "--nodes=1 --ntasks=1" in others and others.endswith("--num-cpus=2")
    missing = subprocess.run([script], env=environment, capture_output=True, text=True, check=False)
    assert missing.returncode == 2 and "usage: sbatch" in missing.stderr


def _short_dir():
    """Ray's sockets are below it, and their paths may have 107 bytes."""
    return pathlib.Path(tempfile.mkdtemp(prefix="sr", dir="/tmp"))


def pods(node):
    """Every pod template within a document."""
    if isinstance(node, dict):
        if "template" in node:
            yield node["template"]
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


def as_pod(template):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", **template.get("metadata", {})}, "spec": template["spec"]}


def test_the_pods_of_the_ray_job_are_pods_of_kubernetes():
    claim, job = yaml.safe_load_all((DEPLOY / "kuberay" / "search.yaml").read_text())
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(claim, version, strict=True)
    found = list(pods(job))
    assert len(found) == 2
    for template in found:
        kubernetes_validate.validate(as_pod(template), version, strict=True)
        # The check can fail.
        wrong = as_pod(template)
        wrong["spec"] = {**wrong["spec"], "container": []}
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, version, strict=True)


def object_of(required=(), **fields):
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


TEXT, NUMBER, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
# KubeRay hands them to `ray start`: a number without quotes is refused.
START = {"type": "object", "additionalProperties": TEXT}
POD = {"type": "object"}
# The fields that KubeRay's ray.io/v1 RayJob has around the pods, as its types and its RayJob CRD name them.
RAY_JOB = object_of(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=object_of(["name"], name=TEXT),
    spec=object_of(
        ["entrypoint", "rayClusterSpec"],
        activeDeadlineSeconds=NUMBER,
        backoffLimit=NUMBER,
        entrypoint=TEXT,
        entrypointNumCpus={"type": "number"},
        runtimeEnvYAML=TEXT,
        shutdownAfterJobFinishes=FLAG,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        suspend=FLAG,
        ttlSecondsAfterFinished=NUMBER,
        rayClusterSpec=object_of(
            ["headGroupSpec"],
            rayVersion=TEXT,
            enableInTreeAutoscaling=FLAG,
            autoscalerOptions=object_of(idleTimeoutSeconds=NUMBER, upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]}),
            headGroupSpec=object_of(["rayStartParams", "template"], rayStartParams=START, serviceType=TEXT, template=POD),
            workerGroupSpecs={
                "type": "array",
                "items": object_of(
                    ["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"],
                    groupName=TEXT,
                    replicas=NUMBER,
                    minReplicas=NUMBER,
                    maxReplicas=NUMBER,
                    numOfHosts=NUMBER,
                    rayStartParams=START,
                    template=POD,
                ),
            },
        ),
    ),
)


def test_around_its_pods_the_ray_job_has_the_fields_of_kuberay():
    _, job = yaml.safe_load_all((DEPLOY / "kuberay" / "search.yaml").read_text())
    jsonschema.validate(job, RAY_JOB)
    # The check can fail: on a field of another name, and on a number where `ray start` needs text.
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["rayStartParams"]["num-cpus"] = 15
    with pytest.raises(jsonschema.ValidationError, match="15 is not of type 'string'"):
        jsonschema.validate(job, RAY_JOB)
    job["spec"]["backOffLimit"] = job["spec"].pop("backoffLimit")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(job, RAY_JOB)


def test_the_ray_job_fits_its_image_its_volume_and_this_package():
    claim, job = yaml.safe_load_all((DEPLOY / "kuberay" / "search.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    image = (DEPLOY / "kuberay" / "Dockerfile").read_text()
    ours = re.search(r"^ray==(.*)$", (ROOT / "python" / "tests" / "requirements.txt").read_text(), re.MULTILINE)[1]
    assert cluster["rayVersion"] == ours and f"rayproject/ray:{ours}-py311" in image
    head, workers = cluster["headGroupSpec"]["template"]["spec"], cluster["workerGroupSpecs"][0]
    assert head["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    # The command line is one that the module takes, and a worker fits a node.
    words = job["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "secateur.ray"]
    shown = subprocess.run([sys.executable, "-m", "secateur.ray", "--help"], capture_output=True, text=True, check=True).stdout
    assert all(word in shown for word in words if word.startswith("--"))
    cpus = words[words.index("--cpus-per-worker") + 1]
    (container,) = workers["template"]["spec"]["containers"]
    assert cpus == workers["rayStartParams"]["num-cpus"] == container["resources"]["requests"]["cpu"]
    assert int(words[words.index("--workers") + 1]) == workers["maxReplicas"]
    mounted = head["containers"][0]["volumeMounts"][0]["mountPath"]
    assert all(word.startswith(mounted + "/") for word in words if word.startswith("/"))
