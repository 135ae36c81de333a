"""deploy/sbom: the list of what is in an image is whole, or the build of the image fails."""
import json
import subprocess

import pytest

from rig import TOP


@pytest.fixture
def sbom(tmp_path):
    (tmp_path / "linked").write_text("musl-dev 1.2 amd64 musl\n", encoding="utf-8")
    (tmp_path / "bin").mkdir()

    def sbom(pip, linked="linked"):
        (tmp_path / "bin/pip").write_text(f"#!/bin/sh\n{pip}\n", encoding="utf-8")
        (tmp_path / "bin/pip").chmod(0o755)
        return subprocess.run(["sh", TOP / "deploy/sbom", "1", tmp_path / linked, tmp_path], stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=120, check=False)
    return sbom


def test_it_lists_all_kinds(sbom):
    done = sbom("echo A.b==1.0; echo c==2")
    purls = [one["purl"] for one in json.loads(done.stdout)["components"]]
    assert done.returncode == 0 and purls[-3:] == ["pkg:deb/debian/musl-dev@1.2?arch=amd64&distro=trixie&upstream=musl", "pkg:pypi/a-b@1.0", "pkg:pypi/c@2"]
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in purls)


@pytest.mark.parametrize("pip, linked", [("echo a==1; exit 3", "linked"), ("echo a==1", "missing")])
def test_what_fails_fails_it(sbom, pip, linked):
    done = sbom(pip, linked)
    assert done.returncode != 0 and not done.stdout
