#!/usr/bin/env python3
"""The include-direction check: proto <- {planner, kernels} <- worker <- tools.

Usage: check_layers.py [ROOT]. Exit 1 with one line per include against the arrows.
"""
import pathlib
import re
import sys

ALLOWED = {
    "proto": {"proto", "millrace"},
    "kernels": {"proto", "kernels"},
    "planner": {"proto", "planner", "millrace"},
    "worker": {"proto", "kernels", "worker", "millrace"},
    "tools": {"proto", "kernels", "planner", "worker", "tools", "millrace"},
}
FOLDERS = set(ALLOWED) | {"tests"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
SUFFIXES = {".h", ".cc", ".cu", ".cuh"}


def violations(root):
    for folder, allowed in ALLOWED.items():
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in SUFFIXES:
                continue
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                target = match.group(1).split("/")[0] if "/" in match.group(1) else ""
                if target not in FOLDERS | {"millrace"}:
                    if target == "":
                        yield f"{path}:{number}: '{match.group(1)}' is not included from the root"
                elif target not in allowed:
                    yield f"{path}:{number}: {folder}/ may not include {match.group(1)}"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    found = list(violations(root))
    for line in found:
        print(line)
    if not any((root / folder).is_dir() for folder in ALLOWED):
        print(f"{root}: no source folders here")
        return 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
