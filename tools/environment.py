"""Prints the Python of a virtual environment in the per-user cache, made when it is missing or its requirements have changed.

    python tools/environment.py NAME REQUIREMENTS

Needs Python 3.10 or later with venv and pip, nothing else; pip is the client, as it is configured.
"""

import os
import platform
import subprocess
import sys
from pathlib import Path


def prepare(name, requirements):
    if platform.system() == "Darwin":
        cache = Path.home() / "Library" / "Caches"
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "rebeca" / name
    python, mark = folder / "bin" / "python", folder / "requirements.txt"
    wanted = requirements.read_text()
    if not (python.exists() and mark.exists() and mark.read_text() == wanted):
        say = {"stdout": sys.stderr, "check": True}
        subprocess.run([sys.executable, "-m", "venv", str(folder)], **say)
        subprocess.run([str(python), "-m", "pip", "install", "--disable-pip-version-check", "-r", str(requirements)], **say)
        mark.write_text(wanted)
    return python


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(prepare(sys.argv[1], Path(sys.argv[2])))
