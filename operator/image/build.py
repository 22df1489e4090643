#!/usr/bin/env python3
"""Builds the controller's image as an OCI archive, without Docker and without root.

The program is linked statically against the C library of the machine's own Rust target, so no other target has to be
downloaded; on x86-64 the image is amd64, on aarch64 arm64. The image holds a list of public CAs, for
providers without a caKey: a pinned one is fetched with pip. Needs cargo, a C compiler, libc.a (Debian: libc6-dev,
Fedora: glibc-static) and Python 3.9 with pip, or --ca-bundle.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import zipfile

import oci

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME = "sluice-controller"
REPOSITORY = "ghcr.io/sluice-dev/sluice-controller"


def version():
    """The workspace's version."""
    return re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), flags=re.M)[1]


def rust_host():
    """The Rust target of this machine."""
    told = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    return re.search(r"^host: (\S+)$", told, flags=re.M)[1]


def static_flags():
    """Flags that link statically and keep this machine's paths out of the program.

    Without --target they would also apply to build scripts and procedural macros, which cannot be static.
    """
    cargo_home = os.environ.get("CARGO_HOME", str(pathlib.Path.home() / ".cargo"))
    return ["-Ctarget-feature=+crt-static", f"--remap-path-prefix={ROOT}=/sluice", f"--remap-path-prefix={cargo_home}=/cargo"]


def build_program():
    """Path of the freshly built static program."""
    target = rust_host()
    environment = {**os.environ, "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(static_flags())}
    command = ["cargo", "build", "--release", "--locked", "--package", NAME, "--bin", NAME, "--target", target]
    print(f"building {NAME} for {target}, static", flush=True)
    if subprocess.run(command, cwd=ROOT, env=environment).returncode:
        sys.exit("cargo build failed. If the linker misses -lc or -lm: install libc6-dev (Debian) or glibc-static (Fedora)")
    base = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return base / target / "release" / NAME


def public_cas(cache):
    """The PEM list of public CAs out of the pinned wheel."""
    cache.mkdir(parents=True, exist_ok=True)
    pin = re.search(r"^certifi==(\S+)", (HERE / "requirements.txt").read_text(), flags=re.M)[1]
    # Checked by pip against the hash when it was fetched; only this folder's name ties it to the pin afterwards.
    folder = cache / f"certifi-{pin}"
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--disable-pip-version-check", "--dest", str(folder), "--requirement", str(HERE / "requirements.txt")]
        if subprocess.run(command).returncode:
            sys.exit("pip could not fetch the list of public CAs; give one with --ca-bundle FILE (PEM)")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        return wheel.read("certifi/cacert.pem")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "target" / "image" / f"{NAME}.tar")
    parser.add_argument("--reference", default=f"{REPOSITORY}:{version()}", help="name and tag, default %(default)s")
    parser.add_argument("--binary", type=pathlib.Path, help="a static program to pack, instead of building it")
    parser.add_argument("--ca-bundle", type=pathlib.Path, help="PEM file of CAs, instead of the pinned public list")
    parser.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="one more label")
    options = parser.parse_args()
    if not re.fullmatch(r"[a-z0-9.:-]+(/[a-z0-9._-]+)+:[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", options.reference):
        parser.error(f"--reference {options.reference}: write registry/repository:tag")
    labels = {
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.description": "The Sluice controller: progressive rollouts for Kubernetes",
        "org.opencontainers.image.source": "https://github.com/sluice-dev/sluice",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.version": version(),
    }
    for label in options.label:
        key, equals, value = label.partition("=")
        if not (key and equals):
            parser.error(f"--label {label}: write KEY=VALUE")
        labels[key] = value
    program = (options.binary or build_program()).read_bytes()
    cas = options.ca_bundle.read_bytes() if options.ca_bundle else public_cas(options.output.parent)
    # Files, then DNS, as everywhere: a libc without this file asks DNS first.
    files = {"etc/nsswitch.conf": b"hosts: files dns\n", "etc/ssl/certs/ca-certificates.crt": cas}
    try:
        data = oci.archive(program, NAME, options.reference, labels, files, oci.source_date_epoch())
        reference, manifest = oci.verify(data)
    except oci.ImageError as error:
        sys.exit(f"{options.binary or NAME}: {error}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_bytes(data)
    print(f"{options.output}  {len(data) / 1e6:.1f} MB\n{reference}@{manifest}")


if __name__ == "__main__":
    main()
