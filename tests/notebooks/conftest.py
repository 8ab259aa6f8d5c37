"""Lets tests of notebooks import what stands beside them, and their kernels start at once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def warm_kernels(warm_python):
    """A notebook's kernel is a process that has imported other packages before; of the kit nothing."""
    provisioner = pytest.importorskip("jupyter_client.provisioning.local_provisioner")

    def launch(words, cwd=None, env=None, stdin=None, stdout=None, stderr=None, **_):
        return warm_python.start(
            words, cwd=cwd, env=env, start_new_session=True, stdout=stdout, stderr=stderr
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(provisioner, "launch_kernel", launch)
        yield
