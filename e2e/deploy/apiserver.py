"""A fake Kubernetes API server, for Helm to install a chart to. It accepts everything and runs nothing.

`helm-sdkpy` can render a chart only by installing it. The server records the objects, which have passed Helm's own
checks, in the order in which Helm creates them.
"""

import http.server
import json
import threading
from pathlib import Path

# The kinds that a chart may contain, by group and version.
KINDS = {
    "v1": ["ConfigMap", "Secret", "Service", "ServiceAccount"],
    "apps/v1": ["DaemonSet", "StatefulSet"],
    "networking.k8s.io/v1": ["NetworkPolicy"],
    "monitoring.coreos.com/v1": ["PodMonitor", "PrometheusRule", "ServiceMonitor"],
}


def plural(kind):
    return kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")


class Cluster:
    """A server on a free local port. `created` has the objects that were created."""

    def __init__(self, version):
        self.version = version
        self.created = []
        cluster = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                self.answer(*cluster.get(self.path.split("?")[0]))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Type"] == "application/json":
                    cluster.created.append(json.loads(body))
                # Helm's own record of the release has another content type, and is only echoed.
                self.answer(201, body, self.headers["Content-Type"])

            do_PUT = do_PATCH = do_POST

            def answer(self, code, body, kind="application/json"):
                body = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def get(self, path):
        """Status and body for a path: discovery, and no objects."""
        if path == "/version":
            major, minor = self.version
            return 200, {"major": f"{major}", "minor": f"{minor}", "gitVersion": f"v{major}.{minor}.0"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = []
            for known in KINDS:
                group, _, version = known.rpartition("/")
                if group:
                    served = {"groupVersion": known, "version": version}
                    groups.append({"name": group, "versions": [served], "preferredVersion": served})
            return 200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        group = path.removeprefix("/apis/").removeprefix("/api/")
        if group in KINDS:
            resources = [
                {"name": plural(kind), "kind": kind, "namespaced": True, "verbs": ["create", "get", "list", "patch"]}
                for kind in KINDS[group]
            ]
            return 200, {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}
        if path.endswith("/secrets"):
            return 200, {"kind": "SecretList", "apiVersion": "v1", "items": []}
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def kubeconfig(self, folder):
        """Writes a kubeconfig file for clients and returns its path."""
        path = Path(folder, "kubeconfig")
        server = f"http://127.0.0.1:{self.server.server_port}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.write_text(json.dumps(config))
        return str(path)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
