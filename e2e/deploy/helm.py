"""The Helm chart: rendered by Helm's own engine, and validated with Kubernetes' schemas.

    target/helm/bin/python -m e2e.deploy.helm

It needs the packages `helm-sdkpy`, `kubernetes-validate` and `PyYAML`. scripts/test installs them to target/helm.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from e2e.deploy.apiserver import Cluster
from e2e.deploy.rejected_values import PUBLIC_KEY, REJECTED
from testkit.build import PCKTR, ROOT, need_pcktr
from testkit.outcome import Failed, Skipped, check, equal, until
from testkit.report import Report

CHART = ROOT / "deploy/helm/packeteur"
EXAMPLES = sorted((ROOT / "deploy/helm/examples").glob("*.yaml"))
NAMESPACE = "packets"
OLDEST = (1, 27)

# The severity of a warning from `helm lint`.
WARNING = 2


class Chart:
    """The chart, and the engine that renders it."""

    def __init__(self):
        try:
            import helm_sdkpy
            import kubernetes_validate
            import yaml
        except ImportError as error:
            raise Skipped(f"{error.name} is not installed (pip: helm-sdkpy, kubernetes-validate, PyYAML)") from None
        self.helm, self.kubernetes, self.yaml = helm_sdkpy, kubernetes_validate, yaml
        minors = {
            tuple(int(part) for part in version.split(".")[:2]) for version in kubernetes_validate.utils.all_versions()
        }
        self.versions = [f"{major}.{minor}" for major, minor in sorted(minors) if (major, minor) >= OLDEST]

    def values(self, path):
        return {} if path is None else self.yaml.safe_load(path.read_text())

    def render(self, values):
        """The objects that the chart creates."""
        cluster = Cluster(OLDEST)
        with tempfile.TemporaryDirectory() as folder:
            try:
                configuration = self.helm.Configuration(namespace=NAMESPACE, kubeconfig=cluster.kubeconfig(folder))
                install = self.helm.Install(configuration)
                asyncio.run(install.run("fleet", str(CHART), values=values, wait=False, timeout=30))
            finally:
                cluster.close()
        return cluster.created

    def lint(self, path):
        """Runs `helm lint` on the chart with these values. Warnings are errors."""
        with tempfile.TemporaryDirectory() as folder:
            copy = shutil.copytree(CHART, Path(folder, CHART.name))
            values = self.yaml.safe_load((CHART / "values.yaml").read_text())
            Path(copy, "values.yaml").write_text(self.yaml.safe_dump(merged(values, self.values(path))))
            cluster = Cluster(OLDEST)
            try:
                configuration = self.helm.Configuration(namespace=NAMESPACE, kubeconfig=cluster.kubeconfig(folder))
                result = asyncio.run(self.helm.Lint(configuration).run(str(copy)))
            finally:
                cluster.close()
        check(result["TotalChartsLinted"] == 1 and not result["Errors"], f"lint reports {result}")
        warnings = [message for message in result["Messages"] or [] if message["Severity"] >= WARNING]
        equal(warnings, [], "warnings and errors")

    def validate(self, objects):
        """Validates all objects with the schemas of every version. Unknown fields are errors."""
        for version in self.versions:
            for one in objects:
                if one["apiVersion"].startswith("monitoring.coreos.com/"):
                    continue
                try:
                    self.kubernetes.validate(one, version, strict=True)
                except self.kubernetes.ValidationError as error:
                    where = ".".join(map(str, error.path))
                    raise Failed(f"Kubernetes {version}: {name_of(one)}: {where}: {error.message}") from None

    def rejects(self, values, message):
        """Checks that rendering fails with this message."""
        try:
            objects = self.render(values)
        except self.helm.HelmError as error:
            check(message in str(error), f"the message is: {error}")
        else:
            raise Failed(f"accepted: it renders {len(objects)} objects")


def merged(base, over):
    """Values overridden by other values, as Helm merges them."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    return base | {key: merged(base[key], value) if key in base else value for key, value in over.items()}


def name_of(one):
    return f"{one['kind']} {one['metadata']['name']}"


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def containers(one):
    spec = one["spec"]["template"]["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def environment(one):
    (container,) = [container for container in containers(one) if container["name"] == "pcktr"]
    return {entry["name"]: entry.get("value") for entry in container["env"]}


def is_consistent(objects):
    """Selectors match, port names and volumes exist, and the captures' endpoint is the collector's."""
    workloads = of_kind(objects, "DaemonSet") + of_kind(objects, "StatefulSet")
    check(workloads, "nothing is rendered")
    labels = {name_of(one): one["spec"]["template"]["metadata"]["labels"] for one in workloads}
    ports = {}
    for one in workloads:
        ports[name_of(one)] = {port["name"] for container in containers(one) for port in container.get("ports", [])}

    def found(selector):
        return [name for name, had in labels.items() if selector.items() <= had.items()]

    for one in workloads:
        equal(found(one["spec"]["selector"]["matchLabels"]), [name_of(one)], f"pods of {name_of(one)}")
        for container in one["spec"]["template"]["spec"]["containers"]:
            for probe in ("livenessProbe", "readinessProbe"):
                if probe in container:
                    check(container[probe]["httpGet"]["port"] in ports[name_of(one)], f"{name_of(one)}: {probe}")
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            spec = one["spec"]
            volumes = {volume["name"] for volume in spec["template"]["spec"].get("volumes", [])}
            volumes |= {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", [])}
            check(mounts <= volumes, f"{name_of(one)}: mounts {mounts}, has {volumes}")
    for service in of_kind(objects, "Service"):
        (pods,) = found(service["spec"]["selector"])
        for port in service["spec"]["ports"]:
            check(port["targetPort"] in ports[pods], f"{name_of(service)}: {port}")
    for monitor in of_kind(objects, "PodMonitor"):
        (pods,) = found(monitor["spec"]["selector"]["matchLabels"])
        check(
            {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports[pods], name_of(monitor)
        )
    for monitor in of_kind(objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = [one for one in of_kind(objects, "Service") if selector <= one["metadata"]["labels"].items()]
        names = {port["name"] for port in service["spec"]["ports"]}
        check({endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= names, name_of(monitor))
    for collector in of_kind(objects, "StatefulSet"):
        pod = f"{collector['metadata']['name']}-0.{collector['spec']['serviceName']}.{NAMESPACE}.svc"
        port = environment(collector)["COLLECT_ENDPOINT"].rpartition(":")[2]
        for nodes in of_kind(objects, "DaemonSet"):
            equal(environment(nodes)["RELAY_ENDPOINT"], f"tcp://{pod}:{port}", "RELAY_ENDPOINT")


def is_confined(objects):
    """No root, no capability but NET_RAW for captures, and a read-only root file system."""
    for one in of_kind(objects, "DaemonSet") + of_kind(objects, "StatefulSet"):
        pod = one["spec"]["template"]["spec"]
        check(pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False, name_of(one))
        for container in containers(one):
            context = container["securityContext"]
            nodes = one["kind"] == "DaemonSet"
            want = {"drop": ["ALL"], "add": ["NET_RAW"]} if nodes else {"drop": ["ALL"]}
            equal(context["capabilities"], want, f"capabilities of {name_of(one)}")
            equal(context["allowPrivilegeEscalation"], nodes, "allowPrivilegeEscalation")
            equal(context["readOnlyRootFilesystem"], True, "readOnlyRootFilesystem")
            check("limits" in container["resources"], f"{name_of(one)} has no limits")


def use_keys(one, objects, own, folder):
    """Makes the key that the settings `own` name, and writes the list of captures to a file."""
    pod = one["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
    mounts = {mount["mountPath"]: volumes.get(mount["name"]) for mount in pod["containers"][0].get("volumeMounts", [])}
    for setting in ("KEY_FILE", "AUTHORIZED_KEYS"):
        if setting not in own:
            continue
        directory, name = os.path.split(own[setting])
        volume, own[setting] = mounts[directory], str(Path(folder, name))
        if setting == "KEY_FILE":
            equal(volume["secret"]["defaultMode"] & 0o007, 0, "permissions of others for the key")
            equal(pod["securityContext"]["fsGroup"], pod["securityContext"]["runAsGroup"], "the group of the key")
            equal([item["path"] for item in volume["secret"]["items"]], [name], "files of the Secret")
            keygen = {"MODE": "keygen", "KEY_FILE": own[setting]}
            subprocess.run([PCKTR], env=keygen, stdout=subprocess.DEVNULL, timeout=10, check=True)
        else:
            (keys,) = [
                known
                for known in of_kind(objects, "ConfigMap")
                if known["metadata"]["name"] == volume["configMap"]["name"]
            ]
            Path(own[setting]).write_text(keys["data"][name])


def accepts_settings(objects):
    """The program accepts all settings of the chart, including the filter."""
    need_pcktr()
    text = subprocess.run([PCKTR, "--help"], capture_output=True, text=True, timeout=10, check=True).stdout
    known = set(re.findall(r"^([A-Z_]+)=", text, re.MULTILINE))
    for one in of_kind(objects, "DaemonSet") + of_kind(objects, "StatefulSet"):
        equal(sorted(set(environment(one)) - known), [], f"unknown settings of {name_of(one)}")
        with tempfile.TemporaryDirectory() as folder:
            # With an empty file as input it checks its settings, opens no device, and exits.
            empty = Path(folder, "empty.pcap")
            empty.write_bytes(bytes.fromhex("4d3cb2a1020004000000000000000000ffff000001000000"))
            own = {name: value for name, value in environment(one).items() if value is not None}
            own |= {"METRICS_ADDRPORT": "off", "MAX_DURATION": "100ms"}
            if "WEB_CONFIG_FILE" in own:
                mounts = one["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
                check(any(own["WEB_CONFIG_FILE"].startswith(mount["mountPath"]) for mount in mounts), "not mounted")
                own["WEB_CONFIG_FILE"] = folder + "/web.yml"
                Path(folder, "web.yml").touch()
            use_keys(one, objects, own, folder)
            if one["kind"] == "DaemonSet":
                own |= {"DEVICE": "", "READ_FILE": str(empty)}
                if own["MODE"] == "capture":
                    own |= {"RELAY_ENDPOINT": "tcp://127.0.0.1:1"}
            else:
                own |= {"COLLECT_ENDPOINT": "ipc://" + folder + "/relay"}
            done = subprocess.run([PCKTR], env=own, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
            equal(done.returncode, 0, f"exit code of {name_of(one)}: {done.stderr.decode(errors='replace')}")


def check_kinds(objects, *kinds):
    equal(sorted({one["kind"] for one in objects}), sorted(kinds), "kinds")


def by_default(chart):
    objects = chart.render({})
    check_kinds(objects, "DaemonSet", "Service", "ServiceAccount", "StatefulSet")
    (nodes,) = of_kind(objects, "DaemonSet")
    spec = nodes["spec"]["template"]["spec"]
    equal((spec["hostNetwork"], spec["dnsPolicy"]), (True, "ClusterFirstWithHostNet"), "network")
    used = (":9108", ":9100", ":9090")
    check(environment(nodes)["METRICS_ADDRPORT"] not in used, "the default port collides with other exporters")
    (collector,) = of_kind(objects, "StatefulSet")
    claims = collector["spec"]["volumeClaimTemplates"]
    equal([claim["spec"]["resources"]["requests"]["storage"] for claim in claims], ["10Gi"], "volumes")


def with_everything(chart):
    """The example `reader`: a sidecar reads the stream, and rules and dashboards are those of this repository."""
    objects = chart.render(chart.values(ROOT / "deploy/helm/examples/reader.yaml"))
    kinds = ["ConfigMap", "DaemonSet", "NetworkPolicy", "PodMonitor", "PrometheusRule", "Service", "ServiceAccount"]
    check_kinds(objects, *kinds, "ServiceMonitor", "StatefulSet")
    (collector,) = of_kind(objects, "StatefulSet")
    by_name = {container["name"]: container for container in containers(collector)}
    equal(by_name["pcktr"]["command"][-1], "/stream/packets", "the collector's output")
    equal(by_name["reader"]["command"][2], 'exec "$@" < /stream/packets', "the reader's input")
    (rules,) = of_kind(objects, "PrometheusRule")
    files = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
    groups = [group for path in files for group in chart.yaml.safe_load(path.read_text())["groups"]]
    equal(rules["spec"]["groups"], groups, "groups of rules")
    (dashboards,) = [one for one in of_kind(objects, "ConfigMap") if one["metadata"]["name"].endswith("-dashboards")]
    files = (ROOT / "deploy/grafana/dashboards").glob("*.json")
    want = {f"packeteur-{path.name}": json.loads(path.read_text()) for path in files}
    equal({name: json.loads(text) for name, text in dashboards["data"].items()}, want, "dashboards")
    check(want, "no dashboards")


def with_keys(chart):
    """The examples that cross the cluster's border are encrypted: with keys at both ends, or at the captures."""
    objects = chart.render(chart.values(ROOT / "deploy/helm/examples/reader.yaml"))
    (nodes,), (collector,) = of_kind(objects, "DaemonSet"), of_kind(objects, "StatefulSet")
    check({"KEY_FILE", "COLLECTOR_KEY"} <= environment(nodes).keys(), "the captures have no keys")
    check({"KEY_FILE", "AUTHORIZED_KEYS"} <= environment(collector).keys(), "the collector has no keys")
    (nodes,) = of_kind(chart.render(chart.values(ROOT / "deploy/helm/examples/remote.yaml")), "DaemonSet")
    check({"KEY_FILE", "COLLECTOR_KEY"} <= environment(nodes).keys(), "the remote captures have no keys")


def reads_changed_config_map(chart):
    """The collector reads the list of keys again when a ConfigMap's volume changes, and says so. A kubelet writes a new
    directory, and renames a symbolic link to it."""
    need_pcktr()
    with tempfile.TemporaryDirectory() as folder:
        volume, key = Path(folder, "keys"), Path(folder, "key")
        volume.mkdir()

        def publish(version, text):
            directory = volume / f"..{version}"
            directory.mkdir()
            (directory / "authorized_keys").write_text(text)
            (volume / "..new").symlink_to(directory.name)
            os.replace(volume / "..new", volume / "..data")

        publish(1, f"{PUBLIC_KEY} node-1\n")
        (volume / "authorized_keys").symlink_to("..data/authorized_keys")
        keygen = {"MODE": "keygen", "KEY_FILE": str(key)}
        other = subprocess.run(
            [PCKTR], env=keygen, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        own = {"MODE": "collect", "COLLECT_ENDPOINT": f"ipc://{folder}/relay", "METRICS_ADDRPORT": "off"}
        own |= {"KEY_FILE": str(key), "AUTHORIZED_KEYS": str(volume / "authorized_keys"), "OUTPUT": "/dev/null"}
        log = Path(folder, "log")
        with open(log, "wb") as out:
            process = subprocess.Popen([PCKTR], env=own, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            until(lambda: "waiting for captures" in log.read_text(), log.read_text)
            publish(2, f"{PUBLIC_KEY} node-1\n{other} node-2\n")
            shutil.rmtree(volume / "..1")
            until(lambda: "AUTHORIZED_KEYS read again keys=2" in log.read_text(), log.read_text)
        finally:
            process.terminate()
            process.wait(30)


def main():
    report = Report()
    # Helm logs its progress to standard error. It reports errors as exceptions.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stderr.fileno())
    try:
        chart = Chart()
    except Skipped as reason:
        report.skipped("helm", reason)
        return report.close()
    for path in [None, *EXAMPLES]:
        name = "helm: " + ("defaults" if path is None else path.stem)
        report.run(f"{name}: lint is clean", chart.lint, path)
        objects = []
        if not report.run(f"{name}: renders", lambda: objects.extend(chart.render(chart.values(path)))):
            continue
        versions = f"{chart.versions[0]} to {chart.versions[-1]}"
        report.run(f"{name}: is valid for Kubernetes {versions}", chart.validate, objects)
        report.run(f"{name}: is consistent", is_consistent, objects)
        report.run(f"{name}: is confined", is_confined, objects)
        report.run(f"{name}: the program accepts its settings", accepts_settings, objects)
    report.run("helm: the defaults are a capture on every node, and a collector with a volume", by_default, chart)
    report.run("helm: the example `reader` has sidecar, rules and dashboards", with_everything, chart)
    report.run("helm: the examples that relay out of the cluster or into it have keys", with_keys, chart)
    report.run("helm: the collector reads a changed ConfigMap", reads_changed_config_map, chart)
    for name, (values, message) in REJECTED.items():
        report.run(f"helm: rejects {name}", chart.rejects, values, message)
    return report.close()


if __name__ == "__main__":
    sys.exit(main())
