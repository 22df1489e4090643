#!/usr/bin/env python3
"""Writes and checks an OCI image archive of one layer with one static program in it. Python's standard library alone.

The archive is an OCI layout in a tar (ctr, kind, podman, docker 25 and later) that also carries the manifest.json of
`docker save` (crane, older docker); both name the same blobs. The same input gives the same bytes.

    oci.py verify ARCHIVE     reads an archive back: digests, sizes, layer, entrypoint, user
"""

import datetime
import gzip
import hashlib
import io
import json
import os
import struct
import sys
import tarfile

# What containers of the distroless family call "nonroot".
USER = "65532:65532"
CONFIG = "application/vnd.oci.image.config.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARCHITECTURES = {62: {"architecture": "amd64"}, 183: {"architecture": "arm64", "variant": "v8"}}
PT_DYNAMIC, PT_INTERP, DT_NEEDED = 2, 3, 1


class ImageError(Exception):
    """What is wrong with the input or the archive, for a person."""


def platform_of(program):
    """The OCI platform of a static 64-bit Linux program; an error when it needs a loader or a shared library."""
    if program[:4] != b"\x7fELF" or program[4:6] != b"\x02\x01":
        raise ImageError("not a 64-bit little-endian ELF program")
    machine = struct.unpack_from("<H", program, 18)[0]
    if machine not in ARCHITECTURES:
        raise ImageError(f"ELF machine {machine} is neither x86-64 nor aarch64")
    offset, size, count = struct.unpack_from("<Q", program, 32)[0], *struct.unpack_from("<HH", program, 54)
    for number in range(count):
        header = struct.unpack_from("<IIQQQQ", program, offset + number * size)
        kind, start, length = header[0], header[2], header[5]
        if kind == PT_INTERP:
            loader = program[start : start + length].rstrip(b"\0").decode()
            raise ImageError(f"the program is not static: it asks for the loader {loader}")
        if kind == PT_DYNAMIC:
            for entry in range(start, start + length, 16):
                if struct.unpack_from("<Q", program, entry)[0] == DT_NEEDED:
                    raise ImageError("the program is not static: it needs shared libraries")
    return {**ARCHITECTURES[machine], "os": "linux"}


def tar_of(files, epoch):
    """An uncompressed tar of {path: (content, mode)}, with the folders it needs, in path order and owned by root."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folders = {"/".join(path.split("/")[:n]) for path in files for n in range(1, path.count("/") + 1)}
        for path in sorted(folders | set(files)):
            info = tarfile.TarInfo(path)
            info.mtime = epoch
            content, info.mode = files.get(path, (None, 0o755))
            if content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def compress(data):
    """gzip without a time or a file name in its header."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as file:
        file.write(data)
    return buffer.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def archive(program, name, reference, labels, files, epoch):
    """The bytes of the archive: `program` as /`name`, other `files`, tagged `reference` (registry/repository:tag)."""
    platform = platform_of(program)
    layer = tar_of({name: (program, 0o755), **{path: (content, 0o644) for path, content in files.items()}}, epoch)
    created = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    blobs = {}

    def blob(media_type, data, **more):
        blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}

    layer_blob = blob(LAYER, compress(layer))
    config_blob = blob(CONFIG, to_json({
        **platform,
        "created": created,
        "config": {"User": USER, "Entrypoint": [f"/{name}"], "WorkingDir": "/", "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created": created, "created_by": "operator/image/oci.py"}],
    }))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config_blob, "layers": [layer_blob], "annotations": labels}
    # containerd takes the image's name from the first annotation, others the tag from the second.
    names = {"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": reference.rpartition(":")[2]}
    index = blob(MANIFEST, to_json(manifest), platform=platform, annotations=names)

    def path(descriptor):
        return "blobs/" + descriptor["digest"].replace(":", "/")

    entries = {
        "oci-layout": to_json({"imageLayoutVersion": "1.0.0"}),
        "index.json": to_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]}),
        "manifest.json": to_json([{"Config": path(config_blob), "RepoTags": [reference], "Layers": [path(layer_blob)]}]),
        **{path({"digest": key}): data for key, data in blobs.items()},
    }
    return tar_of({entry: (data, 0o644) for entry, data in entries.items()}, epoch)


def verify(data):
    """Reads an archive back and checks all that a runtime relies on; the image's reference and manifest digest."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        entries = {member.name: tar.extractfile(member).read() for member in tar.getmembers() if member.isfile()}

    def check(condition, message):
        if not condition:
            raise ImageError(message)

    def read(descriptor):
        path = "blobs/" + descriptor["digest"].replace(":", "/")
        check(path in entries, f"{path} is missing")
        check(len(entries[path]) == descriptor["size"], f"{path}: size differs from its descriptor")
        check(digest(entries[path]) == descriptor["digest"], f"{path}: content differs from its digest")
        return entries[path]

    for needed in ("oci-layout", "index.json", "manifest.json"):
        check(needed in entries, f"{needed} is missing")
    check(json.loads(entries["oci-layout"])["imageLayoutVersion"] == "1.0.0", "oci-layout: not version 1.0.0")
    manifests = json.loads(entries["index.json"])["manifests"]
    check(len(manifests) == 1, "index.json: not one manifest")
    manifest = json.loads(read(manifests[0]))
    check(len(manifest["layers"]) == 1, "manifest: not one layer")
    config = json.loads(read(manifest["config"]))
    layer = gzip.decompress(read(manifest["layers"][0]))
    check(config["rootfs"]["diff_ids"] == [digest(layer)], "config: diff_ids differ from the layer")
    user = config["config"]["User"].split(":")[0]
    check(user.isdigit() and int(user) > 0, f"config: user {user} is not a number above 0")
    entrypoint = config["config"]["Entrypoint"][0].lstrip("/")
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        check(entrypoint in tar.getnames(), f"layer: no entrypoint {entrypoint}")
        check(tar.getmember(entrypoint).mode & 0o111 == 0o111, f"layer: {entrypoint} is not executable for everybody")
        platform = platform_of(tar.extractfile(entrypoint).read())
    check(platform["architecture"] == config["architecture"], "config: architecture differs from the program's")
    reference = manifests[0]["annotations"]["io.containerd.image.name"]
    saved = json.loads(entries["manifest.json"])[0]
    check(saved["RepoTags"] == [reference], "manifest.json: another name than index.json")
    check(saved["Config"].endswith(manifest["config"]["digest"][7:]), "manifest.json: another config than index.json")
    return reference, manifests[0]["digest"]


def source_date_epoch():
    """The time in the image: $SOURCE_DATE_EPOCH, else 1970, so that a rebuild has the same digest."""
    return int(os.environ.get("SOURCE_DATE_EPOCH", "0"))


def main(arguments):
    if len(arguments) != 2 or arguments[0] != "verify":
        sys.exit(__doc__.strip().splitlines()[-1].strip())
    try:
        with open(arguments[1], "rb") as file:
            print("%s@%s" % verify(file.read()))
    except (ImageError, OSError, KeyError, ValueError, tarfile.TarError) as error:
        sys.exit(f"{arguments[1]}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
