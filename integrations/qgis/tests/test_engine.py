"""The button that makes an engine, with pip as it is; `make test-qgis`.

``TERRADAPT_WHEEL`` is a wheel of this tree, made by the target.
"""

import os
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

import qgis_session as session
from qgis.core import QgsSettings
from terradapt.engine_dialog import EngineDialog

from terradapt import engine, making, settings

WHEEL = os.environ["TERRADAPT_WHEEL"]


class Engine(unittest.TestCase):
    """Made in a folder, found, used; and every failure with a remedy."""

    def test_makes_an_engine_from_a_wheel_and_uses_it(self):
        folder = Path(tempfile.mkdtemp(prefix="engine ")) / "terradapt"  # a blank in the path
        dialog = EngineDialog()
        dialog.source.setText(WHEEL)
        dialog.folder.setFilePath(str(folder))
        dialog._make()
        begun = time.monotonic()
        while dialog.maker is not None and time.monotonic() - begun < 900:
            session.app.processEvents()
            time.sleep(0.05)
        text = dialog.log.toPlainText()
        self.assertIn("The engine is ready", text)
        self.assertIn("Successfully installed", text)  # pip's own lines
        before = os.environ.pop("TERRADAPT_EXECUTABLE")
        try:
            self.assertEqual(settings.find_engine(), str(engine.program_of(folder)))
            labels = session.FOLDER / "data" / "labels" / "city1_0.tif"
            if not labels.exists():
                command = [before, "data", "synthetic", "1-3", "-o", labels.parents[1], "size=512"]
                subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
            out = session.FOLDER / "edge.gpkg"
            given = {"INPUT": str(labels), "OUTPUT": str(out), "REPLACE": True}
            done, _, feedback = session.run("polygons", given)
            self.assertTrue(done, feedback.errors)
            given = {"DATA": str(labels.parents[1]), "RUN": str(session.FOLDER / "never")}
            done, _, feedback = session.run("train", given)
            self.assertFalse(done)  # an edge engine has no torch
            self.assertIn("make the full engine", feedback.errors[0])
        finally:
            os.environ["TERRADAPT_EXECUTABLE"] = before
            settings.remember("folder", "")
            settings.remember("source", "")

    def failure(self, **plan):
        """Return what a plan that cannot work says."""
        folder = Path(tempfile.mkdtemp()) / "engine"
        env = {**settings.clean_environment(), **settings.proxy_environment()}
        env.update(PIP_RETRIES="1", PIP_DEFAULT_TIMEOUT="3", PIP_CONFIG_FILE=os.devnull)
        env = {k: v for k, v in env.items() if k not in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")}
        made = making.make(
            engine.Plan(**{"folder": folder, "python": "", **plan}), env, lambda line: None,
            lambda: False,
        )  # fmt: skip
        self.assertFalse(made.good)
        return made

    def test_without_a_connection_it_says_how_to_do_without(self):
        made = self.failure(source=WHEEL, index="http://127.0.0.1:9/simple")
        self.assertIn("folder of wheels", made.fix)

    def test_a_proxy_of_qgis_that_does_not_answer_is_named(self):
        store = QgsSettings()
        for key, value in (("proxyEnabled", True), ("proxyType", "HttpProxy"),
                           ("proxyHost", "127.0.0.1"), ("proxyPort", "9")):  # fmt: skip
            store.setValue(f"proxy/{key}", value)
        try:
            self.assertEqual(settings.proxy_environment()["HTTPS_PROXY"], "http://127.0.0.1:9")
            made = self.failure(source=WHEEL, index="https://example.org/simple")
            self.assertIn("Settings > Options > Network", made.fix)
        finally:
            store.remove("proxy")

    def test_a_folder_that_lacks_a_wheel_names_it(self):
        made = self.failure(source=str(Path(WHEEL).parent), offline=True)
        self.assertIn("folder of wheels", made.fix)
        self.assertIn("is not to be found", made.what)

    def test_an_unpublished_terradapt_is_asked_for_as_a_file(self):
        made = self.failure(source=tempfile.mkdtemp(), offline=True)
        self.assertIn("wheel file", made.fix)

    def test_foreign_files_and_pythons_that_are_none(self):
        folder = Path(tempfile.mkdtemp())
        (folder / "mine.txt").write_text("mine")
        self.assertIn("holds other files", self.failure(folder=folder).what)
        self.assertTrue((folder / "mine.txt").exists())
        self.assertIn("no Python 3.11", self.failure(python="/bin/false").what)


if __name__ == "__main__":
    unittest.main()
