#!/usr/bin/env python3
"""Tests of the image: the archive's structure and bytes, and that a static program resolves names in an empty root."""

import io
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest

import build
import oci

PROBE = """
use std::net::ToSocketAddrs;
fn main() {
    for name in std::env::args().skip(1) {
        match (name.as_str(), 80u16).to_socket_addrs() {
            Ok(found) => println!("{name} {}", found.map(|a| a.ip().to_string()).collect::<Vec<_>>().join(",")),
            Err(error) => println!("{name} error {error}"),
        }
    }
}
"""


def elf(machine=62, headers=()):
    """A minimal ELF file with the given (type, content) program headers."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, len(headers))
    head += bytes(64 - len(head))
    at, table, tail = 64 + 56 * len(headers), b"", b""
    for kind, content in headers:
        table += struct.pack("<IIQQQQQQ", kind, 4, at + len(tail), 0, 0, len(content), len(content), 1)
        tail += content
    return head + table + tail


def image(program=None, **more):
    settings = {"name": "tool", "reference": "example.com/a/tool:1", "labels": {"x": "y"}, "files": {"etc/f": b"1"}, "epoch": 0}
    return oci.archive(program or elf(), **{**settings, **more})


class Archive(unittest.TestCase):
    def test_reads_back(self):
        self.assertEqual(oci.verify(image())[0], "example.com/a/tool:1")

    def test_same_input_same_bytes(self):
        self.assertEqual(image(), image())
        self.assertNotEqual(image(), image(labels={"x": "z"}))

    def test_a_changed_byte_in_any_blob_is_noticed(self):
        data = image()
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            blobs = [member for member in tar.getmembers() if member.name.startswith("blobs/") and member.isfile()]
        self.assertEqual(len(blobs), 3)
        for blob in blobs:
            at = blob.offset_data + blob.size // 2
            with self.assertRaisesRegex(oci.ImageError, "content differs from its digest"):
                oci.verify(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    def test_dynamic_programs_are_refused(self):
        with self.assertRaisesRegex(oci.ImageError, "loader /lib/ld.so"):
            image(elf(headers=[(oci.PT_INTERP, b"/lib/ld.so\0")]))
        needed = struct.pack("<QQQQ", oci.DT_NEEDED, 1, 0, 0)
        with self.assertRaisesRegex(oci.ImageError, "shared libraries"):
            image(elf(headers=[(oci.PT_DYNAMIC, needed)]))
        # Static, position independent: a dynamic section without libraries.
        image(elf(headers=[(oci.PT_DYNAMIC, struct.pack("<QQ", 0, 0))]))

    def test_platform_is_the_programs(self):
        self.assertEqual(oci.platform_of(elf(183))["architecture"], "arm64")
        for wrong in (b"#!/bin/sh\n", elf(40)):
            with self.assertRaises(oci.ImageError):
                oci.platform_of(wrong)


class StaticProgram(unittest.TestCase):
    """The flags of build.py give a program that needs nothing from its root folder but what Kubernetes mounts."""

    def test_resolves_names_in_an_empty_root(self):
        if subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode:
            self.skipTest("no user namespaces here")
        with tempfile.TemporaryDirectory() as folder:
            source, root = pathlib.Path(folder) / "probe.rs", pathlib.Path(folder) / "root"
            (root / "etc").mkdir(parents=True)
            source.write_text(PROBE)
            flags = [*build.static_flags(), "--target", build.rust_host(), "-o", str(root / "probe")]
            subprocess.run(["rustc", *flags, str(source)], check=True)
            oci.platform_of((root / "probe").read_bytes())
            (root / "etc/resolv.conf").write_text("search shop.svc.cluster.local\nnameserver 127.0.0.1\noptions ndots:5\n")
            (root / "etc/hosts").write_text("127.0.0.1 localhost\n10.1.2.3 in-hosts\n")
            (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
            command = ["unshare", "-Urn", "--pid", "--fork", "--kill-child", sys.executable, __file__, "in-namespace", str(root)]
            told = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual(told.stdout, "in-hosts 10.1.2.3\nprometheus 10.96.0.7\nprometheus.monitoring.svc 10.96.0.7\n", told.stderr)


def answer(server):
    """A name server that knows one address."""
    while True:
        query, peer = server.recvfrom(512)
        end = 12
        while query[end]:
            end += query[end] + 1
        is_a = struct.unpack_from(">H", query, end + 1)[0] == 1
        record = b"\xc0\x0c" + struct.pack(">HHIH4B", 1, 1, 60, 4, 10, 96, 0, 7) if is_a else b""
        server.sendto(query[:2] + b"\x81\x80" + struct.pack(">HHHH", 1, int(is_a), 0, 0) + query[12 : end + 5] + record, peer)


def in_namespace(root):
    subprocess.run([shutil.which("ip") or "/sbin/ip", "link", "set", "lo", "up"], check=True)
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=answer, args=(server,), daemon=True).start()
    child = os.fork()
    if child == 0:
        os.chroot(root)
        os.chdir("/")
        os.execv("/probe", ["/probe", "in-hosts", "prometheus", "prometheus.monitoring.svc"])
    os.waitpid(child, 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["in-namespace"]:
        in_namespace(sys.argv[2])
    else:
        unittest.main()
