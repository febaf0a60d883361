"""A QGIS without a window, the plugin in it, and the synthetic city; shared by the tests.

Variables: ``TERRADAPT_EXECUTABLE`` is the engine, ``PYTHON`` the Python with networkx,
``QGIS_TESTS`` a folder for what is made.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
PREFIX = os.environ.get("QGIS_PREFIX_PATH", "/usr")
sys.path[:0] = [str(HERE.parent), f"{PREFIX}/share/qgis/python/plugins"]

from qgis.core import (
    QgsApplication,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
)

ENGINE = os.environ["TERRADAPT_EXECUTABLE"]
FOLDER = Path(os.environ.get("QGIS_TESTS") or tempfile.mkdtemp(prefix="terradapt-qgis-"))
_profile = tempfile.mkdtemp(prefix="qgis-profile-")
os.environ["TMPDIR"] = _profile  # QGIS names layers in it otherwise, and a checkout may lie in /tmp

QgsApplication.setPrefixPath(PREFIX, True)
app = QgsApplication([], True, _profile)
app.initQgis()

from processing.core.Processing import Processing

Processing.initialize()

from terradapt.provider import TerradaptProvider

provider = TerradaptProvider()
QgsApplication.processingRegistry().addProvider(provider)


class Feedback(QgsProcessingFeedback):
    """Keeps all that is said; cancels itself in the midst of the phase ``stop_in``."""

    def __init__(self, stop_in=""):
        super().__init__(False)
        self.info, self.errors, self.texts, self.progress_seen = [], [], [], []
        self.stop_in = stop_in
        self.progressChanged.connect(self.on_progress)

    def on_progress(self, percent):
        self.progress_seen.append(percent)
        if self.stop_in and percent > 1 and self.stop_in in " ".join(self.texts[-1:]):
            self.cancel()

    def pushInfo(self, info):
        self.info.append(info)

    def pushDebugInfo(self, info):
        self.info.append(info)

    def pushCommandInfo(self, info):
        self.info.append(info)

    def pushWarning(self, warning):
        self.info.append(warning)

    def reportError(self, error, fatalError=False):
        self.errors.append(error)

    def setProgressText(self, text):
        self.texts.append(text)


def engine(*words):
    """Call the engine itself."""
    command = [ENGINE, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def run(name, parameters, feedback=None, load=False):
    """Run an algorithm as the toolbox does, with its results loaded where ``load`` is true."""
    from processing.gui.AlgorithmExecutor import execute
    from processing.gui.Postprocessing import handleAlgorithmResults
    from qgis.core import QgsProcessingOutputLayerDefinition

    algorithm = QgsApplication.processingRegistry().createAlgorithmById(f"terradapt:{name}")
    feedback = feedback or Feedback()
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    context.setFeedback(feedback)
    given = dict(parameters)
    if load:
        given["OUTPUT"] = QgsProcessingOutputLayerDefinition(
            str(parameters["OUTPUT"]), QgsProject.instance()
        )
    good, why = algorithm.checkParameterValues(given, context)
    assert good, why
    done, found = execute(algorithm, given, context, feedback)
    if done and load:
        assert handleAlgorithmResults(algorithm, context, feedback, False, given), feedback.errors
    return done, found, feedback
