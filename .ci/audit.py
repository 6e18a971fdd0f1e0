"""Look for known vulnerabilities in what is installed, where pip-audit's service can be asked."""

import json
import subprocess
import sys


def main() -> int:
    """Return 1 if a package is known to be vulnerable; say so if none could be looked up."""
    command = [sys.executable, "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off"]
    asked = subprocess.run([*command, "--format", "json"], capture_output=True, text=True)
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except ValueError:  # pip-audit gave up before it had anything to report
        packages = []
    known = [package for package in packages if "vulns" in package]
    vulnerable = [package for package in known if package["vulns"]]
    for package in vulnerable:
        names = ", ".join(vulnerability["id"] for vulnerability in package["vulns"])
        print(f"{package['name']} {package['version']} is vulnerable: {names}")
    if known:
        print(f"pip-audit: {len(vulnerable)} of {len(known)} packages are known to be vulnerable.")
    else:
        unknown = f"it knows none of {len(packages)} packages"
        reason = unknown if packages else (asked.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"pip-audit: nothing was looked up, its service does not answer here ({reason}).")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
