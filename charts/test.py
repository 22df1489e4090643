#!/usr/bin/env python3
"""Tests of the chart with helm alone, no cluster: `python3 charts/test.py`, with --update to rewrite the snapshots.

Lint, the schema (unknown keys, bad values), the sense of the rendered RBAC, that every value has an effect, and a
snapshot per values file in sluice/ci and per generation of Kubernetes. Snapshots leave the CRDs out; those have a test.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import generate

HERE = pathlib.Path(__file__).resolve().parent
CHART = HERE / "sluice"
GOLDEN = HERE / "golden"
UPDATE = "--update" in sys.argv
NEW, OLD = "1.36.0", "1.35.4"


def helm(*arguments, values=None, chart=CHART):
    """(ok, output and errors) of `helm template`; `values` is a map that is given as a values file."""
    command = [generate.find_tool("helm"), "template", "sluice", str(chart), "--namespace", "sluice-system", *arguments]
    if "--kube-version" not in arguments:
        command += ["--kube-version", NEW]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if values is not None:
            json.dump(values, file)  # JSON is YAML
            file.flush()
            command += ["--values", file.name]
        done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0, done.stdout if done.returncode == 0 else done.stdout + done.stderr


def documents(text):
    """The rendered documents by (kind, name)."""
    found = {}
    for part in re.split(r"^---$", text, flags=re.M):
        kind = re.search(r"^kind: (\S+)$", part, flags=re.M)
        name = re.search(r"^metadata:\n(?:  .*\n)*?  name: (\S+)$", part, flags=re.M)
        if kind and name:
            found[kind[1], name[1]] = part
    return found


def nested(path, value):
    """{"a": {"b": value}} for "a.b"."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


class Schema(unittest.TestCase):
    schema = json.loads((CHART / "values.schema.json").read_text())

    def test_lint(self):
        for values in [None, *sorted((CHART / "ci").glob("*-values.yaml"))]:
            command = [generate.find_tool("helm"), "lint", str(CHART), "--strict", "--kube-version", NEW]
            command += ["--values", str(values)] if values else []
            done = subprocess.run(command, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, f"{values}: {done.stdout}{done.stderr}")

    def test_every_map_of_ours_is_closed(self):
        def walk(node, path):
            if node.get("properties"):
                self.assertIs(node.get("additionalProperties"), False, path)
            for key, child in node.get("properties", {}).items():
                walk(child, f"{path}.{key}")
            if isinstance(node.get("items"), dict):
                walk(node["items"], path + "[]")

        walk(self.schema, "values")

    def test_schema_and_values_have_the_same_keys(self):
        def leaves(node, path):
            if not node.get("properties"):
                return {path} if path != "global" else set()
            return {leaf for key, child in node["properties"].items() for leaf in leaves(child, f"{path}.{key}".strip("."))}

        documented = {path for path, _, _ in generate.documented_values((CHART / "values.yaml").read_text())}
        self.assertEqual(leaves(self.schema, ""), documented)

    def test_unknown_keys_are_refused_by_name(self):
        def maps(node, path):
            if node.get("properties"):
                yield path
                for key, child in node["properties"].items():
                    yield from maps(child, f"{path}.{key}".strip("."))

        paths = list(maps(self.schema, ""))
        self.assertGreater(len(paths), 10)
        for path in paths:
            ok, out = helm(values=nested(f"{path}.unheardOf".strip("."), 1))
            self.assertFalse(ok, path)
            self.assertIn("'unheardOf' not allowed", out)

    def test_bad_values_are_refused(self):
        row = {"name": "R1", "steps": [{"weightPercent": 5, "bakeSeconds": 1}], "minSamples": 1, "noDataSeconds": 1}
        row["tolerancePpm"] = {"relative": 1, "absolute": 1}
        self.assertTrue(helm(values={"classes": [row]})[0])
        bad = [
            ("replicas", 0),
            ("replicas", "2"),
            ("admission.hold", "never"),
            ("watchNamespaces", ["Shop"]),
            ("image.digest", "sha256:12"),
            ("prometheus.url", "prometheus:9090"),
            ("prometheus.headers", [{"name": "X-A"}]),
            ("prometheus.headers", [{"name": "X-A", "value": "a", "valueKey": "b"}]),
            ("evaluationIntervalSeconds", 0),
            ("classes", [{**row, "name": "R9"}]),
            ("classes", [{**row, "steps": []}]),
            ("classes", [{**row, "steps": [{"weightPercent": 101, "bakeSeconds": 1}]}]),
            ("classes", [{**row, "minSample": 1}]),
            ("defaultGuards", [{"name": "a"}]),
            ("fullnameOverride", "null"),
            ("fullnameOverride", "1"),
            ("serviceAccount.name", "x' || true || '"),
            ("defaultGuards", [{"name": "a", "errorRatio": {"metrics": "x"}}]),
            ("uninstall.timeoutSeconds", 5),
        ]
        for path, value in bad:
            ok, out = helm(values=nested(path, value))
            self.assertFalse(ok, f"{path}: {value}")
            self.assertIn(path.split(".")[0], out)

    def test_contradictions_have_a_sentence(self):
        both = {"url": "http://p", "bearerTokenKey": "t", "basicUserKey": "u", "basicPasswordKey": "p"}
        cases = [
            ({"prometheus": {"caKey": "ca.crt"}}, "prometheus.caKey is set but prometheus.url is empty", NEW),
            ({"alertmanager": {"url": "http://a", "basicUserKey": "u"}}, "needs both", NEW),
            ({"prometheus": both}, "exclude each other", NEW),
            ({"metrics": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}, "enable one", NEW),
            ({"podLabels": {"app.kubernetes.io/name": "x"}}, "podLabels: app.kubernetes.io/name is how the pods are selected", NEW),
            ({"serviceAccount": {"create": False}}, "name an existing ServiceAccount", NEW),
            ({"admission": {"hold": "onChange"}}, "needs Kubernetes 1.36", OLD),
            ({}, "kubeVersion", "1.29.9"),
        ]
        for values, sentence, version in cases:
            ok, out = helm("--kube-version", version, values=values)
            self.assertFalse(ok, sentence)
            self.assertIn(sentence, out)


class Rendered(unittest.TestCase):
    def test_hold_follows_the_cluster(self):
        for version, wish, hold in [
            (NEW, "auto", "onChange"),
            ("1.36.2-gke.100", "auto", "onChange"),
            (OLD, "auto", "always"),
            (NEW, "always", "always"),
        ]:
            ok, out = helm("--kube-version", version, values={"admission": {"hold": wish}})
            self.assertTrue(ok, out)
            self.assertIn(f"    hold: {hold}\n", out)
            kinds = documents(out)
            self.assertEqual(("MutatingAdmissionPolicy", "sluice-hold") in kinds, hold == "onChange")
            for policy in ("sluice-backstop", "sluice-tell"):
                self.assertIn(("ValidatingAdmissionPolicy", policy), kinds)
                self.assertIn(("ValidatingAdmissionPolicyBinding", policy), kinds)

    def test_policies_exempt_the_account_of_the_pods_and_the_hook(self):
        ok, out = helm(values={"serviceAccount": {"name": "other"}})
        self.assertTrue(ok, out)
        found = documents(out)
        for policy in [("MutatingAdmissionPolicy", "sluice-hold"), ("ValidatingAdmissionPolicy", "sluice-backstop"),
                       ("ValidatingAdmissionPolicy", "sluice-tell")]:
            self.assertIn("!= 'system:serviceaccount:sluice-system:other'", found[policy])
        for pod in [("Deployment", "sluice"), ("Job", "sluice-release")]:
            self.assertIn('serviceAccountName: "other"\n', found[pod])
            self.assertIn("mountPath: /run/sluice/config\n", found[pod])
            for restricted in ("runAsNonRoot: true", "readOnlyRootFilesystem: true", "allowPrivilegeEscalation: false",
                               "type: RuntimeDefault", "- ALL"):
                self.assertIn(restricted, found[pod])

    def test_roles_are_least_privilege(self):
        for values in ({}, {"watchNamespaces": ["shop"]}, {"secrets": {"access": "release"}}):
            ok, out = helm(values=values)
            self.assertTrue(ok, out)
            roles = {key: text for key, text in documents(out).items() if key[0] in ("Role", "ClusterRole")}
            rules = [(key, rule) for key, text in roles.items() for rule in re.split(r"\n  - ", text)[1:]]
            self.assertGreater(len(rules), 15)
            for key, rule in rules:
                self.assertNotIn("*", rule, key)
                for never in ("escalate", "impersonate", "bind]", "pods/exec", "roles", "nodes"):
                    self.assertNotIn(never, rule, key)
                if "secrets" in rule:
                    self.assertIn("resourceNames: [sluice-providers]\n    verbs: [get]", rule)
                if "breakglass" in rule:
                    self.assertEqual(key, ("ClusterRole", "sluice-breakglass"))
                if "deployments/scale" in rule or "leases]\n    resourceNames" in rule:
                    self.assertIn("resourceNames: [sluice]", rule)
            self.assertNotIn("aggregate-to", roles["ClusterRole", "sluice-breakglass"])
            cluster = roles["ClusterRole", "sluice"]
            if "watchNamespaces" in values:
                self.assertNotIn("deployments", cluster)
                self.assertIn('namespace: "shop"\n', roles["Role", "sluice-watched"])
            else:
                self.assertIn("[deployments]\n    verbs: [get, list, watch, patch]\n", cluster)

    def test_gateway_rules_can_be_left_out(self):
        self.assertIn("httproutes", helm()[1])
        self.assertNotIn("httproutes", helm(values={"routers": {"gatewayAPI": False}})[1])

    def test_large_numbers_stay_integers(self):
        row = {"name": "R1", "steps": [{"weightPercent": 5, "bakeSeconds": 1}], "minSamples": 100000000, "noDataSeconds": 1}
        row["tolerancePpm"] = {"relative": 1000000, "absolute": 1}
        ok, out = helm(values={"classes": [row]})
        self.assertTrue(ok, out)
        self.assertIn('"minSamples":100000000', out)
        self.assertIn('"relative":1000000', out)

    def test_null_stands_for_an_empty_list(self):
        ok, out = helm(values={"extraArgs": None, "watchNamespaces": None, "classes": None, "defaultGuards": None})
        self.assertTrue(ok, out)
        self.assertEqual(out, helm()[1])

    def test_null_is_refused_where_it_would_be_a_value_of_its_own(self):
        # Helm takes the key away: no pods, no hold, no time for the hook, instead of the default.
        documented = generate.documented_values((CHART / "values.yaml").read_text())
        empty = ('""', "[]", "{}")
        scalars = [path for path, default, _ in documented if default not in empty and ": " not in default]
        maps = {path.rpartition(".")[0] for path, _, _ in documented if "." in path}
        free = {"image.registry"}  # null is what "" is
        paths = sorted((set(scalars) | maps) - free)
        self.assertGreater(len(paths), 35)
        for path in paths:
            ok, out = helm(values=nested(path, None))
            self.assertFalse(ok, path)
            self.assertRegex(out, rf"missing propert.*'{path.rpartition('.')[2]}'", path)

    def test_names_that_yaml_would_read_as_something_else_stay_names(self):
        for name in ("1234", "null", "1e3"):
            values = {"watchNamespaces": [name], "serviceAccount": {"name": name}, "priorityClassName": name,
                      "networkPolicy": {"enabled": True}, "metrics": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}}}
            ok, out = helm("--namespace", name, "--set", "crds.enabled=false", values=values)
            self.assertTrue(ok, out)
            self.assertIn(f'namespace: "{name}"\n', out)
            for line in out.splitlines():
                self.assertNotRegex(line, rf": {name}$")

    def test_changed_settings_roll_the_pods(self):
        sums = {re.search(r"config-sha256: (\w+)", helm(values=v)[1])[1] for v in ({}, {"evaluationIntervalSeconds": 5})}
        self.assertEqual(len(sums), 2)

    def test_crds_are_kept_unless_told_otherwise(self):
        crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: a.sluice.dev\nspec:\n  big: 2147483648\n"
        keep = "  annotations:\n    helm.sh/resource-policy: keep\n"
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / "sluice"
            subprocess.run(["cp", "-r", str(CHART), str(copy)], check=True)
            (copy / "files" / "crds").mkdir(parents=True, exist_ok=True)
            (copy / "files" / "crds" / "a.yaml").write_text(crd)
            for values, there, kept in [({}, True, True), ({"crds": {"keep": False}}, True, False),
                                        ({"crds": {"enabled": False}}, False, False)]:
                ok, out = helm(values=values, chart=copy)
                self.assertTrue(ok, out)
                document = documents(out).get(("CustomResourceDefinition", "a.sluice.dev"))
                self.assertEqual(document is not None, there)
                self.assertEqual(keep in (document or ""), kept)
                self.assertEqual("big: 2147483648" in (document or ""), there)
            (copy / "files" / "crds" / "a.yaml").write_text(crd.replace("  name:", "  labels: {}\n  name:"))
            ok, out = helm(chart=copy)
            self.assertFalse(ok)
            self.assertIn("metadata must begin with name", out)

    def test_every_value_is_used_by_a_template(self):
        text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
        text = text.replace("$m.", ".Values.metrics.").replace("$v.", ".Values.prometheus.")
        for path, _, _ in generate.documented_values((CHART / "values.yaml").read_text()):
            parent, _, last = path.rpartition(".")
            used = f".Values.{path}" in text or (parent in ("prometheus", "alertmanager") and f'"{last}"' in text)
            self.assertTrue(used or last == "url", f"{path} does nothing")

    def test_alerts_name_metrics_that_the_controller_exports(self):
        room = HERE.parent / "operator" / "controller" / "src" / "metrics"
        source = "".join((room / file).read_text() for file in ("mod.rs", "rollouts.rs"))
        rules = (CHART / "files" / "rules.yaml").read_text()
        named = set(re.findall(r"\bsluice_([a-z_]+)\b", rules))
        self.assertGreater(len(named), 5)
        for metric in named:
            exported = re.sub(r"_(total|count|bucket)$", "", metric)
            self.assertIn(f'"{exported}"', source, f"sluice_{metric}")
        phases = (HERE.parent / "operator" / "core" / "src" / "api" / "status.rs").read_text()
        for phase in re.findall(r'phase="(\w+)"', rules):
            self.assertRegex(phases, rf"enum Phase \{{[^}}]*\b{phase},")

    @unittest.skipUnless(shutil.which("promtool"), "promtool (part of Prometheus) is not on PATH")
    def test_alerts_fire_when_they_should(self):
        done = subprocess.run(["promtool", "test", "rules", "rules_test.yaml"], cwd=HERE, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_version_is_the_workspace_version(self):
        cargo = re.search(r'^version = "(.+)"', (HERE.parent / "Cargo.toml").read_text(), flags=re.M)[1]
        chart = (CHART / "Chart.yaml").read_text()
        self.assertIn(f"\nversion: {cargo}\nappVersion: {cargo}\n", chart)
        self.assertIn(f"sluice-controller:{cargo}\n", chart)


class Snapshots(unittest.TestCase):
    maxDiff = None

    def compare(self, name, *arguments):
        ok, out = helm("--set", "crds.enabled=false", *arguments)
        self.assertTrue(ok, out)
        # The chart's version is in every label and would hide what a release really changes.
        version = re.search(r"^version: (.+)$", (CHART / "Chart.yaml").read_text(), flags=re.M)[1]
        out = out.replace(version, "VERSION")
        file = GOLDEN / f"{name}.yaml"
        if UPDATE:
            GOLDEN.mkdir(exist_ok=True)
            file.write_text(out)
        self.assertTrue(file.exists(), f"{file} is missing; run charts/test.py --update and read the diff")
        self.assertMultiLineEqual(file.read_text(), out, f"{file} differs; if meant, run charts/test.py --update")

    def test_defaults(self):
        self.compare("default")

    def test_older_kubernetes(self):
        self.compare("hold-always", "--kube-version", OLD)

    def test_values_files(self):
        for values in sorted((CHART / "ci").glob("*-values.yaml")):
            with self.subTest(values.name):
                self.compare(values.name.replace("-values.yaml", ""), "--values", str(values))

    def test_generated_files(self):
        done = subprocess.run([sys.executable, str(HERE / "generate.py"), "--check"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main(argv=[argument for argument in sys.argv if argument != "--update"])
