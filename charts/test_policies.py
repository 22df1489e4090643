#!/usr/bin/env python3
"""Installs the chart with helm on a real API server and checks the policies and the roles, some 20 s.

`python3 charts/test_policies.py`: etcd, kube-apiserver and, for the aggregated roles, kube-controller-manager run in
namespaces of their own (no root, no port of the machine, nothing survives). Tools: on PATH, or those of e2e. No
controller runs: what holds here holds while Sluice is down.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import generate

INSIDE = "SLUICE_CHART_SANDBOX"
CHART = str(generate.CHART)
SLUICE = "system:serviceaccount:sluice-system:sluice"
GITOPS = "system:serviceaccount:gitops:argo"  # cluster-admin below
ALICE, CAROL = "alice", "carol"  # both `edit` in shop; carol may break glass on `bg` only


def enter_sandbox():
    """Starts this program again in a user, network and pid namespace."""
    if os.environ.get(INSIDE) != "1":
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-Urn", "--pid", "--fork", "--kill-child", sys.executable, *sys.argv])
    subprocess.run([shutil.which("ip") or "/sbin/ip", "link", "set", "lo", "up"], check=True)


class ApiServer:
    """etcd, kube-apiserver and one loop of kube-controller-manager, in a folder."""

    def __init__(self, folder):
        self.folder, self.processes = pathlib.Path(folder), []

    def start(self):
        run, at = self.folder, str(self.folder)
        ssl = lambda *arguments: subprocess.run(["openssl", *arguments], cwd=run, check=True, capture_output=True)
        key = lambda name: ssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", f"{name}.key")
        key("ca")
        ssl("req", "-x509", "-new", "-key", "ca.key", "-subj", "/CN=ca", "-days", "2", "-out", "ca.crt")
        (run / "ext").write_text("extendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=IP:127.0.0.1,IP:10.96.0.1\n")
        for name, subject in (("server", "/CN=kube-apiserver"), ("admin", "/O=system:masters/CN=admin")):
            key(name)
            ssl("req", "-new", "-key", f"{name}.key", "-subj", subject, "-out", f"{name}.csr")
            ssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
                "-extfile", "ext", "-out", f"{name}.crt")
        key("sa")
        ssl("ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")
        cluster = {"server": "https://127.0.0.1:6443", "certificate-authority": f"{at}/ca.crt"}
        user = {"client-certificate": f"{at}/admin.crt", "client-key": f"{at}/admin.key"}
        (run / "kubeconfig").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }))
        os.environ["KUBECONFIG"] = f"{at}/kubeconfig"
        self.spawn("etcd", "--data-dir", f"{at}/etcd", "--unsafe-no-fsync", "--log-level", "error")
        self.spawn("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--secure-port=6443", "--bind-address=127.0.0.1",
                   "--advertise-address=127.0.0.1", f"--tls-cert-file={at}/server.crt", f"--tls-private-key-file={at}/server.key",
                   f"--client-ca-file={at}/ca.crt", f"--service-account-key-file={at}/sa.pub",
                   f"--service-account-signing-key-file={at}/sa.key", "--service-cluster-ip-range=10.96.0.0/16",
                   "--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=RBAC",
                   "--endpoint-reconciler-type=none")
        wait_for("the API server", lambda: kubectl("get", "--raw", "/readyz", fails=None).returncode == 0, 60)
        self.spawn("kube-controller-manager", f"--kubeconfig={at}/kubeconfig", "--leader-elect=false",
                   "--controllers=clusterrole-aggregation-controller")

    def spawn(self, name, *arguments):
        with open(self.folder / f"{name}.log", "w") as log:
            self.processes.append(subprocess.Popen([generate.find_tool(name), *arguments], stdout=log, stderr=log))

    def stop(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()


def wait_for(what, condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.2)


def kubectl(*arguments, user=None, fails=False, given=None):
    """Runs kubectl; `fails`: False = must succeed, True = must fail, None = either."""
    command = [generate.find_tool("kubectl"), *arguments] + (["--as", user] if user else [])
    done = subprocess.run(command, capture_output=True, text=True, input=given)
    if fails is not None and (done.returncode != 0) != fails:
        raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def helm(*arguments):
    command = [generate.find_tool("helm"), *arguments, "--namespace", "sluice-system"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def manifest(name, image="v1", managed=True, paused=None, replicas=2):
    """A Deployment as git has it: with our label at enrolment only."""
    labels = {"app": name}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}}
    spec["template"] = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}}
    if paused is not None:
        spec["paused"] = paused
    meta = {"name": name, "namespace": "shop", **({"labels": {"sluice.dev/managed": "true"}} if managed else {})}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})


def shop(*arguments, user=ALICE, **more):
    return kubectl("-n", "shop", *arguments, user=user, **more)


def state(name):
    """(image, paused, mark, label) of a Deployment."""
    found = json.loads(kubectl("-n", "shop", "get", "deployment", name, "-o", "json").stdout)
    meta, spec = found["metadata"], found["spec"]
    image = spec["template"]["spec"]["containers"][0]["image"]
    mark = meta.get("annotations", {}).get("sluice.dev/held")
    return image, spec.get("paused", False), mark, meta.get("labels", {}).get("sluice.dev/managed")


def policies_work():
    """Whether the API server's caches have all three policies, some seconds after they were written."""
    name = f"probe-{time.monotonic_ns()}"
    kubectl("-n", "shop", "apply", "-f", "-", given=manifest(name))
    told = kubectl("-n", "shop", "set", "image", f"deployment/{name}", "c=v2", fails=None).stderr
    status = ["patch", "deployment", name, "--subresource=status", "--type=merge", "-p"]
    denied = kubectl("-n", "shop", *status, '{"metadata":{"annotations":{"sluice.dev/held":null}}}', fails=None)
    return "held by Sluice" in told and "is held; see kubectl" in denied.stderr


def break_glass(reason):
    annotations = {"sluice.dev/break-glass": reason, "sluice.dev/held": None}
    metadata = {"annotations": annotations, "labels": {"sluice.dev/managed": None}}
    return json.dumps({"metadata": metadata, "spec": {"paused": None}})


AT_REST = ("v1", False, None, "true")
HELD = ("v2", True, "held", "true")


class Policies(unittest.TestCase):
    def enrolled(self, name):
        """A Deployment at rest, applied by kubectl as alice, then enrolled as the controller does it."""
        shop("apply", "-f", "-", given=manifest(name, managed=False))
        patch = '{"metadata":{"labels":{"sluice.dev/managed":"true"}}}'
        shop("patch", "deployment", name, "--type=merge", "-p", patch, user=SLUICE)
        self.assertEqual(state(name), AT_REST)
        return name

    def held(self, name):
        self.enrolled(name)
        shop("set", "image", f"deployment/{name}", "c=v2")
        self.assertEqual(state(name), HELD)
        return name

    def test_a_new_template_is_held_however_it_arrives(self):
        ways = {
            "set-image": lambda n: shop("set", "image", f"deployment/{n}", "c=v2"),
            "apply": lambda n: shop("apply", "-f", "-", given=manifest(n, "v2", managed=False)),
            "apply-paused-false": lambda n: shop("apply", "-f", "-", given=manifest(n, "v2", managed=False, paused=False)),
            "server-side": lambda n: shop("apply", "--server-side", "--force-conflicts", "-f", "-",
                                          given=manifest(n, "v2", managed=False, paused=False)),
            "replace": lambda n: shop("replace", "-f", "-", given=manifest(n, "v2", managed=False)),
            "gitops": lambda n: shop("apply", "-f", "-", given=manifest(n, "v2", managed=False), user=GITOPS),
            "admin": lambda n: kubectl("-n", "shop", "set", "image", f"deployment/{n}", "c=v2"),
        }
        for name, write in ways.items():
            with self.subTest(name):
                told = write(self.enrolled(name)).stderr
                self.assertEqual(state(name), HELD)
                self.assertIn("held by Sluice: the new template is not live", told)

    def test_nothing_but_the_controller_releases(self):
        ways = {
            "resume": ["rollout", "resume", "deployment/{}"],
            "patch": ["patch", "deployment", "{}", "--type=merge", "-p", '{"spec":{"paused":false}}'],
            "unmark": ["annotate", "deployment", "{}", "sluice.dev/held-"],
            "unlabel": ["label", "deployment", "{}", "sluice.dev/managed-"],
            "all": ["patch", "deployment", "{}", "--type=merge", "-p", break_glass("")],
        }
        for name, command in ways.items():
            with self.subTest(name):
                self.held(f"rel-{name}")
                for user in (ALICE, GITOPS):
                    shop(*[part.replace("{}", f"rel-{name}") for part in command], user=user, fails=None)
                    self.assertEqual(state(f"rel-{name}"), HELD)
        self.held("rel-status")
        patch = '{"metadata":{"annotations":{"sluice.dev/held":null}}}'
        told = shop("patch", "deployment", "rel-status", "--subresource=status", "--type=merge", "-p", patch, user=GITOPS, fails=True)
        self.assertIn("is held; see kubectl -n shop get progressiverollout", told.stderr)
        # Status with the mark passes, as the native controller's must; it takes nothing else along.
        patch = '{"metadata":{"labels":{"sluice.dev/managed":null}},"spec":{"paused":false},"status":{"observedGeneration":1}}'
        shop("patch", "deployment", "rel-status", "--subresource=status", "--type=merge", "-p", patch, user=GITOPS)
        self.assertEqual(state("rel-status"), HELD)
        for _ in range(3):  # a GitOps loop
            shop("apply", "--server-side", "--force-conflicts", "-f", "-", given=manifest("rel-status", "v2", False, False), user=GITOPS)
            self.assertEqual(state("rel-status"), HELD)

    def test_the_label_cannot_be_taken_at_rest(self):
        self.enrolled("label")
        shop("label", "deployment", "label", "sluice.dev/managed-", fails=None)
        shop("set", "image", "deployment/label", "c=v2")
        self.assertEqual(state("label"), HELD)

    def test_scaling_and_other_writes_pass(self):
        self.enrolled("scale")
        for user in (ALICE, GITOPS):
            shop("scale", "deployment/scale", "--replicas=3", user=user)
            shop("annotate", "deployment", "scale", f"example.com/x={user.replace(':', '.')}", "--overwrite", user=user)
            self.assertEqual(state("scale"), AT_REST)
        self.held("scale-held")
        shop("scale", "deployment/scale-held", "--replicas=5")
        shop("autoscale", "deployment/scale-held", "--min=1", "--max=5")
        self.assertEqual(state("scale-held"), HELD)

    def test_the_users_own_pause_is_kept_until_resumed(self):
        self.enrolled("pause")
        shop("rollout", "pause", "deployment/pause")
        self.assertEqual(state("pause"), ("v1", True, None, "true"))
        shop("set", "image", "deployment/pause", "c=v2")
        self.assertEqual(state("pause"), ("v2", True, "user-paused", "true"))
        shop("rollout", "resume", "deployment/pause")
        self.assertEqual(state("pause"), HELD)

    def test_a_pause_that_ends_with_the_new_template_is_over(self):
        self.enrolled("unpause")
        shop("rollout", "pause", "deployment/unpause")
        shop("apply", "-f", "-", given=manifest("unpause", "v2", managed=False, paused=False))
        self.assertEqual(state("unpause"), HELD)

    def test_a_mark_in_git_holds_nothing(self):
        self.enrolled("forged")
        shop("annotate", "deployment", "forged", "sluice.dev/held=held")
        self.assertEqual(state("forged"), AT_REST)

    def test_the_controllers_account_releases(self):
        self.held("release")
        patch = '{"metadata":{"annotations":{"sluice.dev/held":null}},"spec":{"paused":null}}'
        told = shop("patch", "deployment", "release", "--type=merge", "-p", patch, user=SLUICE)
        self.assertEqual(state("release"), ("v2", False, None, "true"))
        self.assertNotIn("Warning", told.stderr)

    def test_break_glass_is_for_a_person_with_the_verb_and_a_new_reason(self):
        self.held("bg")
        for user, reason in ((GITOPS, "INC-0"), (ALICE, "INC-1")):
            shop("patch", "deployment", "bg", "--type=merge", "-p", break_glass(reason), user=user, fails=None)
            self.assertEqual(state("bg"), HELD)
        # The last attempt left its reason behind; it is spent.
        shop("patch", "deployment", "bg", "--type=merge", "-p", break_glass("INC-1"), user=CAROL, fails=None)
        self.assertEqual(state("bg"), HELD)
        shop("patch", "deployment", "bg", "--type=merge", "-p", break_glass("INC-2"), user=CAROL)
        self.assertEqual(state("bg"), ("v2", False, None, None))
        self.held("bg-other")  # carol's role names one Deployment
        shop("patch", "deployment", "bg-other", "--type=merge", "-p", break_glass("INC-3"), user=CAROL, fails=None)
        self.assertEqual(state("bg-other"), HELD)

    def test_deleting_a_held_deployment_warns(self):
        self.held("gone")
        self.assertIn("re-created one starts its template without a hold", shop("delete", "deployment", "gone").stderr)

    def test_deployments_that_are_not_enrolled_are_left_alone(self):
        shop("apply", "-f", "-", given=manifest("free", managed=False))
        told = shop("set", "image", "deployment/free", "c=v2")
        self.assertEqual(state("free"), ("v2", False, None, None))
        self.assertEqual(told.stderr, "")


class HoldAlways(unittest.TestCase):
    """`admission.hold: always` on the validating policies alone, as on Kubernetes 1.30 to 1.35."""

    @classmethod
    def setUpClass(cls):
        helm("upgrade", "sluice", CHART, "--reuse-values", "--set", "admission.hold=always")
        gone = lambda: "not found" in kubectl("get", "mutatingadmissionpolicy", "sluice-hold", fails=None).stderr
        wait_for("the mutating policy to go", gone, 10)
        time.sleep(2)  # until the API server's own caches know

    @classmethod
    def tearDownClass(cls):
        helm("upgrade", "sluice", CHART, "--reuse-values", "--set", "admission.hold=auto")
        wait_for("the policies", policies_work, 30)

    def at_rest(self, name):
        """Enrolled: paused and marked, as the controller keeps it here."""
        shop("apply", "-f", "-", given=manifest(name, managed=False))
        patch = '{"metadata":{"labels":{"sluice.dev/managed":"true"},"annotations":{"sluice.dev/held":"held"}},"spec":{"paused":true}}'
        shop("patch", "deployment", name, "--type=merge", "-p", patch, user=SLUICE)
        return name

    def test_what_keeps_the_pause_passes_and_the_rest_is_denied(self):
        name = self.at_rest("always")
        shop("set", "image", f"deployment/{name}", "c=v2")
        self.assertEqual(state(name), HELD)
        shop("apply", "-f", "-", given=manifest(name, "v2", managed=False))
        shop("apply", "--server-side", "--force-conflicts", "-f", "-", given=manifest(name, "v2", managed=False))
        shop("scale", f"deployment/{name}", "--replicas=4")
        for denied in (
            lambda: shop("replace", "-f", "-", given=manifest(name, "v3", managed=False), fails=True),
            lambda: shop("apply", "-f", "-", given=manifest(name, "v3", managed=False, paused=False), fails=True),
            lambda: shop("rollout", "resume", f"deployment/{name}", user=GITOPS, fails=True),
            lambda: shop("label", "deployment", name, "sluice.dev/managed-", fails=True),
            lambda: shop("annotate", "deployment", name, "sluice.dev/held-", fails=True),
        ):
            told = denied().stderr
            self.assertRegex(told, "is held; see kubectl|must arrive with spec.paused=true|goes away with the ProgressiveRollout")
        self.assertEqual(state(name), HELD)


class Roles(unittest.TestCase):
    def may(self, user, verb, resource, namespace="", name=""):
        """Asks the API server; `resource` is group/resource or group/resource/subresource."""
        group, resource, *subresource = resource.split("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name}
        attributes["subresource"] = "".join(subresource)
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        review["spec"] = {"user": user, "resourceAttributes": attributes}
        told = kubectl("create", "-o", "json", "-f", "-", given=json.dumps(review)).stdout
        return json.loads(told)["status"]["allowed"]

    def test_the_controller_may_what_it_needs_and_no_more(self):
        policies, gateway, home = "admissionregistration.k8s.io", "gateway.networking.k8s.io", "sluice-system"
        yes = [
            ("patch", "apps/deployments", "shop"), ("create", "apps/replicasets", "shop"), ("delete", "/services", "shop"),
            ("watch", "discovery.k8s.io/endpointslices", "shop"), ("list", "/pods", "shop"),
            ("patch", f"{gateway}/httproutes", "shop"), ("list", "autoscaling/horizontalpodautoscalers", "shop"),
            ("get", "/persistentvolumeclaims", "shop"),
            ("update", "sluice.dev/progressiverollouts/status", "shop"), ("patch", "sluice.dev/progressiverollouts", "shop"),
            ("get", "/secrets", "shop", "sluice-providers"),
            ("watch", "sluice.dev/riskpolicies", "shop"), ("update", "sluice.dev/riskpolicies/status", "shop"),
            ("create", "sluice.dev/clusterriskpolicies"), ("update", "sluice.dev/clusterriskpolicies/status"),
            ("watch", "sluice.dev/changefreezes"), ("update", "sluice.dev/changefreezes/status"), ("watch", "/namespaces"),
            ("create", "events.k8s.io/events", "shop"), ("create", "coordination.k8s.io/leases", home),
            ("update", "coordination.k8s.io/leases", home, "sluice"), ("patch", "apps/deployments/scale", home, "sluice"),
            ("list", f"{policies}/mutatingadmissionpolicies"), ("get", f"{policies}/validatingadmissionpolicybindings"),
        ]
        no = [
            ("list", "/secrets", "shop"), ("get", "/secrets", "shop", "other"), ("get", "/secrets", home, "other"),
            ("create", "apps/deployments", "shop"), ("delete", "apps/deployments", "shop"), ("patch", "apps/deployments/status", "shop"),
            ("patch", "apps/deployments/scale", "shop", "web"), ("patch", "apps/deployments/scale", home, "other"),
            ("create", "/pods", "shop"), ("delete", "/pods", "shop"), ("create", "coordination.k8s.io/leases", "shop"),
            ("update", "coordination.k8s.io/leases", home, "other"), ("delete", f"{gateway}/httproutes", "shop"),
            ("patch", f"{policies}/mutatingadmissionpolicies"), ("create", "sluice.dev/progressiverollouts", "shop"),
            ("breakglass", "sluice.dev/progressiverollouts", "shop", "web"), ("list", "/nodes"), ("watch", "/pods", "shop"),
            ("update", "sluice.dev/clusterriskpolicies"), ("delete", "sluice.dev/clusterriskpolicies"),
            ("create", "sluice.dev/riskpolicies", "shop"), ("update", "sluice.dev/riskpolicies", "shop"),
            ("create", "sluice.dev/changefreezes"), ("update", "sluice.dev/changefreezes"), ("delete", "sluice.dev/changefreezes"),
            ("get", f"{gateway}/gateways", "shop"), ("patch", "autoscaling/horizontalpodautoscalers", "shop"),
            ("list", "/persistentvolumeclaims", "shop"), ("update", "/namespaces", "shop"),
        ]
        for question in yes:
            self.assertTrue(self.may(SLUICE, *question), question)
        for question in no:
            self.assertFalse(self.may(SLUICE, *question), question)

    def test_edit_has_rollouts_but_never_breakglass(self):
        rollouts = "sluice.dev/progressiverollouts"
        for verb in ("get", "watch", "create", "patch", "delete"):
            self.assertTrue(self.may(ALICE, verb, rollouts, "shop"), verb)
        for question in (("patch", f"{rollouts}/status", "shop"), ("breakglass", rollouts, "shop", "web"), ("get", rollouts, "default"),
                         ("patch", "sluice.dev/riskpolicies", "shop"), ("create", "sluice.dev/clusterriskpolicies"),
                         ("patch", "sluice.dev/changefreezes")):
            self.assertFalse(self.may(ALICE, *question), question)
        self.assertTrue(self.may(ALICE, "get", "sluice.dev/riskpolicies", "shop"))
        self.assertTrue(self.may(CAROL, "breakglass", rollouts, "shop", "bg"))
        self.assertFalse(self.may(CAROL, "breakglass", rollouts, "shop", "other"))


    def test_a_watched_namespace_that_does_not_exist_costs_no_rights(self):
        rules = lambda: kubectl("get", "clusterrole", "sluice", "-o", "jsonpath={.rules}").stdout
        before = rules()
        command = [generate.find_tool("helm"), "upgrade", "sluice", CHART, "--namespace", "sluice-system", "--reset-then-reuse-values"]
        done = subprocess.run([*command, "--set", "watchNamespaces={shop,shpo}"], capture_output=True, text=True)
        self.assertIn("watchNamespaces: namespace shpo does not exist", done.stderr)
        self.assertEqual(rules(), before)

class FlowControl(unittest.TestCase):
    def test_the_controllers_requests_have_their_own_priority_level(self):
        uid = kubectl("get", "flowschema", "sluice", "-o", "jsonpath={.metadata.uid}").stdout
        ours = lambda user: uid in kubectl("-n", "shop", "get", "deployments", "-v=8", user=user).stderr
        wait_for("the FlowSchema", lambda: ours(SLUICE), 30)
        self.assertFalse(ours(GITOPS))


class Zz(unittest.TestCase):
    """Last: the other ways to install."""

    def test_a_lost_release_is_adopted_by_the_next_one(self):
        # As after `kubectl delete namespace sluice-system`: helm knows nothing, the cluster-wide objects are left.
        kubectl("-n", "sluice-system", "delete", "secret", "-l", "owner=helm")
        helm("install", "sluice", CHART)

    def test_a_second_installation_is_refused(self):
        command = [generate.find_tool("helm"), "install", "other", CHART, "--namespace", "elsewhere", "--create-namespace"]
        done = subprocess.run([*command, "--set", "fullnameOverride=other"], capture_output=True, text=True)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("exists and cannot be imported", done.stderr)

    def test_uninstall_and_the_plain_manifests(self):
        helm("uninstall", "sluice", "--no-hooks")
        self.assertEqual(kubectl("get", "validatingadmissionpolicy", "-o", "name").stdout, "")
        told = kubectl("apply", "-f", str(generate.HERE / "install.yaml"))
        self.assertIn("mutatingadmissionpolicy.admissionregistration.k8s.io/sluice-hold created", told.stdout)
        self.assertNotIn("PodSecurity", told.stderr)  # the namespace warns of pods that are not restricted
        told = kubectl("apply", "-f", str(generate.HERE / "release-job.yaml"))
        self.assertEqual((told.stdout, told.stderr), ("job.batch/sluice-release created\n", ""))
        careless = ["create", "job", "careless", "--image=x", "-n", "sluice-system"]
        self.assertIn("PodSecurity", kubectl(*careless).stderr)
        kubectl("delete", "-f", str(generate.HERE / "install.yaml"), "--wait=false")


def setUpModule():
    global server, folder
    folder = tempfile.TemporaryDirectory()
    os.environ["HOME"] = folder.name  # helm's and kubectl's caches
    server = ApiServer(folder.name)
    server.start()
    helm("install", "sluice", CHART, "--create-namespace")
    kubectl("create", "namespace", "shop")
    for user, flag in ((ALICE, "--user"), (CAROL, "--user")):
        kubectl("-n", "shop", "create", "rolebinding", user, "--clusterrole=edit", f"{flag}={user}")
    kubectl("create", "clusterrolebinding", "argo", "--clusterrole=cluster-admin", "--serviceaccount=gitops:argo")
    kubectl("apply", "-f", "-", given=json.dumps({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "bg", "namespace": "shop"},
        "rules": [{"apiGroups": ["sluice.dev"], "resources": ["progressiverollouts"], "resourceNames": ["bg"], "verbs": ["breakglass"]}],
    }))
    kubectl("-n", "shop", "create", "rolebinding", "bg", "--role=bg", f"--user={CAROL}")
    allowed = lambda: kubectl("-n", "shop", "auth", "can-i", "create", "deployments.apps", user=ALICE, fails=None).returncode == 0
    wait_for("the aggregated role edit", allowed, 30)

    wait_for("the policies", policies_work, 30)


def tearDownModule():
    server.stop()
    folder.cleanup()


if __name__ == "__main__":
    # Before HOME changes: the cache of tools is below it.
    for tool in ("helm", "kubectl", "etcd", "kube-apiserver", "kube-controller-manager"):
        os.environ[tool.upper().replace("-", "_")] = generate.find_tool(tool)
    enter_sandbox()
    unittest.main()
