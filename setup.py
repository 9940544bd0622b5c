"""What pyproject.toml can't say: ``nearflash_board.pth`` goes beside the packages, so that every Python process that has
``NEARFLASH_BOARD`` in its environment finds the virtual board (nearflash_sim.board.hook)."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

HOOK = Path(__file__).with_name("sim") / "nearflash_board.pth"


class BuildPy(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            shutil.copy(HOOK, Path(self.build_lib, HOOK.name))


class EditableWheel(editable_wheel):
    def _run_build_commands(self, dist_name, unpacked_wheel, build_lib, tmp_dir):
        shutil.copy(HOOK, Path(unpacked_wheel, HOOK.name))
        return super()._run_build_commands(dist_name, unpacked_wheel, build_lib, tmp_dir)


setup(cmdclass={"build_py": BuildPy, "editable_wheel": EditableWheel})
