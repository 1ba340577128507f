#!/usr/bin/env python3
"""Fetches the shared library of ONNX Runtime, once, into the per-user cache where rebeca looks for it.

The library travels inside the wheel `onnxruntime` on the Python package index; pip is the client, so proxies, mirrors and
certificates are those that pip is configured with. Nothing of Python is needed afterwards. Both the wheel and the library
taken out of it must have the SHA-256 written below, whichever mirror they came from.

Needs Python 3.8 or later and pip, nothing else.
"""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import zipfile

VERSION = "1.30.0"

# Per platform, in Go's names: pip's platform tag, the wheel's SHA-256, the library's path in the wheel, its SHA-256, and the
# name under which rebeca opens it. The interpreter tag is the same for all: the C library does not depend on it.
INTERPRETER = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]
PLATFORMS = {
    "linux/amd64": {
        "tag": "manylinux_2_28_x86_64",
        "wheel": "fd54b314ea385bcecac69ab431f020ba503e3878dad4ebb645fec5a24b041242",
        "member": "onnxruntime/capi/libonnxruntime.so.1.30.0",
        "library": "c902c70b3003c0e99fada202f37478c515ae9bba7944c2b2abd0017bae0c82ed",
        "name": "libonnxruntime.so",
    },
    "linux/arm64": {
        "tag": "manylinux_2_28_aarch64",
        "wheel": "bac3aee7b40acd805659fd81a2acd6096312d5b0f014c97ddfe75fb4c1644627",
        "member": "onnxruntime/capi/libonnxruntime.so.1.30.0",
        "library": "8a218e1e446880131115c368ec7005969a5022af9a15a26173de648fef0b7789",
        "name": "libonnxruntime.so",
    },
    "darwin/arm64": {
        "tag": "macosx_14_0_arm64",
        "wheel": "f36c87ec504f4f328e968ee322e4ba9682abe66280b3425625afcbed5333fed7",
        "member": "onnxruntime/capi/libonnxruntime.1.30.0.dylib",
        "library": "8f54aa3989f2d4b2f9fbe8af298b1c147978ec899a8c28e20d0d35edc0005027",
        "name": "libonnxruntime.dylib",
    },
}


class Failed(Exception):
    """What went wrong and what to do next, in one line."""


def this_platform():
    system = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), platform.system().lower())
    machine = platform.machine().lower()
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
    return system + "/" + machine


def user_cache_dir():
    """The directory that Go's os.UserCacheDir returns on this machine."""
    home = os.environ.get("HOME", "")
    if platform.system() == "Darwin":
        if not home:
            raise Failed("HOME is not set: set it, or name a folder with --into")
        return os.path.join(home, "Library", "Caches")
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if cache:
        if not os.path.isabs(cache):
            raise Failed("XDG_CACHE_HOME is a relative path: make it absolute, or name a folder with --into")
        return cache
    if not home:
        raise Failed("neither XDG_CACHE_HOME nor HOME is set: set one, or name a folder with --into")
    return os.path.join(home, ".cache")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def runs(command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def find_pip(scratch):
    """The command that runs pip: this interpreter's own, else that of a throw-away virtual environment."""
    own = [sys.executable, "-m", "pip"]
    if runs(own + ["--version"]):
        return own
    environment = os.path.join(scratch, "venv")
    if runs([sys.executable, "-m", "venv", environment]):
        return [os.path.join(environment, "bin", "python"), "-m", "pip"]
    raise Failed("python3 has no pip and cannot make a virtual environment: install pip "
                 "(Debian, Ubuntu: apt-get install python3-pip; macOS: python3 -m ensurepip) and try again")


def download(entry, scratch):
    """Downloads the wheel into scratch and returns its path."""
    wheels = os.path.join(scratch, "wheels")
    command = find_pip(scratch) + ["download", "onnxruntime==" + VERSION, "--no-deps", "--only-binary=:all:", "--platform", entry["tag"]]
    command += INTERPRETER + ["--dest", wheels, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode != 0:
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise Failed("pip could not download onnxruntime==%s for %s (is the package index reachable?): %s"
                     % (VERSION, entry["tag"], said[-1] if said else "no message"))
    found = [name for name in os.listdir(wheels) if name.endswith(".whl")]
    if len(found) != 1:
        raise Failed("pip left %d wheels where one was expected" % len(found))
    return os.path.join(wheels, found[0])


def check(what, path, want):
    got = sha256(path)
    if got != want:
        raise Failed("%s has SHA-256 %s, not the pinned %s: it is not the file this version was built against" % (what, got, want))


def install(entry, target):
    """Puts the library at target: written beside it, checked, then renamed, so that target is whole or absent."""
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rebeca-onnxruntime-") as scratch:
        wheel = download(entry, scratch)
        check("the wheel " + os.path.basename(wheel), wheel, entry["wheel"])
        handle, partial = tempfile.mkstemp(prefix=".partial-", dir=folder)
        try:
            with os.fdopen(handle, "wb") as out, zipfile.ZipFile(wheel) as archive:
                with archive.open(entry["member"]) as member:
                    for block in iter(lambda: member.read(1 << 20), b""):
                        out.write(block)
                out.flush()
                os.fsync(out.fileno())
            check(entry["member"], partial, entry["library"])
            os.chmod(partial, 0o644)
            os.replace(partial, target)
        except BaseException:
            os.unlink(partial)
            raise


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", default=this_platform(), help="Go's os/arch, default this machine's: " + ", ".join(sorted(PLATFORMS)))
    parser.add_argument("--into", help="folder to place the library in, default <user cache>/rebeca/onnxruntime/" + VERSION)
    options = parser.parse_args()
    entry = PLATFORMS.get(options.platform)
    if entry is None:
        raise Failed("no library is pinned for %s: build ONNX Runtime %s or later there and name its library with "
                     "REBECA_ONNXRUNTIME or onnxruntime.library" % (options.platform, VERSION))
    folder = options.into or os.path.join(user_cache_dir(), "rebeca", "onnxruntime", VERSION)
    target = os.path.join(folder, entry["name"])
    if os.path.exists(target) and sha256(target) == entry["library"]:
        return
    install(entry, target)
    print("onnxruntime %s for %s: %s" % (VERSION, options.platform, target))


if __name__ == "__main__":
    try:
        main()
    except (Failed, OSError, zipfile.BadZipFile) as error:
        sys.exit("onnxruntime.py: %s" % error)
