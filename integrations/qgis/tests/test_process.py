"""The plugin in ``qgis_process``, as a script or a server calls it; `make test-qgis`."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(os.environ["TERRADAPT_ROOT"])
FOLDER = Path(os.environ["QGIS_TESTS"])
# Debian's own script gives the program an option that this version does not know.
PROGRAM = shutil.which("qgis_process.bin") or shutil.which("qgis_process")


class Process(unittest.TestCase):
    """Enabled, listed, run."""

    def test_lists_and_runs_the_algorithms(self):
        profile = tempfile.mkdtemp()
        plugins = Path(profile, "profiles", "default", "python", "plugins")
        command = [os.environ["PYTHON"], str(ROOT / "checks" / "qgis_plugin.py"), "-o", profile]
        packed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode().strip()
        shutil.unpack_archive(packed, str(plugins))  # as QGIS installs it
        env = {**os.environ, "QGIS_CUSTOM_CONFIG_PATH": profile, "QT_QPA_PLATFORM": "offscreen"}

        def call(*words):
            done = subprocess.run(
                [PROGRAM, *words], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            return done.stdout.decode("utf-8", "replace")

        call("plugins", "enable", "terradapt")
        listed = call("list")
        for name in ("predict", "train", "retrain", "roads", "polygons", "compare", "view"):
            self.assertIn(f"terradapt:{name}", listed)
        labels = FOLDER / "data" / "labels" / "city1_0.tif"
        out = FOLDER / "process.gpkg"
        if out.exists():
            out.unlink()
        found = call(
            "run", "terradapt:polygons", "--json", "--", f"INPUT={labels}", f"OUTPUT={out}"
        )
        told = json.loads(found[found.index("{") :])
        self.assertEqual(told["results"]["OUTPUT"], f"{out}|layername=polygons")
        self.assertTrue(out.is_file())


if __name__ == "__main__":
    unittest.main()
